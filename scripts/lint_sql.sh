#!/usr/bin/env bash
# lint_sql.sh SCRIPT…: fails where a schema on the search_path could catch a name in an install
# script (sql/cmk_encrypt--*.sql). PostgreSQL pins the search_path while it runs one; this is the
# second lock.
source "$(dirname "$0")/lib.sh"

target='target cmk_internal.reencrypt_target'
batch='behind pg_catalog.tid,last pg_catalog.tid,skip pg_catalog.text[]'
next='behind pg_catalog.tid,before bigint'
done='OUT done bigint,OUT problems pg_catalog.jsonb'
column='"table" pg_catalog.regclass,"column" pg_catalog.name'
found='skip pg_catalog.text[],most integer'
found+=',OUT last pg_catalog.tid,OUT rows bigint,OUT bytes bigint'
made='INOUT careful boolean,INOUT full_blocks bigint,OUT last pg_catalog.tid'
made+=',OUT outcome pg_catalog.text,OUT rows bigint'
made+=',OUT failures pg_catalog.jsonb,OUT unavailable pg_catalog.text[],OUT error pg_catalog.jsonb'
run='tenant_column pg_catalog.name,aad pg_catalog.text,only_tenant pg_catalog.text'
UNPINNED=(
    'cmk.seal_table("table" pg_catalog.regclass,pause numeric,batch_blocks integer)'
    "cmk.reencrypt($column,$run,batch integer,pause numeric,dry_run boolean)"
    "cmk_internal.reencrypt_find($target,$next,$found)"
    "cmk_internal.reencrypt_all($target,$batch)"
    "cmk_internal.reencrypt_possible($target,$batch,$done)"
    "cmk_internal.reencrypt_each($target,$batch,$done)"
    "cmk_internal.reencrypt_batch($target,$next,most integer,skip pg_catalog.text[],$made)"
    "cmk_internal.count_outdated($target,skip pg_catalog.text[])"
    'cmk_internal.aad_obstacle(relation pg_catalog.regclass,aad pg_catalog.text)'
    'cmk_internal.tell_dry_run(targets cmk_internal.reencrypt_target[])'
)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for script; do
    # pgspot doesn't know psql's commands.
    grep -v '^\\' "$script" >"$work/script.sql"
    # A procedure that commits can't set search_path, and what runs SQL that its caller wrote must
    # not; all in them is qualified, as everywhere.
    "$VENV/bin/python" -m pgspot "${UNPINNED[@]/#/--proc-without-search-path=}" \
        "$work/script.sql" || die "$script: qualify what is named above"
    # It overlooks joins, whose "=" is looked up like any other.
    if grep -niE '\b(USING *\(|NATURAL +[A-Z ]*JOIN)' "$script"; then
        die "$script: join with ON and OPERATOR(pg_catalog.=)"
    fi
    note "all names in $(basename "$script") are qualified"
done
