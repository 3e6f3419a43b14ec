#!/usr/bin/env bash
# make test-clients: programs in JavaScript, Java and Rust, and a connection pool, before and after
# their columns are protected. test_clients.sh PG_CONFIG uses a server that has the extension.
# Without the argument the release is built for PostgreSQL 15 (or for that of $PG_CONFIG).
source "$(dirname "$0")/lib.sh"

scripts/setup.sh clients
if (($#)); then
    PG_CONFIG=$1
else
    PG_CONFIG=$(clone_postgres "${PG_CONFIG:-$DEFAULT_PG_CONFIG}")
    build_release "$PG_CONFIG"
    install_release "$PG_CONFIG"
fi
export PG_CONFIG PYTHONDONTWRITEBYTECODE=1

note "compiling the programs in Java and Rust"
jdbc=/usr/share/java/postgresql.jar
javac -Xlint:all -Werror -d "$CLIENTS/java" -cp "$jdbc" tests/clients/jdbc/Program.java
CARGO_TARGET_DIR=$CLIENTS/rust cargo build -q --locked \
    --manifest-path tests/clients/tokio_postgres/Cargo.toml

export CLIENTS_NODE_PATH=$CLIENTS/node/node_modules
export CLIENTS_CLASS_PATH=$jdbc:$CLIENTS/java
export CLIENTS_TOKIO_POSTGRES=$CLIENTS/rust/debug/cmk_encrypt-test-client
"$VENV/bin/python" -m pytest -v -p no:cacheprovider tests/clients
