#!/usr/bin/env bash
# lint_sql.sh SCRIPT: fails where a schema on the search_path could catch a name in an install script
# (the cmk_encrypt--*.sql below what build_package prints). PostgreSQL pins the search_path while it
# runs that script; this is the second lock.
source "$(dirname "$0")/lib.sh"

script=${1:?usage: lint_sql.sh SCRIPT}
"$VENV/bin/pgspot" "$script" || die "$script: qualify what is named above"
# pgspot overlooks joins, whose "=" is looked up like any other.
if grep -niE '\b(USING *\(|NATURAL +[A-Z ]*JOIN)' "$script"; then
    die "$script: join with ON and OPERATOR(pg_catalog.=)"
fi
note "all names in $(basename "$script") are qualified"
