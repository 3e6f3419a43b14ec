#!/usr/bin/env bash
# make mutants: changes the crates that decide and encrypt, one expression at a time, and runs their
# own tests against each change. Survivors are compared with tests/mutants.txt, whose lines are
#
#   crates/keyring/src/policy.rs: replace < with <= in Policy::fresh # why no test can tell
#
# Arguments go to cargo-mutants: scripts/mutants.sh --file crates/keyring/src/policy.rs
#
# Fails on a survivor that isn't listed and on a listed one that was caught; line numbers don't
# matter.
source "$(dirname "$0")/lib.sh"

scripts/setup.sh mutants
status=0
# Pages and their protection are the operating system's: a test can't see what it does with them.
cargo mutants --no-shuffle --jobs 2 --minimum-test-timeout 20 --output "$TARGET" \
    -p cmk-keyring -p cmk-envelope -p cmk-crypto --exclude crates/crypto/src/pages.rs "$@" \
    -- --locked ||
    status=$?
# 2: some survived, 3: some never ended, which a test would notice.
((status == 0 || status == 2 || status == 3)) || die "cargo-mutants failed ($status)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sed -E 's/:[0-9]+:[0-9]+:/:/' "$TARGET/mutants.out/missed.txt" | sort >"$work/survived"
sed -E '/^(#|$)/d; s/ +# .*//' tests/mutants.txt | sort >"$work/listed"
comm -23 "$work/survived" "$work/listed" >"$work/new"
comm -13 "$work/survived" "$work/listed" >"$work/caught"
(($# == 0)) || : >"$work/caught" # not all were tried
if [[ -s $work/new ]]; then
    note "survived, and not explained in tests/mutants.txt:"
    cat "$work/new"
fi
if [[ -s $work/caught ]]; then
    note "explained in tests/mutants.txt, but caught or gone:"
    cat "$work/caught"
fi
[[ ! -s $work/new && ! -s $work/caught ]] || exit 1
note "$(wc -l <"$work/survived") mutants survived, each explained"
