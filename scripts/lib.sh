# shellcheck shell=bash disable=SC2034
# What every script here shares; sourced, never run.
#
# $TARGET holds what cargo builds. private_dir holds PostgreSQL trees of our own: everything here
# installs into those, so that a PostgreSQL of this machine, running or not, is never touched (only
# `make install` does that, on request).

set -euo pipefail
shopt -s inherit_errexit
umask 022

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
[[ $TARGET == /* ]] || TARGET=$ROOT/$TARGET
TOOLS=$TARGET/tools
VENV=$TARGET/venv
CLIENTS=$TARGET/clients # what `make test-clients` installs and builds
# What builds without PostgreSQL. Always all of it: another selection would compile the AWS SDK
# anew.
CRATES=(--workspace --exclude cmk_encrypt)
# What fails a build of ours, and only ours.
LINTS=(-D warnings)
# Of the documentation, which is for those who change the code, private items included.
DOC_LINTS=(-D warnings -A rustdoc::private-intra-doc-links)
DEFAULT_PG_CONFIG=/usr/lib/postgresql/15/bin/pg_config
# What scripts/fetch_postgres.sh fetches for the other versions.
declare -A PG_RELEASES=([14]=14.23.0 [16]=16.15.0 [17]=17.11.0 [18]=18.6.0)

export PATH=$TOOLS/bin:$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin
# rust-toolchain.toml names a release. Where that is installed as "stable", it isn't fetched again.
rust=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$ROOT/rust-toolchain.toml")
if command -v rustup >/dev/null && ! rustup toolchain list | grep -q "^$rust" &&
    [[ $(rustup run stable rustc --version 2>/dev/null) == "rustc $rust "* ]]; then
    export RUSTUP_TOOLCHAIN=stable
fi

export CARGO_TARGET_DIR=$TARGET
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

# Runs a command as the OS user that owns the private servers, since root may not run PostgreSQL,
# and in a directory that this user may enter.
as_server() (
    cd /tmp
    if is_root; then
        exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"
    fi
    exec "$@"
)

# Prints the directory for private PostgreSQL trees: below the target directory, or where that
# cannot be entered by the servers' OS user (root's home, say) in /var/tmp.
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

# clone_postgres PG_CONFIG [SUFFIX]: copies that server's programs, libraries and share files into a
# tree of our own (PostgreSQL finds its files relative to its programs) and prints the pg_config of
# the copy. A suffix tells one copy from another.
clone_postgres() {
    local original=$1 tree copy dir
    tree=$(private_dir)/postgresql-$(pg_major "$original")${2:-}
    copy=$tree$("$original" --bindir)/pg_config
    if [[ $("$copy" --version 2>/dev/null) != "$("$original" --version)" ]]; then
        rm -rf "$tree"
        for dir in bindir pkglibdir sharedir; do
            dir=$("$original" "--$dir")
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

# private_postgres MAJOR: prints the pg_config of a tree of our own of that version: a copy of the
# server of PG_CONFIG (without it, of Debian's PostgreSQL 15) where that has the version, else
# fetched.
private_postgres() {
    local ours=${PG_CONFIG:-$DEFAULT_PG_CONFIG}
    if [[ -x $ours && $(pg_major "$ours") == "$1" ]]; then
        clone_postgres "$ours"
    else
        scripts/fetch_postgres.sh "${PG_RELEASES[$1]:?PostgreSQL $1 is not installed}"
    fi
}

# build_release PG_CONFIG [FEATURE [RUSTC_FLAG…]]: builds the library for that server's version,
# which takes cargo alone. As a library for C and nothing else: what is one for Rust as well is
# linked without lto, whatever [profile.release] says.
build_release() {
    PGRX_PG_CONFIG_PATH=$1 cargo rustc --release --locked --lib --crate-type cdylib -p cmk_encrypt \
        --features "pg$(pg_major "$1") ${2:-}" -- "${@:3}" >&2
}

# install_release PG_CONFIG: copies the library that was built last, the control file and the SQL
# scripts into that server's directories, with sudo where we may not write.
install_release() {
    local version lib ext built=so suffix=so sudo=()
    lib=$("$1" --pkglibdir)
    ext=$("$1" --sharedir)/extension
    if [[ ! -w $lib || ! -w $ext ]]; then
        sudo=(sudo)
    fi
    if [[ $(uname) == Darwin ]]; then
        built=dylib
        (($(pg_major "$1") < 16)) || suffix=dylib
    fi
    version=$(cargo pkgid -p cmk_encrypt)
    sed "s/@CARGO_VERSION@/${version##*[#@]}/" cmk_encrypt.control >"$TARGET/cmk_encrypt.control"
    # install(1) replaces files instead of writing into them: a running server that has the old
    # library mapped keeps it.
    "${sudo[@]}" install -m 755 "$TARGET/release/libcmk_encrypt.$built" "$lib/cmk_encrypt.$suffix"
    "${sudo[@]}" install -m 644 "$TARGET/cmk_encrypt.control" sql/cmk_encrypt--*.sql "$ext"
    note "installed cmk_encrypt into $lib and $ext"
}

# release_to_measure [FEATURE]: builds the release into a PostgreSQL of our own, and exports
# PG_CONFIG and FAKE_KMS.
release_to_measure() {
    scripts/setup.sh bench
    PG_CONFIG=$(clone_postgres "${PG_CONFIG:-$DEFAULT_PG_CONFIG}")
    build_release "$PG_CONFIG" "${1:-}"
    install_release "$PG_CONFIG"
    cargo build -q --locked -p fake_kms
    export PG_CONFIG FAKE_KMS=$TARGET/debug/fake_kms PYTHONDONTWRITEBYTECODE=1
}
