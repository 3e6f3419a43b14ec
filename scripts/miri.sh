#!/usr/bin/env bash
# make miri: runs the tests of what handles raw memory in an interpreter that notices undefined
# behaviour. It takes a nightly compiler, and knows neither AES instructions nor locked pages.
source "$(dirname "$0")/lib.sh"

cargo +nightly miri --version >/dev/null 2>&1 ||
    die "Miri is missing: rustup toolchain install nightly --component miri,rust-src"
export MIRIFLAGS="-Zmiri-disable-isolation" RUSTFLAGS=""
miri() { cargo +nightly miri test --locked --target-dir "$TARGET/miri" "$@"; }
miri -p cmk-error -p cmk-crypto -p cmk-envelope --lib
miri -p cmk-keyring --lib shared::
