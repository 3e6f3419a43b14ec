#!/usr/bin/env bash
# A private PostgreSQL server for demonstrations and tests. It listens on a Unix socket only, runs
# as an unprivileged user and sees none of the caller's environment.
#
#   server.sh create                      prints the new server's directory DIR (in /tmp)
#   server.sh start DIR [--conf 'NAME = VALUE']… [--env NAME=VALUE]…
#   server.sh restart DIR [MODE]          with the settings and environment of the last start
#   server.sh stop DIR [MODE]             MODE: fast (default), immediate, smart
#   server.sh pid DIR                     prints the postmaster's process id
#   server.sh key DIR NAME                makes the key file of local:NAME in DIR/keys
#   server.sh destroy DIR
#
# PG_CONFIG says which PostgreSQL. DIR/socket is the host to connect to (user postgres, no
# password), DIR/log the server log, DIR/data the data directory, DIR/keys
# cmk_encrypt.local_key_directory.
source "$(dirname "$0")/lib.sh"

usage() { die "usage: $(sed -n 's/^#   //p' "${BASH_SOURCE[0]}")"; }

bin() { printf '%s\n' "$("${PG_CONFIG:?set PG_CONFIG}" --bindir)/$1"; }

create() {
    local dir
    dir=$(as_server mktemp -d /tmp/cmk_encrypt.XXXXXX)
    as_server mkdir -m 700 "$dir/socket" "$dir/keys"
    as_server "$(bin initdb)" --pgdata="$dir/data" --username=postgres --auth=trust \
        --encoding=UTF8 --locale=C.UTF-8 --no-sync --no-instructions >/dev/null
    as_server mkdir "$dir/data/conf.d"
    as_server tee -a "$dir/data/postgresql.conf" >/dev/null <<CONF

listen_addresses = ''
unix_socket_directories = '$dir/socket'
shared_buffers = 64MB
fsync = off
log_line_prefix = '%m [%p] '
cmk_encrypt.local_key_directory = '$dir/keys'
include_dir = 'conf.d'
CONF
    printf '%s\n' "$dir"
}

start() {
    local dir=$1 conf='' env=''
    shift
    while (($#)); do
        case $1 in
            --conf) conf+=$2$'\n' ;;
            --env) env+=$2$'\n' ;;
            *) usage ;;
        esac
        shift 2
    done
    printf '%s' "$conf" | as_server tee "$dir/data/conf.d/start.conf" >/dev/null
    printf '%s' "$env" | as_server tee "$dir/env" >/dev/null
    launch "$dir"
}

launch() {
    local dir=$1 env=() libdir
    mapfile -t env < <(as_server cat "$dir/env")
    # A fetched PostgreSQL comes with a libpq, which its walreceiver would otherwise look for
    # elsewhere.
    libdir=$("$PG_CONFIG" --libdir)
    if [[ -e $libdir/libpq.so.5 ]]; then
        env+=("LD_LIBRARY_PATH=$libdir")
    fi
    as_server env -i PATH=/usr/bin:/bin LANG=C.UTF-8 HOME="$dir" "${env[@]}" \
        "$(bin pg_ctl)" start --silent --wait --timeout=60 --pgdata="$dir/data" --log="$dir/log" \
        </dev/null || {
        as_server tail -n 20 "$dir/log" >&2
        die "the server in $dir did not start"
    }
}

stop() {
    as_server "$(bin pg_ctl)" stop --silent --wait --timeout=60 --pgdata="$1/data" \
        --mode="${2:-fast}"
}

running() { as_server "$(bin pg_ctl)" status --pgdata="$1/data" >/dev/null 2>&1; }

destroy() {
    if running "$1"; then
        stop "$1" immediate
    fi
    rm -rf "$1"
}

# 32 random bytes that only the server's OS user may read.
key() { as_server sh -c 'umask 077; exec head -c 32 /dev/urandom >"$1"' sh "$1/keys/$2.key"; }

command=${1:-}
shift || usage
: "${PG_CONFIG:?set PG_CONFIG}"
case $command in
    create) create ;;
    *)
        [[ ${1:-} == /tmp/cmk_encrypt.* && -d $1 ]] || usage
        case $command in
            start) start "$@" ;;
            stop) stop "$@" ;;
            restart)
                stop "$@"
                launch "$1"
                ;;
            pid) as_server head -n 1 "$1/data/postmaster.pid" ;;
            key) key "$@" ;;
            destroy) destroy "$1" ;;
            *) usage ;;
        esac
        ;;
esac
