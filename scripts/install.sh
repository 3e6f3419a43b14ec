#!/usr/bin/env bash
# Builds the release and installs it into the server of $PG_CONFIG.
source "$(dirname "$0")/lib.sh"

scripts/setup.sh build
PG_CONFIG=${PG_CONFIG:-$DEFAULT_PG_CONFIG}
build_release "$PG_CONFIG"
install_release "$PG_CONFIG"
