#!/usr/bin/env bash
# make endurance: builds the release and runs the mixed load with random faults for SECONDS (3600), with the
# library preloaded and, for a tenth of that time, without.
#
# Not by the name SECONDS: bash counts in that.
duration=${ENDURANCE_SECONDS:-3600}
source "$(dirname "$0")/../../scripts/lib.sh"

scripts/setup.sh test
PG_CONFIG=$(clone_postgres "${PG_CONFIG:-$DEFAULT_PG_CONFIG}")
export PG_CONFIG
install_package "$(build_package "$PG_CONFIG" release)" "$PG_CONFIG"
cargo build -q --locked -p fake_kms
export FAKE_KMS=$TARGET/debug/fake_kms PYTHONDONTWRITEBYTECODE=1
"$VENV/bin/python" tests/endurance/endurance.py --seconds "$duration"
"$VENV/bin/python" tests/endurance/endurance.py --seconds "$((duration / 10))" --lazy
