#!/usr/bin/env bash
# make deny: licences, sources and duplicates of our dependencies (deny.toml), and RustSec's
# advisories where a copy of that database is at hand: cargo-deny fetches it from GitHub into
# $CARGO_HOME.
source "$(dirname "$0")/lib.sh"

scripts/setup.sh deny
cargo deny --locked check bans licenses sources
if cargo deny --locked fetch db 2>/dev/null; then
    cargo deny --locked check --disable-fetch advisories
elif [[ ${CI:-} == true ]]; then
    die "the advisory database could not be fetched"
else
    note "NOT CHECKED: advisories, because RustSec's database can't be reached from here"
fi
