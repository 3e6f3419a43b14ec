#!/usr/bin/env bash
# Removes what the other scripts built: the target directory and the private PostgreSQL trees.
source "$(dirname "$0")/lib.sh"

rm -rf "$(private_dir)"
cargo clean
