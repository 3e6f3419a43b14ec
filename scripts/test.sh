#!/usr/bin/env bash
# Everything CI runs; stops at the first step that fails. With PG=16 (or another version) in the
# environment: the session tests on that version, and what they take.
source "$(dirname "$0")/lib.sh"
source scripts/steps.sh

export PYTHONDONTWRITEBYTECODE=1
pytest() { "$VENV/bin/python" -m pytest -v -p no:cacheprovider "$@"; }

# sessions PG_CONFIG ARGUMENT…: pytest, with what the session tests take.
sessions() { PG_CONFIG=$1 FAKE_KMS=$TARGET/debug/fake_kms pytest "${@:2}"; }

# release PG_CONFIG: a warning of our code fails the build.
release() {
    build_release "$1" '' "${LINTS[@]}"
    install_release "$1"
}

# lint PG_CONFIG: with pg_test for every version, because the dependencies are compiled once for all
# only with the same features.
lint() {
    PGRX_PG_CONFIG_PATH=$1 cargo clippy -q --locked -p cmk_encrypt --all-targets \
        --features "pg$(pg_major "$1") pg_test" -- "${LINTS[@]}"
}

document() {
    PGRX_PG_CONFIG_PATH=$1 RUSTDOCFLAGS="${DOC_LINTS[*]}" cargo doc -q --locked --no-deps \
        --document-private-items -p cmk_encrypt --features "pg15 pg_test"
}

in_backend() {
    local data runas=() status=0
    data=$(as_server mktemp -d /tmp/cmk_encrypt.XXXXXX)
    if is_root; then
        runas=(--runas postgres --pgdata "$data/data")
    fi
    PGRX_PG_CONFIG_PATH=$1 cargo pgrx test pg15 "${runas[@]}" || status=$?
    rm -rf "$data"
    return "$status"
}

if [[ ${PG:-} ]]; then
    step "what is missing" scripts/setup.sh sessions
    pg=$(private_postgres "$PG")
    step "fake KMS" cargo build -q --locked -p fake_kms
    step "release for PostgreSQL $PG" release "$pg"
    step "sessions on PostgreSQL $PG" sessions "$pg" tests/sessions
    exit
fi

step "what is missing" scripts/setup.sh test
step "make check" scripts/check.sh
step "roto-aws, beside the fake KMS" env CMK_TEST_ROTO_AWS="$VENV/bin/roto-server" \
    cargo test -q --locked "${CRATES[@]}" --test conformance on_roto_aws
step "a million C2SP vectors" cargo test -q --release --locked -p cmk-crypto --test c2sp_xaes
step "golden envelopes, read by Python" pytest -q tests/crosscheck
step "fuzzing, a few seconds" tests/fuzz/smoke.sh

pg15=$(private_postgres 15)
pg18=$(private_postgres 18)
step "PostgreSQL 18: release" release "$pg18"
step "PostgreSQL 15: release" release "$pg15"
step "the SQL script is what the sources make" scripts/schema.sh --check
step "the SQL script names everything by schema" scripts/lint_sql.sh sql/cmk_encrypt--*.sql
if [[ $(uname -m) == x86_64 ]]; then
    step "processors without AES or AVX2" scripts/check_cpu.sh "$pg15"
fi
step "PostgreSQL 15: demonstration" scripts/demo.sh "$pg15"

# Sessions mostly wait: what compiles beside them stands back. Those that measure run alone, at the
# end.
measuring=(tests/sessions/test_{drill_*,endurance,shared}.py)
waiting=(tests/sessions "${measuring[@]/#/--ignore=}")
beside "PostgreSQL 15: sessions" sessions "$pg15" "${waiting[@]}"
beside "PostgreSQL 18: sessions" sessions "$pg18" "${waiting[@]}"
renice -n 19 $$ >/dev/null

# A tree of its own: `cargo pgrx test` installs what it builds.
dev15=$(clone_postgres "${PG_CONFIG:-$DEFAULT_PG_CONFIG}" -dev)
step "PostgreSQL 15: lint" lint "$dev15"
step "PostgreSQL 15: documentation" document "$dev15"
step "PostgreSQL 15: in the backend" in_backend "$dev15"
for major in 14 16 17 18; do
    pg=$(private_postgres "$major")
    step "PostgreSQL $major: lint" lint "$pg"
    ((major == 18)) || step "PostgreSQL $major: release" release "$pg"
    step "PostgreSQL $major: demonstration" scripts/demo.sh "$pg"
done
UPGRADE_PG_CONFIG=$pg18 step "PostgreSQL 14 to 18: pg_upgrade" \
    sessions "$(private_postgres 14)" tests/sessions/test_{column_upgrade,upgrade}.py
step "PostgreSQL 15: onboarding" scripts/test_onboarding.sh "$pg15"
step "PostgreSQL 15: clients" scripts/test_clients.sh "$pg15"
join "PostgreSQL 15: sessions"
join "PostgreSQL 18: sessions"
step "PostgreSQL 15: drills" sessions "$pg15" "${measuring[@]}"
step "PostgreSQL 18: drills" sessions "$pg18" "${measuring[@]}"
