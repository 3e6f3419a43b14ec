#!/usr/bin/env bash
# Fails where a file, tracked or not yet, holds a path of somebody's machine, what looks like a real
# AWS key, or a line that does not fit beside another file.
source "$(dirname "$0")/lib.sh"

suspicious='(^|[^[:alnum:]_.~-])/(home|root|work)/[[:alnum:]._]|(AKIA|ASIA)[0-9A-Z]{16}'
expected='(AKIA|ASIA)[0-9A-Z]*(FAKE|EXAMPLE)'
if git grep --untracked -nIE "$suspicious" -- . ':!Cargo.lock' | grep -vE "$expected"; then
    die "these lines name a machine or hold a key; test keys contain FAKE or EXAMPLE"
fi
note "no paths of a machine, no keys"

# What can't be broken: rows of Markdown tables, links, and string literals that stand alone on
# their line. Of SQL only comments count.
unbreakable=':[0-9]+:([^:]*\|.*\|$|[[:space:]]*(c?"|https?://))'
long=$({
    git grep --untracked -nIP '^.{101}' -- '*.rs' '*.md' '*.sh' .ci
    git grep --untracked -nIP '^(?=.{101}) *--' -- '*.sql' ':!sql/*--*.sql'
} | grep -vE "$unbreakable" || true)
[[ ! $long ]] || die "lines of more than 100 columns: $long"
note "nothing over 100 columns"
