"""Who may do what with every object of the extension, for reviewers. test_access_control.py tries it all."""

# Who tries. None of them owns anything of ours; what only the extension's owner may do, a superuser may.
ROLES = {
    "nobody": "no right to anything but what PUBLIC has",
    "application": "a nobody with a grant for one tenant",
    "monitor": "a member of pg_monitor",
    "reader": "a member of pg_read_all_data",
    "writer": "a member of pg_write_all_data",
    "owner": "owns the database, and is no superuser",
    "superuser": "another one than the extension's owner",
}

MONITOR, READER, WRITER = {"monitor"}, {"reader"}, {"writer"}
# A superuser may do everything; where he can't either, GUARDED and NEEDS_GRANT say so.
NOBODY, ANYBODY = set(), set(ROLES)

# How a function runs: volatility, parallel class, whose rights (the caller's, or the owner's with a pinned
# search_path), whether it is strict, and whether a caller's has a pinned search_path as well.

# In pg_catalog, each for every combination of argument types. They answer everybody, and without a grant with no_grant.
APPLICATION_FUNCTIONS = {
    "cmk_encrypt":          "volatile restricted caller",
    "cmk_encrypt_text":     "volatile restricted caller",
    "cmk_encrypt_nested":   "volatile restricted caller",
    "cmk_decrypt":          "stable restricted caller",
    "cmk_decrypt_text":     "stable restricted caller",
    "cmk_try_decrypt":      "stable restricted caller",
    "cmk_try_decrypt_text": "stable restricted caller",
    "cmk_search_token":     "stable restricted caller",
    "cmk_search_tokens":    "stable restricted caller",
}

# In pg_catalog, of the types cmk_text, cmk_bytea and cmk_jsonb of protected columns: {kind} is what follows cmk_.
# Anybody may call them. See OPENS.
TYPE_FUNCTIONS = {
    "cmk_{kind}_in":       "stable restricted caller strict",
    "cmk_{kind}_out":      "stable restricted caller strict",
    "cmk_{kind}_recv":     "stable restricted caller strict",
    "cmk_{kind}_send":     "stable restricted caller strict",
    "cmk_{kind}_eq":       "stable restricted caller strict",
    "cmk_{kind}_ne":       "stable restricted caller strict",
    "cmk_{kind}_lt":       "stable restricted caller strict",
    "cmk_{kind}_le":       "stable restricted caller strict",
    "cmk_{kind}_gt":       "stable restricted caller strict",
    "cmk_{kind}_ge":       "stable restricted caller strict",
    "cmk_{kind}_cmp":      "stable restricted caller strict",
    "cmk_{kind}_hash":     "stable restricted caller strict",
    "cmk_{kind}_sort":     "stable restricted caller strict",
    "cmk_bytea_concat":    "stable restricted caller",
    "cmk_jsonb_concat":    "stable restricted caller",
    # Casts: to the type that is protected, which opens the value, and from it, which takes no key
    "{kind}":              "stable restricted caller strict",
    "varchar":             "stable restricted caller strict",
    "bpchar":              "stable restricted caller strict",
    "name":                "stable restricted caller strict pinned",
    "cmk_text":            "immutable safe caller strict",
    "json":                "stable restricted caller strict",
    "cmk_bytea":           "immutable safe caller strict",
    "cmk_jsonb":           "immutable safe caller strict",
    # Of the type modifier, of ANALYZE, and of the operator classes, which refuse to be indexed
    "cmk_text_typmod_in":  "immutable safe caller strict",
    "cmk_text_typmod_out": "immutable safe caller strict",
    "cmk_column_analyze":  "volatile restricted caller strict",
    "cmk_column_no_index": "immutable safe caller strict",
    # Of indexes on tokens: what stands in headers
    "cmk_token_eq":        "immutable safe caller strict",
    "cmk_token_lt":        "immutable safe caller strict",
    "cmk_token_le":        "immutable safe caller strict",
    "cmk_token_ge":        "immutable safe caller strict",
    "cmk_token_gt":        "immutable safe caller strict",
    "cmk_token_cmp":       "immutable safe caller strict",
    "cmk_token_sort":      "stable safe caller strict",
    "cmk_token_next_eq":   "immutable safe caller strict",
    "cmk_token_next_cmp":  "immutable safe caller strict",
    "cmk_token_next_sort": "stable safe caller strict",
}
KINDS = ("text", "bytea", "jsonb")

