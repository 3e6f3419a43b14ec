#!/usr/bin/env bash
# make bench-crates: criterion's figures for each crate that has benches/. Fails nothing by a
# figure.
source "$(dirname "$0")/lib.sh"

for bench in crates/*/benches/*.rs; do
    crate=${bench#crates/}
    cargo bench -q --locked -p "cmk-${crate%%/*}" --bench "$(basename "$bench" .rs)"
done
