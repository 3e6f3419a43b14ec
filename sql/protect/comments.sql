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
COMMENT ON FUNCTION cmk_internal.column_indexes(pg_catalog.regclass, pg_catalog.name) IS
    'The indexes that use a column, and what is to become of them';
COMMENT ON FUNCTION cmk_internal.column_obstacles(pg_catalog.regclass, pg_catalog.name, pg_catalog._text) IS
    'What forbids to change a columns type, a line each';
COMMENT ON FUNCTION cmk_internal.column_problems(pg_catalog.regclass, pg_catalog.name) IS
    'What is wrong with a protected column, a line each';
COMMENT ON FUNCTION cmk_internal.column_uses(pg_catalog.regclass, pg_catalog.name) IS
    'What uses a column, in a table and its children';
COMMENT ON FUNCTION cmk_internal.columns_to_seal(pg_catalog.regclass) IS
    'The protected columns of a table and its children, and who their tenants are';
COMMENT ON FUNCTION cmk_internal.common_obstacles(pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog._text) IS
    'What forbids to protect or to unprotect a column, in order';
COMMENT ON FUNCTION cmk_internal.concerns_tenant(pg_catalog.text, pg_catalog.text) IS
    'Whether an error is about one tenant, so that others can be sealed';
COMMENT ON FUNCTION cmk_internal.default_label(pg_catalog.regclass, pg_catalog.name) IS
    'The label of a column for which none is given';
COMMENT ON FUNCTION cmk_internal.drop_plain_indexes(pg_catalog.regclass, pg_catalog.name) IS
    'Drops the indexes of plaintext that indexes of tokens take the place of';
COMMENT ON FUNCTION cmk_internal.sealed_values(pg_catalog.oid, pg_catalog.int2) IS
    'Under which data keys the values of a protected column are, with tokens of which index keys';
COMMENT ON FUNCTION cmk_internal.dump_keys(pg_catalog._regclass) IS
    'What cmk.dump_keys_needed() tells';
COMMENT ON FUNCTION cmk_internal.files_of_column(pg_catalog.regclass, pg_catalog.int2) IS
    'The files in which plaintext of a column stays behind';
COMMENT ON FUNCTION cmk_internal.former_type(pg_catalog.oid, pg_catalog.int4, pg_catalog.text) IS
    'The type that a protected column had before';
COMMENT ON FUNCTION cmk_internal.go_on_rotating(pg_catalog.regclass, pg_catalog.jsonb) IS
    'What comes next in the rotation of index keys, once a table is done';
COMMENT ON FUNCTION cmk_internal.has_pending(pg_catalog.regclass, pg_catalog.text) IS
    'Whether a table holds a row of that kind';
COMMENT ON FUNCTION cmk_internal.has_tokens(pg_catalog.regclass, pg_catalog.name, pg_catalog.text) IS
    'Whether a value of a column has a token';
COMMENT ON FUNCTION cmk_internal.index_key(pg_catalog.oid, pg_catalog.int4, pg_catalog.bool) IS
    'What stands behind a key column in CREATE INDEX';
COMMENT ON FUNCTION cmk_internal.is_protected(pg_catalog.regclass, pg_catalog.name) IS
    'Whether constraint and trigger of a column are in place, in a table and its children';
COMMENT ON FUNCTION cmk_internal.is_protected_type(pg_catalog.oid) IS
    'Whether a type is one of protected columns';
COMMENT ON FUNCTION cmk_internal.keeps_file(pg_catalog.oid) IS
    'Whether values of a type can stay where they are while a column becomes protected';
COMMENT ON FUNCTION cmk_internal.lone_unique_indexes() IS
    'The unique indexes of tokens of all tables that lack a twin under the next index key';
COMMENT ON FUNCTION cmk_internal.make_index_keys() IS
    'Gives each active tenant an index key, if the caller may';
COMMENT ON FUNCTION cmk_internal.make_indexes(pg_catalog.jsonb) IS
    'Makes the indexes that a searchable column is to have';
COMMENT ON FUNCTION cmk_internal.make_seal_triggers(pg_catalog._regclass, pg_catalog.jsonb, pg_catalog.text) IS
    'Makes the sealing triggers of a table and its children';