# In cmk.
FUNCTIONS = {
    # Administration
    "register_tenant":      (NOBODY,  "volatile unsafe owner"),
    "alter_tenant_options": (NOBODY,  "volatile unsafe owner"),
    "activate_tenant":      (NOBODY,  "volatile unsafe owner"),
    "verify_tenant":        (NOBODY,  "volatile unsafe owner"),
    "rotate_tenant":        (NOBODY,  "volatile unsafe owner"),
    "alter_tenant_rotation": (NOBODY, "volatile unsafe owner"),
    "rewrap_tenant":        (NOBODY,  "volatile unsafe owner"),
    "confirm_rewrap":       (NOBODY,  "volatile unsafe owner"),
    "cancel_rewrap":        (NOBODY,  "volatile unsafe owner"),
    "retire_keys":          (NOBODY,  "volatile unsafe owner"),
    "suspend_tenant":       (NOBODY,  "volatile unsafe owner"),
    "resume_tenant":        (NOBODY,  "volatile unsafe owner"),
    "shred_tenant":         (NOBODY,  "volatile unsafe owner"),
    "remove_tenant":        (NOBODY,  "volatile unsafe owner"),
    "evict":                (NOBODY,  "volatile unsafe owner"),
    "evict_all":            (NOBODY,  "volatile unsafe owner strict"),
    "grant_access":         (NOBODY,  "volatile unsafe owner"),
    "revoke_access":        (NOBODY,  "volatile unsafe owner"),
    "destroy_data_keys":    (NOBODY,  "volatile unsafe owner"),
    "rotate_index_key":      (NOBODY, "volatile unsafe owner"),
    "finish_index_rotation": (NOBODY, "volatile unsafe owner"),
    "cancel_index_rotation": (NOBODY, "volatile unsafe owner"),
    # For owners of keys, who get it from an administrator
    "key_policy":           (NOBODY,  "volatile unsafe owner"),
    "service_policy":       (NOBODY,  "stable unsafe owner"),
    "onboarding":           (NOBODY,  "volatile unsafe owner"),
    "identity":             (NOBODY,  "volatile unsafe owner"),
    # As the caller, who has to be a superuser whatever was granted to them: test_copied_database.py.
    "adopt_registry":       (NOBODY,  "volatile unsafe caller strict pinned"),
    # What is known
    "check":                (MONITOR, "stable unsafe owner"),
    "inspect":              (NOBODY,  "stable unsafe owner strict"),
    "envelope_header":      (NOBODY,  "immutable restricted caller strict"),
    "revocation_bound":     (MONITOR, "volatile unsafe owner"),
    "key_copies":           (NOBODY,  "volatile restricted caller"),
    # Behind views: no row for whoever can't name the word in cmk.home, see test_status_dark.py
    "key_status":           (ANYBODY, "volatile restricted caller strict"),
    "server_facts":         (ANYBODY, "volatile restricted caller strict"),
    "backend_cache":        (ANYBODY, "volatile restricted caller strict"),
    "backend_cache_stats":  (ANYBODY, "volatile restricted caller strict"),
    "reset_stats":          (NOBODY,  "volatile restricted caller strict"),
    "warm":                 (NOBODY,  "volatile restricted caller"),
    # Of the type: for whoever dumps cmk.access
    "grantee_in":           (READER,  "stable restricted caller strict"),
    "grantee_out":          (READER,  "stable restricted caller strict"),
    "grantee_recv":         (READER,  "stable restricted caller strict"),
    "grantee_send":         (READER,  "stable restricted caller strict"),
    "grantee_oid":          (READER,  "immutable restricted caller strict"),
    "grantee_regrole":      (READER,  "immutable restricted caller strict"),
    "grantee_key":          (READER,  "immutable restricted caller strict"),
    # Of triggers
    "registry_guard":       (NOBODY,  "volatile unsafe caller"),
    "registry_changed":     (NOBODY,  "volatile unsafe caller"),
    "drop_guard":           (NOBODY,  "volatile unsafe caller"),
    # Of protected columns, which anybody may own, write and restore. Protection: for the table's owner, see NEEDS_TABLE
    "protect_column":       (ANYBODY, "volatile unsafe caller pinned"),
    "unprotect_column":     (ANYBODY, "volatile unsafe caller pinned"),
    "seal_table":           (ANYBODY, "volatile unsafe caller"),
    "seal_batch":           (ANYBODY, "volatile unsafe caller"),
    "reencrypt":            (ANYBODY, "volatile unsafe caller"),
    "data_key_usage":       (ANYBODY, "stable unsafe caller pinned"),
    # What is known of them
    "unsealed_rows":        (ANYBODY, "stable unsafe caller pinned"),
    "protections":          (ANYBODY, "stable restricted caller strict pinned"),
    "column_stats":         (ANYBODY, "volatile restricted caller strict"),
    "is_preloaded":         (ANYBODY, "volatile restricted caller strict"),
    "dump_keys_needed":     (NOBODY,  "stable unsafe caller pinned"),
    # In their definitions: the trigger, its WHEN, the CHECK
    "seal":                 (ANYBODY, "volatile unsafe caller"),
    "seals":                (ANYBODY, "immutable safe caller"),
    "sealed":               (ANYBODY, "immutable safe caller"),
    # Of their values
    "is_sealed":            (ANYBODY, "immutable safe caller strict"),
    "envelope":             (ANYBODY, "immutable safe caller strict"),
    "seal_value":           (ANYBODY, "volatile restricted caller"),
    "try_text":             (ANYBODY, "stable restricted caller strict"),
    "show":                 (ANYBODY, "volatile restricted caller strict"),
    # What the planner makes of a comparison, and its own
    "equal":                (ANYBODY, "stable restricted caller"),
    "equal_any":            (ANYBODY, "stable restricted caller"),
    "equal_columns":        (ANYBODY, "stable restricted caller strict"),
    "probe":                (ANYBODY, "volatile restricted caller"),
    "probes":               (ANYBODY, "volatile restricted caller"),
    "probes_any":           (ANYBODY, "volatile restricted caller"),
    "search_support":       (NOBODY,  "volatile safe caller strict"),
    # Of tokens: which values lack them, numbers of tenants, whose a value is
    "needs_sealing":        (ANYBODY, "stable restricted caller"),
    "reseal":               (ANYBODY, "volatile restricted caller"),
    "sealed_for":           (ANYBODY, "stable restricted caller strict"),
    "is_envelope":          (ANYBODY, "stable restricted caller strict"),
    "index_key_counts":     (ANYBODY, "stable unsafe owner"),
    # The audit trail
    "verify_audit":         (NOBODY,  "stable unsafe owner"),
    "audit_report":         (NOBODY,  "stable unsafe owner"),
    "match_cloudtrail":     (NOBODY,  "stable unsafe owner"),
    # For functions in PL/pgSQL: an error of ours
    "raise":                (ANYBODY, "volatile restricted caller"),
}

