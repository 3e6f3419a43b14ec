//! `cmk_encrypt`: column encryption inside PostgreSQL under keys that the tenants own.
//!
//! Layers, each of which may use only those below it (`scripts/check_layers.py` enforces it):
//! `sql` → `pg` → `runtime`, `kms::aws` → `keyring` → `cache`, `shared`, `registry`, `kms` → `envelope`, `crypto`
//! → `error`.

pub mod cache;
pub mod crypto;
pub mod envelope;
pub mod error;
pub mod keyring;
pub mod kms;
#[cfg(feature = "pg")]
pub mod pg;
pub mod registry;
#[cfg(feature = "net")]
pub mod runtime;
pub mod shared;
#[cfg(feature = "pg")]
mod sql;

#[cfg(feature = "pg")]
pgrx::pg_module_magic!();
#[cfg(feature = "pg")]
pgrx::extension_sql_file!("../sql/registry.sql", name = "registry", bootstrap);
#[cfg(feature = "pg")]
pgrx::extension_sql_file!("../sql/applications.sql", name = "applications");
#[cfg(feature = "pg")]
pgrx::extension_sql_file!("../sql/guards.sql", name = "guards");
#[cfg(feature = "pg")]
pgrx::extension_sql_file!("../sql/check.sql", name = "check");
#[cfg(feature = "pg")]
pgrx::extension_sql_file!(
    "../sql/views.sql",
    name = "views",
    requires = [envelope_header, key_status, key_copies, backend_cache, backend_cache_stats]
);
#[cfg(feature = "pg")]
pgrx::extension_sql_file!("../sql/finalize.sql", name = "finalize", finalize);

/// What is freed is zeroed first: copies of data keys that the AWS SDK and its HTTP client leave behind
/// go with it. A cache hit allocates nothing here.
#[cfg(feature = "pg")]
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);

/// Unguarded by pgrx: on the wrong processor its guard might not run. See [`pg::cpu`].
#[cfg(feature = "pg")]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn _PG_init() {
    pg::cpu::require_features();
    pg::init();
}

/// What `cargo pgrx test` asks for.
#[cfg(all(test, feature = "pg_test"))]
pub mod pg_test {
    pub fn setup(_options: Vec<&str>) {}

    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec!["cmk_encrypt.local_keys = on", "cmk_encrypt.local_key_directory = 'cmk_test_keys'"]
    }
}
