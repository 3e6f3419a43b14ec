"""Who may do what with every object of the extension, for reviewers. test_access_control.py tries it all."""

# Who tries. None of them owns anything of ours; what only the extension's owner may do, a superuser may.
ROLES = {
    "nobody": "no right to anything",
    "guest": "a nobody whom somebody let into schema cmk, so that each object is tried, not just the door",
    "application": "a nobody with a grant for one tenant",
    "monitor": "a member of pg_monitor",
    "reader": "a member of pg_read_all_data",
    "writer": "a member of pg_write_all_data",
    "owner": "owns the database, and is no superuser",
    "superuser": "another one than the extension's owner",
}

MONITOR, READER, WRITER = {"monitor"}, {"reader"}, {"writer"}
# A superuser may do everything; where he can't either, GUARDED and NEEDS_GRANT say so.
NOBODY = set()

# How a function runs: volatility, parallel class, whose rights (the caller's, or the owner's with a pinned
# search_path), whether it is strict, and whether a caller's has a pinned search_path as well.

# In pg_catalog, each for every combination of argument types. They answer everybody, and without a grant with no_grant.
APPLICATION_FUNCTIONS = {
    "cmk_encrypt":          "volatile restricted caller",
    "cmk_encrypt_text":     "volatile restricted caller",
    "cmk_decrypt":          "stable restricted caller",
    "cmk_decrypt_text":     "stable restricted caller",
    "cmk_try_decrypt":      "stable restricted caller",
    "cmk_try_decrypt_text": "stable restricted caller",
}

# In cmk.
FUNCTIONS = {
    # Administration
    "register_tenant":      (NOBODY,  "volatile unsafe owner"),
    "alter_tenant_options": (NOBODY,  "volatile unsafe owner"),
    "activate_tenant":      (NOBODY,  "volatile unsafe owner"),
    "rotate_tenant":        (NOBODY,  "volatile unsafe owner"),
    "suspend_tenant":       (NOBODY,  "volatile unsafe owner"),
    "resume_tenant":        (NOBODY,  "volatile unsafe owner"),
    "evict":                (NOBODY,  "volatile unsafe owner"),
    "evict_all":            (NOBODY,  "volatile unsafe owner strict"),
    "grant_access":         (NOBODY,  "volatile unsafe owner"),
    "revoke_access":        (NOBODY,  "volatile unsafe owner"),
    "destroy_data_keys":    (NOBODY,  "volatile unsafe owner"),
    # As the caller, who has to be a superuser whatever was granted to them: test_copied_database.py.
    "adopt_registry":       (NOBODY,  "volatile unsafe caller strict pinned"),
    # What is known
    "check":                (MONITOR, "stable unsafe owner"),
    "inspect":              (NOBODY,  "stable unsafe owner strict"),
    "envelope_header":      (NOBODY,  "immutable restricted caller strict"),
    "revocation_bound":     (MONITOR, "volatile unsafe owner"),
    "key_copies":           (NOBODY,  "volatile restricted caller"),
    "key_status":           (MONITOR, "volatile restricted caller strict"),
    "backend_cache":        (MONITOR, "volatile restricted caller strict"),
    "backend_cache_stats":  (MONITOR, "volatile restricted caller strict"),
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
}

# Who may call it needs a grant for the tenants as well, a superuser too.
NEEDS_GRANT = {"warm"}
# Not called: by no SQL that a role could write, and by superusers' event triggers only. The privilege is looked up.
NOT_CALLED = {"grantee_recv", "drop_guard"}
# Called by making a trigger of it.
TRIGGER_FUNCTIONS = {"registry_guard", "registry_changed"}

# Who reads. To write, see WRITES.
TABLES = {
    "tenant":    READER,
    "data_key":  READER,
    "access":    READER,
    "home":      READER,
    "key_event": READER | MONITOR,
}
# A view's functions ask for the caller's rights, so pg_read_all_data is not enough for those with functions.
VIEWS = {
    "tenants":     READER | MONITOR,
    "status":      MONITOR,
    "cache":       MONITOR,
    "cache_stats": MONITOR,
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
    ("UPDATE {table} SET {column} = DEFAULT", "tenant"): "keys_would_be_lost",
    ("UPDATE {table} SET {column} = DEFAULT", "data_key"): "keys_would_be_lost",
    ("UPDATE {table} SET {column} = DEFAULT", "home"): "registry_write",
    ("DELETE FROM {table}", "tenant"): "keys_would_be_lost",
    ("DELETE FROM {table}", "data_key"): "keys_would_be_lost",
    ("DELETE FROM {table}", "home"): "registry_write",
    ("TRUNCATE {table}", "tenant"): "keys_would_be_lost",
    ("TRUNCATE {table}", "data_key"): "keys_would_be_lost",
    ("TRUNCATE {table}", "access"): "registry_write",
    ("TRUNCATE {table}", "home"): "registry_write",
}

TYPES = {"grantee": NOBODY}
# Used by whoever gets into the schema: pg_dump warns of row types whose privileges an extension has set.
ROW_TYPES = [*TABLES, *VIEWS]
CASTS = {("grantee", "oid"): READER, ("grantee", "regrole"): READER}
# Who gets in. Both roles for all data get into every schema; nobody may create there.
SCHEMAS = {"cmk": {"guest"} | MONITOR | READER | WRITER}
EVENT_TRIGGERS = {"cmk_drop_guard"}
