#!/usr/bin/env bash
# make check: what can be said without PostgreSQL, in under a minute once it is built.
source "$(dirname "$0")/lib.sh"

cargo fmt --all --check
scripts/check_tree.sh
cargo clippy -q --locked "${CRATES[@]}" --all-targets -- "${LINTS[@]}"
cargo test -q --locked "${CRATES[@]}" -- --skip on_roto_aws
export RUSTDOCFLAGS="${DOC_LINTS[*]}"
cargo doc -q --locked --no-deps --document-private-items "${CRATES[@]}"
