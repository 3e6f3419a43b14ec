-- What the parts are for, as \df+ shows it.
COMMENT ON FUNCTION cmk_internal.change_column(cmk_internal.column_change) IS
    'Changes type, constraint and trigger of a column, in one transaction';
COMMENT ON FUNCTION cmk_internal.change_column_politely(cmk_internal.column_change, pg_catalog.interval, pg_catalog.int4) IS
    'The same, waiting for its locks for a short time only, and again';
COMMENT ON FUNCTION cmk_internal.checks_of_column(pg_catalog.regclass, pg_catalog.name) IS
    'The CHECK constraints that a column is in, of a table and its children';
COMMENT ON FUNCTION cmk_internal.clean_defaults(pg_catalog._regclass, pg_catalog.name) IS
    'Sets defaults again as they read, without casts to our types';
COMMENT ON FUNCTION cmk_internal.clear_grants(pg_catalog.regclass, pg_catalog.bool) IS
    'Revokes what default privileges gave on a view';
COMMENT ON FUNCTION cmk_internal.column_obstacles(pg_catalog.regclass, pg_catalog.name, pg_catalog.bool) IS
    'What forbids to change a columns type, a line each';
COMMENT ON FUNCTION cmk_internal.column_problems(pg_catalog.regclass, pg_catalog.name) IS
    'What is wrong with a protected column, a line each';
COMMENT ON FUNCTION cmk_internal.column_uses(pg_catalog.regclass, pg_catalog.name) IS
    'What uses a column, in a table and its children';
COMMENT ON FUNCTION cmk_internal.columns_to_seal(pg_catalog.regclass) IS
    'The protected columns of a table and its children, and who their tenants are';
COMMENT ON FUNCTION cmk_internal.common_obstacles(pg_catalog.regclass, pg_catalog.name, pg_catalog.text) IS
    'What forbids to protect or to unprotect a column, in order';
COMMENT ON FUNCTION cmk_internal.concerns_tenant(pg_catalog.text, pg_catalog.text) IS
    'Whether an error is about one tenant, so that others can be sealed';
COMMENT ON FUNCTION cmk_internal.default_label(pg_catalog.regclass, pg_catalog.name) IS
    'The label of a column for which none is given';
COMMENT ON FUNCTION cmk_internal.dump_keys(pg_catalog._regclass) IS
    'What cmk.dump_keys_needed() tells';
COMMENT ON FUNCTION cmk_internal.files_of_column(pg_catalog.regclass, pg_catalog.int2) IS
    'The files in which plaintext of a column stays behind';
COMMENT ON FUNCTION cmk_internal.former_type(pg_catalog.oid, pg_catalog.int4, pg_catalog.text) IS
    'The type that a protected column had before';
COMMENT ON FUNCTION cmk_internal.is_protected(pg_catalog.regclass, pg_catalog.name) IS
    'Whether constraint and trigger of a column are in place, in a table and its children';
COMMENT ON FUNCTION cmk_internal.is_protected_type(pg_catalog.oid) IS
    'Whether a type is one of protected columns';
COMMENT ON FUNCTION cmk_internal.keeps_file(pg_catalog.oid) IS
    'Whether values of a type can stay where they are while a column becomes protected';
COMMENT ON FUNCTION cmk_internal.make_seal_triggers(pg_catalog._regclass, pg_catalog.jsonb, pg_catalog.text) IS
    'Makes the sealing triggers of a table and its children';
COMMENT ON FUNCTION cmk_internal.note_files(pg_catalog.regclass, pg_catalog.int2, pg_catalog.oid) IS
    'Notes in which files plaintext may be left';
COMMENT ON FUNCTION cmk_internal.plain_default(pg_catalog.pg_node_tree, pg_catalog.oid) IS
    'A default as SQL, without a cast of a literal to our types';
COMMENT ON FUNCTION cmk_internal.protect_obstacles(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text, pg_catalog.bool, pg_catalog.text, pg_catalog.text) IS
    'What forbids to protect a column, a line each';
COMMENT ON FUNCTION cmk_internal.protecting_type(pg_catalog.oid, pg_catalog.int4) IS
    'The type that protects values of a type';
