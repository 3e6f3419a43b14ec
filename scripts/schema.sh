#!/usr/bin/env bash
# Regenerates the committed SQL script of this version from the sources: the pg_extern attributes
# and the SQL files that src/lib.rs names. With --check, fails where the committed one differs from
# what the release that was built last holds.
#
# pgrx writes the parts in an order that changes from build to build; scripts/schema.py puts them
# into one that does not.
source "$(dirname "$0")/lib.sh"

[[ ${1:-} == --check ]] || scripts/setup.sh schema
PGRX_PG_CONFIG_PATH=$(clone_postgres "${PG_CONFIG:-$DEFAULT_PG_CONFIG}")
export PGRX_PG_CONFIG_PATH
[[ ${1:-} == --check ]] || build_release "$PGRX_PG_CONFIG_PATH"
version=$(cargo pkgid -p cmk_encrypt)
committed=sql/cmk_encrypt--${version##*[#@]}.sql
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo pgrx schema "pg$(pg_major "$PGRX_PG_CONFIG_PATH")" --release --skip-build \
    --out "$work/parts" 2>"$work/log" || die "$(cat "$work/log")"
python3 scripts/schema.py <"$work/parts" >"$work/script"

if [[ ${1:-} == --check ]]; then
    diff -u "$committed" "$work/script" ||
        die "$committed differs from the sources: make schema"
    note "$committed is what the sources make"
else
    install -m 644 "$work/script" "$committed"
    note "wrote $committed"
fi
