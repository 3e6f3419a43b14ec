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
pgrx::extension_sql_file!("../sql/applications.sql", name = "applications");
pgrx::extension_sql_file!("../sql/columns/types.sql", name = "types");
pgrx::extension_sql_file!("../sql/columns/operators.sql", name = "operators", requires = ["types"]);
pgrx::extension_sql_file!("../sql/columns/sealing.sql", name = "sealing", requires = ["types"]);
pgrx::extension_sql_file!("../sql/columns/wire.sql", name = "wire", requires = ["types"]);
pgrx::extension_sql_file!("../sql/guards.sql", name = "guards");
pgrx::extension_sql_file!("../sql/check.sql", name = "check");
pgrx::extension_sql_file!(
    "../sql/views.sql",
    name = "views",
    requires = [envelope_header, key_status, key_copies, backend_cache, backend_cache_stats]
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