# In cmk_internal: what the functions of protection are made of, by how they run. Anybody may call them, and gets as
# far as with the statements that are in them. See NEEDS_TABLE.
INTERNAL_FUNCTIONS = {
    "volatile unsafe caller strict pinned": {
        "expression_obstacle",
        "change_column", "clear_grants", "drop_plain_indexes", "go_on_rotating", "has_pending", "is_own_change", "make_indexes",
        "note_files", "row_expression", "tell_failures", "tell_missing_indexes", "tell_of_few_values",
        "has_outdated_values", "outdated_values", "sealed_values", "tell_of_triggers", "tell_remnants", "validate_sealed", "wait_for_writers",
    },
    # Of a run of cmk.reencrypt(): read the caller's expression, in the caller's search_path.
    "volatile unsafe caller": {
        "count_outdated", "reencrypt_all", "reencrypt_batch", "reencrypt_each", "reencrypt_find", "reencrypt_possible",
        "tell_dry_run",
    },
    "volatile unsafe caller strict": {"reencrypt_begin", "reencrypt_end"},
    "stable unsafe caller strict": {"aad_obstacle"},
    # Writes for whoever holds the lock that only the table's owner gets.
    "volatile unsafe owner": {"audit_column", "reencrypt_note"},
    "volatile safe caller pinned": {"reencrypt_locks"},
    "volatile safe caller strict pinned": {"has_values_elsewhere"},
    "volatile restricted caller strict": {"waited_for_processor"},
    # With grants, or of headers
    "volatile restricted caller": {"renewed", "renewal_problem"},
    # Of the planner
    "stable safe caller": {"at_execution"},
    "volatile safe caller strict": {"defer"},
    "stable restricted caller strict": {"data_key_facts", "is_outdated", "tenant_of"},
    "immutable safe caller strict": {"data_key_id"},
    "volatile unsafe caller pinned": {
        "leave_code_aside", "may_replicate", "tell_reencrypted",
        "audit", "refuse_pause", "change_column_politely", "clean_defaults", "make_index_keys", "make_seal_triggers", "protect_obstacles",
        "protection_sentence", "refuse", "run_as", "seal_by_tenant", "tell_of_indexes", "tell_of_protection",
        "tenant_obstacles", "try_tenants", "write_notes",
    },
    "stable unsafe caller strict pinned": {
        "column_problems", "columns_to_seal", "has_tokens", "label_obstacle", "seal_obstacles", "unique_token_indexes",
    },
    "stable unsafe caller pinned": {
        "dump_keys", "reencrypt_obstacles", "reencrypt_targets", "retirement_obstacles", "lone_unique_indexes", "options_obstacle", "refuse_null", "refuse_unprotected", "seal_statements",
    },
    "stable safe caller strict pinned": {
        "row_key", "sees_reencryption", "is_in_foreign_key",
        "column_indexes", "column_obstacles", "column_uses", "common_obstacles", "files_of_column", "index_columns", "index_key",
        "is_protected_type", "keeps_file", "may_rotate", "plain_default", "protecting_type", "protection_note", "row_type_holders", "seal_conditions", "seal_trigger",
        "table_tree", "twin_statement", "unused_constraint_name", "view_grants", "view_obstacles", "view_script",
        "views_of_column", "wanted_indexes",
    },
    "stable restricted caller strict pinned": {
        "checks_of_column", "default_label", "is_protected", "label_in_trigger", "missing_uniques",
    },
    "stable safe caller pinned": {
        "envelope_columns", "not_skipped",
        "former_type", "new_options", "pending_condition", "protection_comment", "sealing_expression",
        "search_obstacles", "search_options", "token_index",
    },
    "immutable safe caller pinned": {"concerns_row", "concerns_tenant", "failures_kept", "is_note", "tolerated_uses"},
}

