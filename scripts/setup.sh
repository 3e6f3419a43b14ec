#!/usr/bin/env bash
# Installs what is missing for a purpose, on Debian with Rust:
#
#   setup.sh build     to build for the server of $PG_CONFIG (default: Debian's PostgreSQL 15)
#   setup.sh demo      … and a PostgreSQL 15 to run it in
#   setup.sh schema    … and to regenerate the SQL script
#   setup.sh bench     … and to time it
#   setup.sh sessions  … and to run the session tests
#   setup.sh test      all that `make test` takes
#   setup.sh clients   … and what `make test-clients` takes: Node, Java, PgBouncer
#   setup.sh onboarding    … and what `make test-onboarding` takes: Node
#   setup.sh deny|mutants|sbom    the tool of that name
source "$(dirname "$0")/lib.sh"

purpose=${1:-}
needs=()
case $purpose in
    build) needs=(compiler headers) ;;
    demo) needs=(compiler headers server) ;;
    schema) needs=(compiler headers pgrx) ;;
    bench) needs=(compiler headers server python) ;;
    sessions) needs=(compiler headers server python monitoring) ;;
    test) needs=(compiler headers server python monitoring emulator pgrx) ;;
    clients) needs=(compiler headers server python node clients) ;;
    onboarding) needs=(compiler headers server python node onboarding) ;;
    deny | mutants | sbom) needs=("$purpose") ;;
    *) die "usage: $(sed -n 's/^#   //p' "$0")" ;;
esac
needs() { [[ " ${needs[*]} " == *" $1 "* ]]; }

command -v cargo >/dev/null || die "Rust is missing: install it with rustup, then try again"

missing=()
# want PACKAGE COMMAND…: the package is needed where the command fails.
want() {
    "${@:2}" >/dev/null 2>&1 || missing+=("$1")
}
installed() { [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

if needs compiler; then
    want build-essential command -v cc
    want libclang-dev installed libclang-dev # pgrx reads PostgreSQL's headers with it
fi
if needs headers; then
    if [[ -z ${PG_CONFIG:-} ]]; then
        want postgresql-server-dev-15 test -f /usr/include/postgresql/15/server/postgres.h
    elif [[ ! -f $("$PG_CONFIG" --includedir-server)/postgres.h ]]; then
        die "$PG_CONFIG lacks headers (on Debian: postgresql-server-dev-$(pg_major "$PG_CONFIG"))"
    fi
fi
if needs server && [[ -z ${PG_CONFIG:-} ]]; then
    want postgresql-15 test -x /usr/lib/postgresql/15/bin/postgres
fi
if [[ $purpose == test && -z ${PG_CONFIG:-} ]]; then
    want postgresql-15-pgaudit test -f /usr/lib/postgresql/15/lib/pgaudit.so
fi
if needs python; then
    want python3-venv python3 -c 'import ensurepip, venv'
fi
if needs emulator && [[ $(uname -m) == x86_64 ]]; then
    want qemu-user command -v qemu-x86_64 # scripts/check_cpu.sh
fi
if needs node; then
    want nodejs command -v node
    want npm command -v npm
fi
if needs clients; then
    want default-jdk-headless command -v javac
    want libpostgresql-jdbc-java test -f /usr/share/java/postgresql.jar
    want pgbouncer test -x /usr/sbin/pgbouncer
fi
if needs pgrx && is_root; then
    want sudo command -v sudo # cargo pgrx test --runas
fi

if ((${#missing[@]})); then
    command -v apt-get >/dev/null ||
        die "install a C compiler, libclang, PostgreSQL and headers (on Debian: ${missing[*]})"
    note "installing ${missing[*]}"
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

# Prometheus and its exporter are unpacked and not installed: nothing of theirs is started, and no
# such service of this machine is touched.
if needs monitoring && [[ ! -x $TOOLS/monitoring/usr/bin/promtool ]]; then
    command -v dpkg-deb >/dev/null || die "the tests of docs/monitoring take Debian's packages"
    packages=(prometheus prometheus-postgres-exporter)
    note "unpacking ${packages[*]}"
    downloaded=$(mktemp -d)
    (cd "$downloaded" && apt-get download -q "${packages[@]}") || {
        as_root apt-get update -q
        (cd "$downloaded" && apt-get download -q "${packages[@]}")
    }
    mkdir -p "$TOOLS/monitoring"
    for package in "$downloaded"/*.deb; do
        dpkg-deb --extract "$package" "$TOOLS/monitoring"
    done
    rm -rf "$downloaded"
fi

# tool NAME VERSION: installs a cargo subcommand beside the build, where no other has that version.
# Unoptimised, because compiling these takes longer than they ever run.
tool() {
    # Some print the subcommand's name twice.
    [[ $(cargo "${1#cargo-}" --version 2>/dev/null) == "$1"*" $2" ]] && return
    note "installing $1 $2"
    cargo install "$1" --version "=$2" --locked --debug --root "$TOOLS" \
        --target-dir "$TOOLS/target"
    rm -rf "$TOOLS/target"
}
if needs pgrx; then tool cargo-pgrx 0.18.1; fi
if needs deny; then tool cargo-deny 0.20.2; fi
if needs sbom; then tool cargo-cyclonedx 0.5.9; fi
if needs mutants; then tool cargo-mutants 27.1.0; fi

if needs python && ! cmp -s tests/requirements.txt "$VENV/requirements.txt"; then
    note "making the Python environment of the tests"
    rm -rf "$VENV"
    python3 -m venv "$VENV"
    "$VENV/bin/pip" install -q -r tests/requirements.txt
    cp tests/requirements.txt "$VENV/requirements.txt"
fi

# node_packages FROM TO: installs what a package-lock.json names, unless it is there.
node_packages() {
    cmp -s "$1/package-lock.json" "$2/package-lock.json" && return
    note "installing what $1 names"
    rm -rf "$2"
    mkdir -p "$2"
    cp "$1"/package*.json "$2"
    (cd "$2" && npm ci --silent --ignore-scripts --no-audit --no-fund) ||
        die "npm could not install what $1/package-lock.json names"
}
if needs clients; then node_packages tests/clients/node "$CLIENTS/node"; fi
if needs onboarding; then node_packages tests/onboarding/node "$CLIENTS/onboarding"; fi
