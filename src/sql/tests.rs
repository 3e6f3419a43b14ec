//! In-backend tests (`cargo pgrx test`): what needs a server but neither a second session nor a
//! client. Those that do are in `tests/sessions`.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use super::fixture;
    use crate::pg::process::{THIS_PROCESS, keyring};
    use crate::pg::registry::invalidation;
    use crate::pg::shared_memory::access;
    use cmk_error::Instant;
    use cmk_keyring::process::Process;
    use pgrx::prelude::*;

    fn count(query: &str) -> i64 {
        Spi::get_one(query).expect("a query that runs").expect("a count is never null")
    }

    #[pg_test]
    fn a_thousand_rows_of_one_tenant_cost_one_call() {
        fixture::tenant("acme");
        Spi::run("SELECT cmk.evict('acme')").expect("evict");
        let before = keyring().stats().kms_calls.value();
        let opened = count(
            "SELECT count(cmk_decrypt('acme', cmk_encrypt('acme', int4send(i))))
               FROM generate_series(1, 1000) i",
        );
        assert_eq!((opened, keyring().stats().kms_calls.value() - before), (1000, 1));
    }

    #[pg_test]
    fn a_rolled_back_rotation_leaves_the_old_key_in_use() {
        fixture::tenant("acme");
        let version = "SELECT (cmk.inspect(cmk_encrypt('acme', 'x'))).version::bigint";
        assert_eq!(count(version), 1);
        Spi::run(
            "DO $$ BEGIN PERFORM cmk.rotate_tenant('acme'), cmk_encrypt('acme', 'x'); RAISE division_by_zero;
             EXCEPTION WHEN division_by_zero THEN END $$",
        )
        .expect("the block catches its own error");
        assert_eq!(count(version), 1);
    }

    #[pg_test]
    fn every_function_has_a_comment_and_a_pinned_search_path_if_it_runs_as_its_owner() {
        let members = "FROM pg_depend d
                        JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'cmk_encrypt'
                        JOIN pg_proc p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass
                       WHERE d.deptype = 'e' AND p.pronamespace <> 'tests'::regnamespace";
        assert!(count(&format!("SELECT count(*) {members}")) > 15);
        let bare =
            format!("SELECT count(*) {members} AND obj_description(p.oid, 'pg_proc') IS NULL");
        assert_eq!(count(&bare), 0);
        let bare = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'cmk.status'::regclass
                       AND attname <> 'tenant' AND col_description(attrelid, attnum) IS NULL";
        assert_eq!(count(bare), 0);
        let loose = format!("SELECT count(*) {members} AND p.prosecdef AND p.proconfig IS NULL");
        assert_eq!(count(&loose), 0);
    }

    #[pg_test]
    fn the_clock_never_goes_back() {
        let read = || -> Instant { THIS_PROCESS.now() };
        let samples: Vec<_> = (0..10_000).map(|_| read()).collect();
        assert!(samples.is_sorted());
    }

    #[pg_test]
    fn a_panic_under_the_lock_lets_it_go_and_shares_no_data_key() {
        fixture::tenant("acme");
        Spi::run("SELECT cmk_encrypt('acme', 'x')").expect("encrypt");
        let panics =
            || access::with(|_| -> () { std::panic::resume_unwind(Box::new("half-done")) });
        let caught = std::panic::catch_unwind(panics);
        assert_eq!(caught.expect_err("it panicked").downcast_ref(), Some(&"half-done"));
        // Twice, and exclusively: who still had the lock would wait for himself.
        let shared = |range: std::ops::Range<usize>| {
            access::with(|shared| shared.expire(range, Instant::MIN)).is_some()
        };
        access::in_chunks(|range| assert!(!shared(range), "a data key is left"));
        Spi::run("SELECT cmk_encrypt('acme', 'x')").expect("the session works");
    }

    #[pg_test]
    fn a_change_of_a_registry_table_moves_the_generation() {
        fixture::tenant("acme");
        Spi::run("SELECT cmk_encrypt('acme', 'x')").expect("encrypt");
        let before = invalidation::generation();
        Spi::run("UPDATE cmk.tenant SET changed_at = now()").expect("update");
        assert_ne!(invalidation::generation(), before);
    }
}

/// A tenant with a local key, registered in the test's own transaction.
mod fixture {
    use pgrx::prelude::*;
    use std::fs;
    use std::os::unix::fs::OpenOptionsExt;

    /// Relative to the data directory, where a backend lives; see
    /// `pg_test::postgresql_conf_options`.
    pub const KEYS: &str = "cmk_test_keys";

    pub fn tenant(name: &str) {
        fs::create_dir_all(KEYS).expect("the server may write its data directory");
        // Tests run side by side and share their tenants' names: a key file is there whole or not
        // at all.
        let draft = format!("{KEYS}/{name}.{}", std::process::id());
        let options = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft);
        std::io::Write::write_all(&mut options.expect("key file"), &[7; 32]).expect("key");
        fs::rename(draft, format!("{KEYS}/{name}.key")).expect("the same directory");
        let statements = format!(
            "SELECT cmk.register_tenant('{name}', 'local:{name}'),
                    cmk.grant_access('{name}', current_user::regrole)"
        );
        Spi::run(&statements).expect("register");
    }
}
