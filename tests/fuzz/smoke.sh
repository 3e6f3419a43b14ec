#!/usr/bin/env bash
# smoke.sh [SECONDS]: runs every fuzz target that long (default 7), starting from its seeds.
#
# Builds with a stable compiler and without cargo-fuzz: the flags below are those that cargo-fuzz
# passes for libFuzzer's coverage guidance, without the sanitizers that need a nightly one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

seconds=${1:-7}
export RUST_BACKTRACE=0
host=$(rustc --print host-tuple)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/../../target}/fuzz
flags=(--cfg fuzzing -C codegen-units=1 -C passes=sancov-module
    -C llvm-args=-sanitizer-coverage-level=4
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters
    -C llvm-args=-sanitizer-coverage-pc-table
    -C llvm-args=-sanitizer-coverage-trace-compares)
# --target: build scripts and macros run on this machine and must not be instrumented.
RUSTFLAGS="${flags[*]}" cargo build -q --locked --release --bins --target "$host"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for target in envelope column_envelope normalize tampered key_uri; do
    mkdir "$work/$target"
    log=$work/$target.log
    printf '%s: %s seeds, %s s\n' "$target" "$(find "seeds/$target" -type f | wc -l)" "$seconds"
    # The first directory takes what is found, so that the seeds stay as they are.
    if ! "$CARGO_TARGET_DIR/$host/release/$target" -max_total_time="$seconds" -max_len=4096 \
        -timeout=10 -rss_limit_mb=1024 -artifact_prefix="$work/" \
        "$work/$target" "seeds/$target" &>"$log"; then
        tail -40 "$log"
        for finding in "$work"/{crash,timeout,oom,leak}-*; do
            if [[ -f $finding ]]; then
                printf 'input: %s\n' "$(base64 -w0 "$finding")"
            fi
        done
        exit 1
    fi
    # A target that ran nothing has found nothing.
    grep '^Done' "$log"
done