COMMENT ON FUNCTION cmk_internal.expression_obstacle(pg_catalog.regclass, pg_catalog.text) IS
    'Why a table with partitions or children cannot be rewritten with a tenant expression';
COMMENT ON FUNCTION cmk_internal.index_columns(pg_catalog.regclass) IS
    'The key columns of an index without expression or WHERE';
COMMENT ON FUNCTION cmk_internal.label_in_trigger(pg_catalog.regclass) IS
    'The label of the column whose constraint is gone, as far as the trigger tells';
COMMENT ON FUNCTION cmk_internal.label_obstacle(pg_catalog.regclass, pg_catalog.name, pg_catalog.text) IS
    'Why a column cannot be protected under a label: its values were sealed under another';
COMMENT ON FUNCTION cmk_internal.missing_uniques(pg_catalog.regclass, pg_catalog.name) IS
    'The unique indexes that went when a column became searchable and were not made again';
COMMENT ON FUNCTION cmk_internal.may_rotate(pg_catalog.text) IS
    'Whether the caller may call a function around the rotation of index keys';
COMMENT ON FUNCTION cmk_internal.new_options(pg_catalog.text, pg_catalog.bool, pg_catalog.text, pg_catalog.int4) IS
    'The options that a column is to have';
COMMENT ON FUNCTION cmk_internal.note_files(pg_catalog.regclass, pg_catalog.int2, pg_catalog.oid) IS
    'Notes in which files plaintext may be left';
COMMENT ON FUNCTION cmk_internal.options_obstacle(pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog.text, pg_catalog.text) IS
    'Why the options of a column cannot change while its values stay as they are';
COMMENT ON FUNCTION cmk_internal.pending_condition(pg_catalog.oid, pg_catalog.text, pg_catalog.text, pg_catalog.text) IS
    'The SQL that tells whether a value is to be sealed, or its tokens are to change';
COMMENT ON FUNCTION cmk_internal.plain_default(pg_catalog.pg_node_tree, pg_catalog.oid) IS
    'A default as SQL, without a cast of a literal to our types';
COMMENT ON FUNCTION cmk_internal.protect_obstacles(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text, pg_catalog.bool, pg_catalog.text, pg_catalog.text, pg_catalog.bool, pg_catalog.text, pg_catalog.int4) IS
    'What forbids to protect a column, a line each';
COMMENT ON FUNCTION cmk_internal.protecting_type(pg_catalog.oid, pg_catalog.int4) IS
    'The type that protects values of a type';
COMMENT ON FUNCTION cmk_internal.protection_comment(pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog._text, pg_catalog._text) IS
    'The statement that writes what cmk_internal.protection_note() reads';
COMMENT ON FUNCTION cmk_internal.protection_note(pg_catalog.oid) IS
    'What the comment on our constraint tells: the former type, where plaintext may be left, and what indexes are to be made again';
COMMENT ON FUNCTION cmk_internal.protection_sentence(pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog.jsonb, pg_catalog.bool, pg_catalog.bool) IS
    'What cmk.protect_column() says at its end';
COMMENT ON FUNCTION cmk_internal.refuse(pg_catalog._text, pg_catalog.text) IS
    'Raises not_protectable, if there are obstacles';
COMMENT ON FUNCTION cmk_internal.refuse_pause(pg_catalog.numeric) IS
    'Raises pause for one that no batch job can take';
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
COMMENT ON FUNCTION cmk_internal.seal_statements() IS
    'The calls of cmk.seal_table() for all tables with searchable columns';
COMMENT ON FUNCTION cmk_internal.search_obstacles(pg_catalog.regclass, pg_catalog.name, pg_catalog.bool, pg_catalog.text, pg_catalog.int4) IS
    'What is wrong with how a column is to be searched';
COMMENT ON FUNCTION cmk_internal.search_options(pg_catalog.bool, pg_catalog.text, pg_catalog.int4) IS
    'The options of a constraint that say how a column is searched';
