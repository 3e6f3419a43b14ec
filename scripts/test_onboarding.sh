#!/usr/bin/env bash
# make test-onboarding: what owners of keys are handed, read and run by programs of others.
# test_onboarding.sh PG_CONFIG uses a server that has the extension. Without the argument the
# release is built for PostgreSQL 15 (or for that of $PG_CONFIG).
source "$(dirname "$0")/lib.sh"

scripts/setup.sh onboarding
if (($#)); then
    PG_CONFIG=$1
else
    PG_CONFIG=$(clone_postgres "${PG_CONFIG:-$DEFAULT_PG_CONFIG}")
    build_release "$PG_CONFIG"
    install_release "$PG_CONFIG"
fi
export PG_CONFIG PYTHONDONTWRITEBYTECODE=1
export ONBOARDING_NODE_PATH=$CLIENTS/onboarding/node_modules
export PATH=$VENV/bin:$PATH # aws, cfn-lint, shellcheck
"$VENV/bin/python" -m pytest -v -p no:cacheprovider tests/onboarding