# Have settings of their own, and yet the caller's search_path: they run SQL that the caller wrote.
UNPINNED = {
    "aad_obstacle", "count_outdated", "reencrypt_all", "reencrypt_each", "reencrypt_find", "reencrypt_possible",
    "tell_dry_run",
}

# Overloads that run otherwise than their name says.
OVERLOADS = {
    "cmk.equal_columns(cmk_text,text[])":     "stable restricted caller",
    "cmk.equal_columns(cmk_text,cmk_text[])": "stable restricted caller",
}

# Who may call it needs a grant for the tenants as well, a superuser too.
NEEDS_GRANT = {
    "warm", "seal_value", "try_text", "unprotect_column", "try_tenants", "equal", "equal_any", "equal_columns", "probe",
    "probes", "probes_any", "reseal", "renewed",
}
# Who may call it needs to own the table as well, or to be a superuser; what others get, who may only read and write.
NEEDS_TABLE = {
    "protect_column": "not_protectable", "unprotect_column": "not_protectable", "seal_table": "not_protectable",
    "seal_batch": "not_owner", "reencrypt": "not_reencryptable", "reencrypt_begin": "not_owner", "change_column": "not_protectable", "change_column_politely": "not_protectable",
    "make_seal_triggers": "denied", "note_files": "denied", "write_notes": "denied", "validate_sealed": "denied",
    "run_as": "denied",
    # The registry's tables, that is.
    "dump_keys": "denied",
    # Nor is it for the owner of any table.
    "audit": "denied", "outdated_values": "denied", "has_outdated_values": "denied",
}
# Which of TYPE_FUNCTIONS need a grant to open the values.
OPENS = {
    "{kind}", "varchar", "bpchar", "name", "json", "cmk_{kind}_eq", "cmk_{kind}_ne", "cmk_{kind}_lt", "cmk_{kind}_le", "cmk_{kind}_gt",
    "cmk_{kind}_ge", "cmk_{kind}_cmp", "cmk_{kind}_hash", "cmk_bytea_concat", "cmk_jsonb_concat",
}
# Not called: by superusers' event triggers only, by whoever holds a lock (test_reencrypt.py), or by no SQL that a role could write, as what takes one of these
# types. The privilege is looked up.
NOT_CALLED = {"drop_guard", "reencrypt_note"}
NOT_WRITTEN = {"internal", "pg_node_tree"}
# Called by making a trigger of it.
TRIGGER_FUNCTIONS = {"registry_guard", "registry_changed", "seal"}

