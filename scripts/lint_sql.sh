#!/usr/bin/env bash
# lint_sql.sh SCRIPT…: fails where a schema on the search_path could catch a name in an install
# script (sql/cmk_encrypt--*.sql). PostgreSQL pins the search_path while it runs one; this is the
# second lock.
source "$(dirname "$0")/lib.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for script; do
    # pgspot doesn't know psql's commands.
    grep -v '^\\' "$script" >"$work/script.sql"
    # A procedure that commits can't set search_path; all in it is qualified, as everywhere.
    "$VENV/bin/python" -m pgspot --proc-without-search-path \
        'cmk.seal_table("table" pg_catalog.regclass,pause numeric,batch_blocks integer)' \
        "$work/script.sql" || die "$script: qualify what is named above"
    # It overlooks joins, whose "=" is looked up like any other.
    if grep -niE '\b(USING *\(|NATURAL +[A-Z ]*JOIN)' "$script"; then
        die "$script: join with ON and OPERATOR(pg_catalog.=)"
    fi
    note "all names in $(basename "$script") are qualified"
done
