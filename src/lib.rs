//! `cmk_encrypt`: column encryption inside PostgreSQL under keys that the tenants own.
//!
//! What a DBA, an application or an auditor calls is declared in `sql`; what a DBA's call does is
//! in `admin`. The glue to PostgreSQL is in `pg`. Everything else is a crate that knows nothing of
//! the server: see `docs/architecture.md`.

mod admin;
mod column;
mod pg;
mod sql;

pgrx::pg_module_magic!();
pgrx::extension_sql_file!("../sql/registry.sql", name = "registry", bootstrap);
pgrx::extension_sql_file!("../sql/planning.sql", name = "planning");
pgrx::extension_sql_file!(
    "../sql/applications.sql",
    name = "applications",
    requires = ["planning"]
);
pgrx::extension_sql_file!("../sql/columns/types.sql", name = "types", requires = ["planning"]);
pgrx::extension_sql_file!("../sql/columns/operators.sql", name = "operators", requires = ["types"]);
pgrx::extension_sql_file!("../sql/columns/sealing.sql", name = "sealing", requires = ["types"]);
pgrx::extension_sql_file!("../sql/columns/search.sql", name = "search", requires = ["operators"]);
pgrx::extension_sql_file!("../sql/columns/tokens.sql", name = "tokens", requires = ["types"]);
pgrx::extension_sql_file!("../sql/columns/wire.sql", name = "wire", requires = ["types"]);
pgrx::extension_sql_file!("../sql/guards.sql", name = "guards");
pgrx::extension_sql_file!(
    "../sql/views.sql",
    name = "views",
    requires = [envelope_header, key_copies, server_facts, backend_cache, backend_cache_stats]
);
pgrx::extension_sql_file!(
    "../sql/protect/names.sql",
    name = "protect_names",
    requires = ["sealing", protections, raise, is_preloaded]
);
pgrx::extension_sql_file!(
    "../sql/protect/indexes.sql",
    name = "protect_indexes",
    requires = ["protect_names"]
);
pgrx::extension_sql_file!(
    "../sql/protect/uses.sql",
    name = "protect_uses",
    requires = ["protect_indexes"]
);
pgrx::extension_sql_file!(
    "../sql/protect/search.sql",
    name = "protect_search",
    requires = ["protect_uses", "views"]
);
pgrx::extension_sql_file!(
    "../sql/protect/views.sql",
    name = "protect_views",
    requires = ["protect_search"]
);
pgrx::extension_sql_file!(
    "../sql/protect/obstacles.sql",
    name = "protect_obstacles",
    requires = ["protect_views"]
);
pgrx::extension_sql_file!(
    "../sql/protect/reindex.sql",
    name = "protect_reindex",
    requires = ["protect_obstacles"]
);
pgrx::extension_sql_file!(
    "../sql/protect/change.sql",
    name = "protect_change",
    requires = ["protect_reindex"]
);
pgrx::extension_sql_file!(
    "../sql/protect/protect.sql",
    name = "protect",
    requires = ["protect_change"]
);
pgrx::extension_sql_file!(
    "../sql/protect/unprotect.sql",
    name = "unprotect",
    requires = ["protect"]
);
pgrx::extension_sql_file!(
    "../sql/protect/seal_table.sql",
    name = "seal_table",
    requires = ["protect", seal_batch]
);
pgrx::extension_sql_file!(
    "../sql/protect/tell.sql",
    name = "protect_tell",
    requires = ["seal_table"]
);
pgrx::extension_sql_file!(
    "../sql/protect/rotation.sql",
    name = "protect_rotation",
    requires = ["protect_tell"]
);
pgrx::extension_sql_file!(
    "../sql/protect/lint.sql",
    name = "protect_lint",
    requires = ["unprotect"]
);
pgrx::extension_sql_file!(
    "../sql/protect/keys.sql",
    name = "protect_keys",
    requires = ["protect", "views"]
);
pgrx::extension_sql_file!(
    "../sql/check.sql",
    name = "check",
    requires = ["protect_lint", "protect_keys"]
);
pgrx::extension_sql_file!(
    "../sql/protect/comments.sql",
    name = "protect_comments",
    requires = ["protect_rotation", "protect_lint", "protect_keys"]
);
pgrx::extension_sql_file!(
    "../sql/audit.sql",
    name = "audit",
    requires = ["protect_names", verify_audit, raise]
);
pgrx::extension_sql_file!(
    "../sql/reencrypt/values.sql",
    name = "reencrypt_values",
    requires = ["protect_names"]
);
pgrx::extension_sql_file!(
    "../sql/reencrypt/jobs.sql",
    name = "reencrypt_jobs",
    requires = ["audit", "reencrypt_values"]
);
pgrx::extension_sql_file!(
    "../sql/reencrypt/targets.sql",
    name = "reencrypt_targets",
    requires = ["reencrypt_values", "protect"]
);
pgrx::extension_sql_file!(
    "../sql/reencrypt/batch.sql",
    name = "reencrypt_batch",
    requires = ["reencrypt_targets"]
);
pgrx::extension_sql_file!(
    "../sql/reencrypt/reencrypt.sql",
    name = "reencrypt",
    requires = ["reencrypt_batch", "reencrypt_jobs"]
);
pgrx::extension_sql_file!(
    "../sql/reencrypt/usage.sql",
    name = "reencrypt_usage",
    requires = ["reencrypt_values"]
);
pgrx::extension_sql_file!(
    "../sql/reencrypt/comments.sql",
    name = "reencrypt_comments",
    requires = ["reencrypt", "reencrypt_usage", retire_keys]
);
pgrx::extension_sql_file!("../sql/finalize.sql", name = "finalize", finalize);

/// What is freed is zeroed first: copies of data keys that the AWS SDK and its HTTP client leave
/// behind go with it. A cache hit allocates nothing here.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);

/// Unguarded by pgrx: on the wrong processor its guard might not run. See [`pg::cpu`].
#[unsafe(no_mangle)]
pub extern "C-unwind" fn _PG_init() {
    pg::cpu::require_features();
    pg::init();
    pg::statement::install(column::wire::describe);
    let (begin, any, table) = (column::plan::our_type, column::plan::any, column::plan::table);
    pg::planner::install(pg::planner::Rewrite { begin, any, table });
    pg::known_protection::register_callback();
    pg::monitor::install(admin::rotation::BY_MONITOR);
}

/// What `cargo pgrx test` asks for.
#[cfg(all(test, feature = "pg_test"))]
pub mod pg_test {
    /// Nothing to set up.
    pub fn setup(_options: Vec<&str>) {}

    /// Lines of `postgresql.conf`.
    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec![
            "shared_preload_libraries = 'cmk_encrypt'",
            "cmk_encrypt.local_keys = on",
            "cmk_encrypt.local_key_directory = 'cmk_test_keys'",
        ]
    }
}
