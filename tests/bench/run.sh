#!/usr/bin/env bash
# make bench: builds the release with its yardsticks and times it on a private server. Fails nothing
# by a figure. ROWS and RUNS in the environment change the size (1000000 rows, best of 9 rounds).
source "$(dirname "$0")/../../scripts/lib.sh"

release_to_measure bench

server=''
cleanup() { if [[ -n $server ]]; then scripts/server.sh destroy "$server"; fi; }
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

server=$(scripts/server.sh create)
scripts/server.sh key "$server" bench
scripts/server.sh start "$server" --conf 'cmk_encrypt.local_keys = on' \
    --conf 'cmk_encrypt.cache_ttl = 1d' --conf 'shared_buffers = 1GB' --conf 'max_wal_size = 8GB' \
    --conf 'autovacuum = off'

grep -m 1 'model name' /proc/cpuinfo || true
"$("$PG_CONFIG" --bindir)/psql" -X -h "$server/socket" -U postgres -d postgres \
    -v rows="${ROWS:-1000000}" -v runs="${RUNS:-9}" -f tests/bench/bench.sql
"$VENV/bin/python" tests/bench/calls.py
"$VENV/bin/python" tests/bench/audit.py
"$VENV/bin/python" tests/bench/tenants.py
"$VENV/bin/python" tests/bench/scale.py
"$VENV/bin/python" tests/bench/columns.py
"$VENV/bin/python" tests/bench/search.py
"$VENV/bin/python" tests/bench/reencrypt.py
"$VENV/bin/python" tests/bench/drills.py