COMMENT ON FUNCTION cmk_internal.protection_comment(pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog._text) IS
    'The statement that writes what cmk_internal.protection_note() reads';
COMMENT ON FUNCTION cmk_internal.protection_note(pg_catalog.oid) IS
    'What the comment on our constraint tells: the former type, and where plaintext may be left';
COMMENT ON FUNCTION cmk_internal.refuse(pg_catalog._text) IS
    'Raises not_protectable, if there are obstacles';
COMMENT ON FUNCTION cmk_internal.refuse_null(pg_catalog.text, pg_catalog.text) IS
    'Raises null_argument, if the value is null';
COMMENT ON FUNCTION cmk_internal.refuse_unprotected(pg_catalog.regclass, pg_catalog.name) IS
    'Raises not_protected, if the column is of none of our types';
COMMENT ON FUNCTION cmk_internal.row_expression(pg_catalog.regclass, pg_catalog.text) IS
    'An expression with "new." before the columns of a row';
COMMENT ON FUNCTION cmk_internal.row_type_holders(pg_catalog.regclass) IS
    'Tables with a column of a tables row type';
COMMENT ON FUNCTION cmk_internal.run_as(pg_catalog._name, pg_catalog._text) IS
    'Runs statements, some as another role';
COMMENT ON FUNCTION cmk_internal.seal_by_tenant(pg_catalog.regclass, pg_catalog.int2, pg_catalog.name, pg_catalog.text, pg_catalog.int8, pg_catalog.int8, pg_catalog._text) IS
    'Seals some blocks of a table tenant by tenant, and goes past those that cannot be sealed';
COMMENT ON FUNCTION cmk_internal.seal_conditions(pg_catalog.regclass) IS
    'The labels and tenants in the condition of a sealing trigger';
COMMENT ON FUNCTION cmk_internal.seal_obstacles(pg_catalog.regclass) IS
    'What forbids to seal a table, a line each';
COMMENT ON FUNCTION cmk_internal.seal_trigger(pg_catalog.regclass, pg_catalog._text) IS
    'The statement that makes a sealing trigger';
COMMENT ON FUNCTION cmk_internal.table_tree(pg_catalog.regclass) IS
    'A table with its partitions and children';
COMMENT ON FUNCTION cmk_internal.tell_failures(pg_catalog.jsonb) IS
    'Warns of tenants whose values are not sealed';
COMMENT ON FUNCTION cmk_internal.tell_of_protection(pg_catalog.regclass, pg_catalog.name, pg_catalog.name) IS
    'Tells what protection of a column brings with it';
COMMENT ON FUNCTION cmk_internal.tell_remnants(pg_catalog.regclass, pg_catalog.int8) IS
    'Tells where plaintext is left, and how to remove it';
COMMENT ON FUNCTION cmk_internal.tenant_obstacles(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text) IS
    'What is wrong with how the tenant of a column is told';
COMMENT ON FUNCTION cmk_internal.try_tenants(pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog.int8) IS
    'Seals something for each tenant of a table, before anything is locked';
COMMENT ON FUNCTION cmk_internal.unused_constraint_name(pg_catalog.regclass, pg_catalog.name) IS
    'A name for the constraint of a column';
COMMENT ON FUNCTION cmk_internal.validate_sealed(pg_catalog.oid) IS
    'Validates our constraint, and warns if it does not hold';
COMMENT ON FUNCTION cmk_internal.view_grants(pg_catalog.regclass) IS
    'The statements that grant what is granted on a view';
COMMENT ON FUNCTION cmk_internal.view_obstacles(pg_catalog.regclass, pg_catalog.name) IS
    'Why views on a column cannot be made again without a loss';
COMMENT ON FUNCTION cmk_internal.view_script(pg_catalog.regclass) IS
    'The statements that make a view again';
COMMENT ON FUNCTION cmk_internal.views_of_column(pg_catalog.regclass, pg_catalog.name) IS
    'The views that use a column, in an order in which they can be made';
COMMENT ON FUNCTION cmk_internal.write_notes(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text) IS
    'Comments on the constraint of a column that is protected now';
COMMENT ON TYPE cmk_internal.column_change IS 'What cmk_internal.change_column() does';
