# shellcheck shell=bash disable=SC2034
# What every script here shares; sourced, never run.
#
# Two directories matter. $TARGET holds what cargo builds. $PRIVATE holds PostgreSQL trees of our own:
# everything here installs into those, so that a PostgreSQL of this machine, running or not, is never
# touched (only `make install` does that, on request).

set -euo pipefail
shopt -s inherit_errexit
umask 022

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
[[ $TARGET == /* ]] || TARGET=$ROOT/$TARGET
TOOLS=$TARGET/tools
VENV=$TARGET/venv
PGRX_VERSION=0.18.1
# The crates that build without PostgreSQL.
CRATES=(-p cmk-error -p cmk-crypto -p cmk-envelope -p cmk-kms -p cmk-keyring)
DEFAULT_PG_CONFIG=/usr/lib/postgresql/15/bin/pg_config

export CARGO_TARGET_DIR=$TARGET
export PATH=$TOOLS/bin:$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin
export USER=${USER:-$(id -un)} # pgrx-tests connects as $USER, which containers leave unset
# pgrx would pass link flags through RUSTFLAGS, which compiles every dependency a second time.
export CARGO_PGRX_DISABLE_GC_SECTIONS_WORKAROUND=1
export PGRX_BUILD_FLAGS=--locked
export LC_ALL=C.UTF-8
unset PGHOST PGPORT PGUSER PGPASSWORD PGDATABASE PGDATA PGSERVICE PGOPTIONS
cd "$ROOT"

note() { printf '%s\n' "$*" >&2; }
die() {
    note "error: $*"
    exit 1
}

is_root() { [[ $EUID == 0 ]]; }

# Runs a command with root's rights.
as_root() { if is_root; then "$@"; else sudo "$@"; fi; }

# Runs a command as the OS user that owns the private servers, since root may not run PostgreSQL, and in
# a directory that this user may enter.
as_server() (
    cd /tmp
    if is_root; then
        exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"
    fi
    exec "$@"
)

# Prints the directory for private PostgreSQL trees: below the target directory, or where that cannot
# be entered by the servers' OS user (root's home, say) in /var/tmp.
private_dir() {
    mkdir -p "$TARGET"
    local dir=$TARGET/private
    if ! as_server test -x "$TARGET"; then
        dir=/var/tmp/cmk_encrypt-$EUID
    fi
    mkdir -p "$dir"
    [[ -O $dir && ! -L $dir ]] || die "$dir belongs to somebody else"
    printf '%s\n' "$dir"
}

# pg_major PG_CONFIG: prints 15 for PostgreSQL 15.20.
pg_major() {
    local version
    version=$("$1" --version) || die "cannot run $1"
    [[ $version =~ ^PostgreSQL\ ([0-9]+) ]] || die "$1 says '$version'"
    printf '%s\n' "${BASH_REMATCH[1]}"
}

# clone_postgres PG_CONFIG: copies that server's programs, libraries and share files into a tree of our
# own (PostgreSQL finds its files relative to its programs) and prints the pg_config of the copy.
clone_postgres() {
    local original=$1 tree copy dir
    tree=$(private_dir)/postgresql-$(pg_major "$original")
    copy=$tree$("$original" --bindir)/pg_config
    if [[ $("$copy" --version 2>/dev/null) != "$("$original" --version)" ]]; then
        rm -rf "$tree"
        for dir in "$("$original" --bindir)" "$("$original" --pkglibdir)" "$("$original" --sharedir)"; do
            mkdir -p "$tree${dir%/*}"
            cp -R --preserve=mode,timestamps,links "$dir" "$tree$dir"
        done
        # Headers are only read.
        dir=$("$original" --includedir-server)
        mkdir -p "$tree${dir%/*}"
        ln -s "$dir" "$tree$dir"
    fi
    printf '%s\n' "$copy"
}

# use_pgrx PG_CONFIG: makes cargo-pgrx build against this server. One PGRX_HOME for each major version,
# because pgrx rebuilds its bindings whenever the file in it changes.
use_pgrx() {
    local major
    major=$(pg_major "$1")
    export PGRX_HOME=$TARGET/pgrx/$major
    if ! grep -qsxF "pg$major = \"$1\"" "$PGRX_HOME/config.toml"; then
        mkdir -p "$PGRX_HOME"
        note "registering $1 with cargo-pgrx"
        cargo pgrx init "--pg$major=$1" --no-run >&2
    fi
}

# build_package PG_CONFIG PROFILE [FEATURE]: builds the extension (profile dev or release) for that
# server's version and prints the directory that holds its files.
build_package() {
    local major stage
    major=$(pg_major "$1")
    stage=$TARGET/package/pg$major-$2${3:+-$3}
    use_pgrx "$1"
    rm -rf "$stage"
    cargo pgrx package --pg-config "$1" --profile "$2" --out-dir "$stage" \
        --features "pg$major ${3:-}" >&2
    printf '%s\n' "$stage"
}

# release_to_measure [FEATURE]: builds the release into a PostgreSQL of our own, and exports PG_CONFIG and FAKE_KMS.
release_to_measure() {
    scripts/setup.sh test
    PG_CONFIG=$(clone_postgres "${PG_CONFIG:-$DEFAULT_PG_CONFIG}")
    install_package "$(build_package "$PG_CONFIG" release "${1:-}")" "$PG_CONFIG"
    cargo build -q --locked -p fake_kms
    export PG_CONFIG FAKE_KMS=$TARGET/debug/fake_kms PYTHONDONTWRITEBYTECODE=1
}

# install_package STAGE PG_CONFIG: copies the files into that server's directories, with sudo where we
# may not write. install(1) replaces files instead of writing into them: a running server that has the
# old library mapped keeps it.
install_package() {
    local stage=$1 lib ext sudo=()
    lib=$("$2" --pkglibdir)
    ext=$("$2" --sharedir)/extension
    if [[ ! -w $lib || ! -w $ext ]]; then
        sudo=(sudo)
    fi
    find "$stage" -name '*.so' -exec "${sudo[@]}" install -m 755 -t "$lib" {} +
    find "$stage" \( -name '*.control' -o -name '*.sql' \) -exec "${sudo[@]}" install -m 644 -t "$ext" {} +
    note "installed cmk_encrypt into $lib and $ext"
}
