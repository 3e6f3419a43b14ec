#!/usr/bin/env bash
# Installs what is missing on a Debian machine with Rust: setup.sh [test]
# With "test", also the Python environment of the tests.
source "$(dirname "$0")/lib.sh"

command -v cargo >/dev/null || die "Rust is missing: install it with rustup, then try again"

missing=()
# want PACKAGE COMMAND…: the package is needed where the command fails.
want() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}
installed() { [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

want build-essential command -v cc
want pkg-config command -v pkg-config
want clang command -v clang
want libclang-dev installed libclang-dev
if [[ -z ${PG_CONFIG:-} ]]; then
    want postgresql-15 test -x /usr/lib/postgresql/15/bin/postgres
    want postgresql-server-dev-15 test -f /usr/include/postgresql/15/server/postgres.h
fi
if [[ ${1:-} == test ]]; then
    want python3-venv python3 -c 'import ensurepip, venv'
    if [[ $(uname -m) == x86_64 ]]; then
        want qemu-user command -v qemu-x86_64 # scripts/check_cpu.sh
    fi
    if is_root; then
        want sudo command -v sudo # cargo pgrx test --runas
    fi
fi

if ((${#missing[@]})); then
    note "installing ${missing[*]}"
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

has_pgrx() { [[ $(cargo pgrx --version 2>/dev/null) == "cargo-pgrx $PGRX_VERSION" ]]; }
if ! has_pgrx; then
    # Another version stays where it is; ours goes beside the build.
    root=()
    if command -v cargo-pgrx >/dev/null; then
        root=(--root "$TOOLS")
    fi
    note "installing cargo-pgrx $PGRX_VERSION (about six minutes)"
    (cd / && env -u CARGO_TARGET_DIR cargo install cargo-pgrx --version "=$PGRX_VERSION" --locked "${root[@]}")
    has_pgrx || die "cargo-pgrx $PGRX_VERSION was installed but another one comes first on PATH"
fi

if [[ ${1:-} == test ]] && ! cmp -s tests/requirements.txt "$VENV/requirements.txt"; then
    note "making the Python environment of the tests"
    rm -rf "$VENV"
    python3 -m venv "$VENV"
    "$VENV/bin/pip" install -q -r tests/requirements.txt
    cp tests/requirements.txt "$VENV/requirements.txt"
fi