COMMENT ON FUNCTION cmk_internal.seal_by_tenant(pg_catalog.regclass, pg_catalog.int2, pg_catalog.text, pg_catalog.text, pg_catalog.int8, pg_catalog.int8, pg_catalog._text) IS
    'Seals some blocks of a table tenant by tenant, and goes past those that cannot be sealed';
COMMENT ON FUNCTION cmk_internal.seal_conditions(pg_catalog.regclass) IS
    'The labels and tenants in the condition of a sealing trigger';
COMMENT ON FUNCTION cmk_internal.is_in_foreign_key(pg_catalog.regclass, pg_catalog.int2) IS
    'Whether a column of the table itself is part of a foreign key, on either side';
COMMENT ON FUNCTION cmk_internal.seal_obstacles(pg_catalog.regclass) IS
    'What forbids to seal a table, a line each';
COMMENT ON FUNCTION cmk_internal.seal_trigger(pg_catalog.regclass, pg_catalog._text) IS
    'The statement that makes a sealing trigger';
COMMENT ON FUNCTION cmk_internal.sealing_expression(pg_catalog.name, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.bool) IS
    'The new value of a column whose table is rewritten';
COMMENT ON FUNCTION cmk_internal.table_tree(pg_catalog.regclass) IS
    'A table with its partitions and children';
COMMENT ON FUNCTION cmk_internal.tell_failures(pg_catalog.regclass, pg_catalog.jsonb) IS
    'Warns of tenants whose values are not sealed';
COMMENT ON FUNCTION cmk_internal.tell_missing_indexes(pg_catalog.regclass) IS
    'Tells which indexes of tokens a table lacks';
COMMENT ON FUNCTION cmk_internal.tell_of_few_values(pg_catalog.regclass, pg_catalog.name) IS
    'Warns if a column has few different values';
COMMENT ON FUNCTION cmk_internal.tell_of_indexes(pg_catalog.regclass, pg_catalog.name, pg_catalog.jsonb, pg_catalog.bool) IS
    'Tells what became of the indexes of a column, and what is left to do';
COMMENT ON FUNCTION cmk_internal.tell_of_protection(pg_catalog.regclass, pg_catalog.name, pg_catalog.name) IS
    'Tells what protection of a column brings with it';
COMMENT ON FUNCTION cmk_internal.tell_of_triggers(pg_catalog.regclass) IS
    'Warns of triggers of users that will fire';
COMMENT ON FUNCTION cmk_internal.tell_remnants(pg_catalog.regclass, pg_catalog.int8) IS
    'Tells where plaintext is left, and how to remove it';
COMMENT ON FUNCTION cmk_internal.tenant_obstacles(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text) IS
    'What is wrong with how the tenant of a column is told';
COMMENT ON FUNCTION cmk_internal.token_index(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.bool, pg_catalog.bool) IS
    'The statement that makes an index again, with columns by their tokens';
COMMENT ON FUNCTION cmk_internal.tolerated_uses(pg_catalog.text, pg_catalog.bool, pg_catalog.text, pg_catalog.text) IS
    'The kinds of uses that a change of a column can cope with';
COMMENT ON FUNCTION cmk_internal.try_tenants(pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.bool, pg_catalog.int8) IS
    'Seals something for each tenant of a table, before anything is locked';
COMMENT ON FUNCTION cmk_internal.twin_statement(pg_catalog.regclass) IS
    'The statement that makes the same index by the tokens under the next index key';
COMMENT ON FUNCTION cmk_internal.unique_token_indexes(pg_catalog.regclass) IS
    'The unique indexes of tokens of a table, and their twins under the next index key';
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
COMMENT ON FUNCTION cmk_internal.wait_for_writers(pg_catalog.regclass) IS
    'Waits for the transactions that are writing to a table, before its twins of unique indexes go';
COMMENT ON FUNCTION cmk_internal.wanted_indexes(pg_catalog.regclass, pg_catalog.name, pg_catalog.bool) IS
    'The indexes that a searchable column is to have, and has not';
COMMENT ON FUNCTION cmk_internal.write_notes(pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.text, pg_catalog.jsonb) IS
    'Comments on the constraint of a column that is protected now';
COMMENT ON TYPE cmk_internal.column_change IS 'What cmk_internal.change_column() does';
