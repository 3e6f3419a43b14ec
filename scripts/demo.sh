#!/usr/bin/env bash
# Shows the main job on a private server and fails unless every step shows what it claims.
# demo.sh PG_CONFIG uses a server that has the extension. Without the argument, what is missing is
# installed and the release is built for PostgreSQL 15 (or for that of $PG_CONFIG).
source "$(dirname "$0")/lib.sh"

if (($#)); then
    PG_CONFIG=$1
else
    scripts/setup.sh demo
    PG_CONFIG=$(clone_postgres "${PG_CONFIG:-$DEFAULT_PG_CONFIG}")
    note "building the extension for $("$PG_CONFIG" --version) (the first time about five minutes)"
    build_release "$PG_CONFIG"
    install_release "$PG_CONFIG"
fi
export PG_CONFIG

server=''
cleanup() { if [[ -n $server ]]; then scripts/server.sh destroy "$server"; fi; }
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

note "starting a private server: $("$PG_CONFIG" --version), Unix socket only"
server=$(scripts/server.sh create)
scripts/server.sh key "$server" acme
scripts/server.sh key "$server" globex
scripts/server.sh start "$server" --conf 'cmk_encrypt.local_keys = on' \
    --conf "shared_preload_libraries = 'cmk_encrypt'"

transcript=$server/transcript
export PGHOST=$server/socket PGUSER=postgres PGDATABASE=postgres
PATH=$("$PG_CONFIG" --bindir):$PATH psql -X -v keys="$server/keys" -f scripts/demo.sql 2>&1 |
    tee "$transcript"

# What the client saw when the key was gone: SQLSTATE, message, reason and what to do.
for seen in 'ERROR:  55000: the key of tenant "globex" does not exist' \
    'DETAIL:  reason=key_not_found tenant=globex' \
    'HINT:  Check the key' \
    'DETAIL:  reason=no_grant tenant=globex'; do
    grep -qF "$seen" "$transcript" || die "the transcript lacks: $seen"
done
[[ $(grep -c '✓' "$transcript") == 8 ]] || die "not every check ran"
note "Every step showed what it claims (${SECONDS} s)."
