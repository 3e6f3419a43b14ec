COMMENT ON PROCEDURE cmk.reencrypt(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text, pg_catalog.text, pg_catalog.int4, pg_catalog.numeric, pg_catalog.bool) IS
    'Seals the values of a column that are under older data keys under the newest, in batches, while the table is in use';
COMMENT ON FUNCTION cmk.data_key_usage(pg_catalog.regclass, pg_catalog.name) IS
    'How many values of a column are under which data key; takes no key';
COMMENT ON FUNCTION cmk.retire_keys(pg_catalog.text, pg_catalog.text, pg_catalog.bool) IS
    'Destroys the old data keys of a tenant that no value of this database needs, once the caller says what else was looked at';
COMMENT ON TABLE cmk.reencrypt_job IS 'How far the re-encryption of each column got; see cmk.reencrypt_progress';
COMMENT ON COLUMN cmk.reencrypt_job.left_over IS
    'Values under older data keys at the end, by the data key''s id; the empty id: no envelopes';
COMMENT ON TABLE cmk.reencrypt_failure IS 'Rows that could not be re-encrypted, up to 1000 of a column; see cmk.reencrypt_failures';
COMMENT ON VIEW cmk.reencrypt_progress IS
    'How far the re-encryption of each column is: for the table''s owner, and members of pg_monitor';
COMMENT ON COLUMN cmk.reencrypt_progress.state IS
    'running; interrupted: its session is gone; done; incomplete: rows are left; failed';
COMMENT ON COLUMN cmk.reencrypt_progress.rows_estimate IS 'Rows that the table had at the start, as PostgreSQL estimates';
COMMENT ON COLUMN cmk.reencrypt_progress.percent IS 'Of the table''s blocks, in this pass';
COMMENT ON COLUMN cmk.reencrypt_progress.eta IS 'When the first pass will end, at the rate so far';
COMMENT ON COLUMN cmk.reencrypt_progress.failed_rows IS 'Rows that could not be re-encrypted; at the end, those that are left';
COMMENT ON COLUMN cmk.reencrypt_progress.rows_left IS 'Values under older data keys that the look at the end found; null before that';
COMMENT ON VIEW cmk.reencrypt_failures IS
    'Rows that the last re-encryption of a column could not do: for the table''s owner, and members of pg_monitor';
COMMENT ON COLUMN cmk.reencrypt_failures.key IS
    'The row''s primary key, else another unique key, else its place; {"tenant": …} stands for all rows of a tenant';
COMMENT ON COLUMN cmk.reencrypt_failures.reason IS 'As in the DETAIL of errors, or sqlstate and constraint';

COMMENT ON TYPE cmk_internal.reencrypt_target IS 'What cmk.reencrypt() runs on';
COMMENT ON FUNCTION cmk_internal.is_note(pg_catalog.text, pg_catalog.jsonb) IS
    'Whether this is what a run of cmk.reencrypt writes down';
COMMENT ON FUNCTION cmk_internal.aad_obstacle(pg_catalog.regclass, pg_catalog.text) IS
    'Why the aad that cmk.reencrypt was given is none; null if it is one';
COMMENT ON FUNCTION cmk_internal.tenant_of(pg_catalog.bytea) IS 'Whose data key it is, to whom holds a grant for that tenant';
COMMENT ON FUNCTION cmk_internal.data_key_facts(pg_catalog.bytea) IS
    'Version, state and tenant of a data key, a line each, to whom holds a grant for that tenant';
COMMENT ON FUNCTION cmk_internal.reencrypt_begin(pg_catalog.oid, pg_catalog.int2) IS
    'Locks a column of a table that the caller owns against a second re-encryption';
COMMENT ON FUNCTION cmk_internal.waited_for_processor() IS
    'For how many seconds this session was ready to run and had no processor, since it began';
