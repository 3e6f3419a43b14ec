#!/usr/bin/env bash
# Fails where a tracked file holds a path of somebody's machine or what looks like a real AWS key.
source "$(dirname "$0")/lib.sh"

suspicious='(^|[^[:alnum:]_.~-])/(home|root|work)/[[:alnum:]._]|(AKIA|ASIA)[0-9A-Z]{16}'
expected='(AKIA|ASIA)[0-9A-Z]*(FAKE|EXAMPLE)'
if git grep -nIE "$suspicious" -- . ':!Cargo.lock' | grep -vE "$expected"; then
    die "these lines name a machine or hold a key; test keys contain FAKE or EXAMPLE"
fi
note "no paths of a machine, no keys"