# Who reads. To write, see WRITES.
TABLES = {
    "tenant":    READER,
    "data_key":  READER,
    "access":    READER,
    "home":      READER,
    "data_key_use": READER | MONITOR,
    "key_event": READER | MONITOR,
    "audit_event": READER,
    "audit_chain": READER,
    "reencrypt_job": READER,
    "reencrypt_failure": READER,
}
VIEWS = {
    "tenants":           READER | MONITOR,
    "status":            READER | MONITOR,
    "server":            READER | MONITOR,
    "cache":             READER | MONITOR,
    "cache_stats":       READER | MONITOR,
    "protected_columns": ANYBODY,
    # Rows of tables that they own only: test_reencrypt.py.
    "reencrypt_progress": ANYBODY,
    "reencrypt_failures": ANYBODY,
}

# What becomes of a change of a table: pg_write_all_data gets as far as the guard. {column} is the first one.
WRITES = {
    "INSERT INTO {table} DEFAULT VALUES":    {"writer": "registry_write"},
    "UPDATE {table} SET {column} = DEFAULT": {"writer": "registry_write"},
    "DELETE FROM {table}":                   {"writer": "registry_write"},
    # docs/security.md: it can lock the tables.
    "LOCK TABLE {table}":                    {"writer": "yes"},
    "TRUNCATE {table}":                      {},
    "CREATE TRIGGER t BEFORE INSERT ON {table} EXECUTE FUNCTION outside.trigger()": {},
    "CREATE TABLE outside.t ({key}, FOREIGN KEY ({columns}) REFERENCES {table})":   {},
    "CREATE TABLE outside.t () INHERITS ({table})":                                 {},
    "CREATE INDEX ON {table} ({column})":                                           {},
    "CREATE RULE r AS ON INSERT TO {table} DO NOTHING":                             {},
    "ALTER TABLE {table} ADD COLUMN more int":                                      {},
    "ALTER TABLE {table} DISABLE TRIGGER ALL":                                      {},
    "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY":                                {},
    "ALTER TABLE {table} OWNER TO CURRENT_USER":                                    {},
}
# What a superuser must not do by the way either.
GUARDED = {
    ("UPDATE {table} SET {column} = DEFAULT", "tenant"): "tenant_name_fixed",
    ("UPDATE {table} SET {column} = DEFAULT", "data_key"): "tenant_name_fixed",
    ("UPDATE {table} SET {column} = DEFAULT", "home"): "registry_write",
    ("DELETE FROM {table}", "tenant"): "keys_would_be_lost",
    ("DELETE FROM {table}", "data_key"): "keys_would_be_lost",
    ("DELETE FROM {table}", "home"): "registry_write",
    ("TRUNCATE {table}", "tenant"): "keys_would_be_lost",
    ("TRUNCATE {table}", "data_key"): "keys_would_be_lost",
    ("TRUNCATE {table}", "access"): "registry_write",
    ("TRUNCATE {table}", "home"): "registry_write",
    **{(change, table): "audit_trail" for table in ("audit_event", "audit_chain")
       for change in ("UPDATE {table} SET {column} = DEFAULT", "DELETE FROM {table}", "TRUNCATE {table}")},
}