COMMENT ON FUNCTION cmk_internal.reencrypt_end() IS 'Lets go of all columns that this session locked';
COMMENT ON FUNCTION cmk_internal.envelope_columns() IS 'The columns of this database that can hold envelopes';
COMMENT ON FUNCTION cmk_internal.retirement_obstacles() IS 'What keeps cmk.retire_keys() from a proof';
COMMENT ON FUNCTION cmk_internal.reencrypt_locks() IS 'The columns that are being re-encrypted, and by which process';
COMMENT ON FUNCTION cmk_internal.failures_kept() IS 'How many failed rows of a column are kept';
COMMENT ON FUNCTION cmk_internal.outdated_values(pg_catalog.oid, pg_catalog.int2) IS
    'How many values of a column are under older data keys, by data key';
COMMENT ON FUNCTION cmk_internal.has_outdated_values(pg_catalog.oid, pg_catalog.int2) IS
    'Whether a column has a value under an older data key of a tenant';
COMMENT ON FUNCTION cmk_internal.reencrypt_note(pg_catalog.oid, pg_catalog.int2, pg_catalog.text, pg_catalog.jsonb) IS
    'Writes down how far a run is, for the session that holds the column''s lock';
COMMENT ON FUNCTION cmk_internal.sees_reencryption(pg_catalog.oid) IS 'Whether the current role is shown the runs on a table';
COMMENT ON FUNCTION cmk_internal.row_key(pg_catalog.regclass, pg_catalog.int2) IS 'The SQL that tells a row to people';
COMMENT ON FUNCTION cmk_internal.reencrypt_targets(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text, pg_catalog.text) IS
    'The tables that cmk.reencrypt() runs on';
COMMENT ON FUNCTION cmk_internal.reencrypt_obstacles(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text) IS
    'Why a column cannot be re-encrypted';
COMMENT ON FUNCTION cmk_internal.may_replicate() IS 'Whether the caller may leave triggers of users aside';
COMMENT ON FUNCTION cmk_internal.reencrypt_find(cmk_internal.reencrypt_target, pg_catalog.tid, pg_catalog.int8, pg_catalog.text[], pg_catalog.int4) IS
    'The next rows to re-encrypt';
COMMENT ON FUNCTION cmk_internal.not_skipped(cmk_internal.reencrypt_target, pg_catalog.text[]) IS
    'The condition that leaves tenants out';
COMMENT ON FUNCTION cmk_internal.reencrypt_all(cmk_internal.reencrypt_target, pg_catalog.tid, pg_catalog.tid, pg_catalog.text[]) IS
    'Re-encrypts a batch in one UPDATE';
COMMENT ON FUNCTION cmk_internal.leave_code_aside(cmk_internal.reencrypt_target) IS
    'Keeps triggers and rules of users out of the next UPDATE';
COMMENT ON FUNCTION cmk_internal.reencrypt_possible(cmk_internal.reencrypt_target, pg_catalog.tid, pg_catalog.tid, pg_catalog.text[]) IS
    'Re-encrypts what of a batch can be';
COMMENT ON FUNCTION cmk_internal.reencrypt_each(cmk_internal.reencrypt_target, pg_catalog.tid, pg_catalog.tid, pg_catalog.text[]) IS
    'Re-encrypts a batch row by row';
COMMENT ON FUNCTION cmk_internal.concerns_row(pg_catalog.text, pg_catalog.text) IS 'Whether an error may be about single rows';
COMMENT ON FUNCTION cmk_internal.reencrypt_batch(cmk_internal.reencrypt_target, pg_catalog.tid, pg_catalog.int8, pg_catalog.int4, pg_catalog.text[], pg_catalog.bool, pg_catalog.int8) IS
    'Re-encrypts a batch in the fastest way that works';
COMMENT ON FUNCTION cmk_internal.has_values_elsewhere(pg_catalog.regclass) IS
    'Whether a table has values outside of its blocks';
COMMENT ON FUNCTION cmk_internal.count_outdated(cmk_internal.reencrypt_target, pg_catalog.text[]) IS
    'How many values are to be re-encrypted';
COMMENT ON FUNCTION cmk_internal.tell_dry_run(cmk_internal.reencrypt_target[]) IS 'Says what a run would do';
COMMENT ON FUNCTION cmk_internal.tell_reencrypted(cmk_internal.reencrypt_target, pg_catalog.int8, pg_catalog.int8, pg_catalog.jsonb) IS
    'Says what a run did, and what is left';
