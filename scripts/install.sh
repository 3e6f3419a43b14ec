#!/usr/bin/env bash
# Builds the release and installs it into the server of $PG_CONFIG.
source "$(dirname "$0")/lib.sh"

scripts/setup.sh
PG_CONFIG=${PG_CONFIG:-$DEFAULT_PG_CONFIG}
stage=$(build_package "$PG_CONFIG" release)
install_package "$stage" "$PG_CONFIG"