TYPES = {
    "cmk.grantee": NOBODY,
    "pg_catalog.cmk_text": ANYBODY, "pg_catalog.cmk_bytea": ANYBODY, "pg_catalog.cmk_jsonb": ANYBODY,
}
# Used by whoever gets into the schema: pg_dump warns of row types whose privileges an extension has set.
ROW_TYPES = [*(f"cmk.{name}" for name in (*TABLES, *VIEWS)), "cmk_internal.column_change", "cmk_internal.reencrypt_target",
             "cmk_internal.key_facts"]
CASTS = {
    ("cmk.grantee", "pg_catalog.oid"): READER, ("cmk.grantee", "pg_catalog.regrole"): READER,
    # Open the value, with a grant: to what is protected, and to text
    ("pg_catalog.cmk_text", "pg_catalog.text"): ANYBODY, ("pg_catalog.cmk_text", "character varying"): ANYBODY,
    ("pg_catalog.cmk_bytea", "pg_catalog.bytea"): ANYBODY, ("pg_catalog.cmk_bytea", "pg_catalog.text"): ANYBODY,
    ("pg_catalog.cmk_jsonb", "pg_catalog.jsonb"): ANYBODY, ("pg_catalog.cmk_jsonb", "pg_catalog.json"): ANYBODY,
    ("pg_catalog.cmk_jsonb", "pg_catalog.text"): ANYBODY,
    ("pg_catalog.cmk_text", "character"): ANYBODY, ("pg_catalog.cmk_text", "pg_catalog.name"): ANYBODY,
    ("pg_catalog.cmk_bytea", "character varying"): ANYBODY, ("pg_catalog.cmk_jsonb", "character varying"): ANYBODY,
    # Take no key: from it
    ("character", "pg_catalog.cmk_text"): ANYBODY,
    ("pg_catalog.text", "pg_catalog.cmk_text"): ANYBODY, ("character varying", "pg_catalog.cmk_text"): ANYBODY,
    ("pg_catalog.bytea", "pg_catalog.cmk_bytea"): ANYBODY,
    ("pg_catalog.jsonb", "pg_catalog.cmk_jsonb"): ANYBODY, ("pg_catalog.json", "pg_catalog.cmk_jsonb"): ANYBODY,
}
# In pg_catalog. They open their operands, with a grant.
OPERATORS = [
    *((f"cmk_{kind}", name, f"cmk_{kind}") for kind in KINDS for name in ("=", "<>", "<#", "<=#", ">#", ">=#")),
    *((left, name, right) for left, right in (("cmk_text", "text"), ("text", "cmk_text")) for name in ("=", "<>")),
    ("cmk_bytea", "||", "cmk_bytea"), ("cmk_bytea", "||", "bytea"), ("bytea", "||", "cmk_bytea"),
    ("cmk_jsonb", "||", "cmk_jsonb"), ("cmk_jsonb", "||", "jsonb"), ("jsonb", "||", "cmk_jsonb"),
]
# Compare tokens, as they stand in headers, for everybody.
TOKEN_OPERATORS = [("cmk_text", name, "cmk_text") for name in ("===", "<<<", "<<<=", ">>>=", ">>>", "====")]
TOKEN_CLASSES = ["pg_catalog.cmk_token_ops USING btree", "pg_catalog.cmk_token_next_ops USING btree"]
# May be asked before row-level security is: what they return and raise says nothing of the rows.
LEAKPROOF = {
    "cmk_text_eq", "equal_any(cmk_text,text[])", "equal_any(cmk_text,cmk_text[])", "cmk_token_eq", "cmk_token_lt",
    "cmk_token_le", "cmk_token_ge", "cmk_token_gt", "cmk_token_cmp", "cmk_token_next_eq", "cmk_token_next_cmp",
}
# Each is a family, too. They sort and hash for whoever has a grant, and make an index for nobody.
OPERATOR_CLASSES = [
    *(f"pg_catalog.cmk_{kind}_sort_ops USING btree" for kind in KINDS),
    *(f"pg_catalog.cmk_{kind}_hash_ops USING hash" for kind in KINDS),
]
# Who gets in. Nobody may create there.
SCHEMAS = {"cmk": ANYBODY, "cmk_internal": ANYBODY}
EVENT_TRIGGERS = {"cmk_drop_guard"}
