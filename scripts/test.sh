#!/usr/bin/env bash
# Everything CI runs, cheapest first; stops at the first step that fails.
source "$(dirname "$0")/lib.sh"

export PYTHONDONTWRITEBYTECODE=1
pytest() { "$VENV/bin/pytest" -v -p no:cacheprovider "$@"; }

names=()
times=()
backend_tests='' # the data directory of cargo pgrx test, where that is not below $TARGET
summary() {
    local status=$? i failed=0
    trap - EXIT
    rm -rf "$backend_tests"
    ((status == 0)) || failed=1
    printf '\n── steps\n'
    for i in "${!names[@]}"; do
        printf '%6s s  %s\n' "${times[i]:-failed}" "${names[i]}"
    done
    printf '%6s s  in all\n\nsteps: %d passed, %d failed\n' "$SECONDS" "${#times[@]}" "$failed"
    exit "$status"
}
trap summary EXIT
trap 'exit 130' INT TERM HUP

# step NAME COMMAND…: runs a command under a headline.
step() {
    local start=$SECONDS
    names+=("$1")
    printf '\n── [%02d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$1"
    shift
    "$@"
    times+=("$((SECONDS - start))")
}

lint() { cargo clippy --locked --all-targets "$@" -- -D warnings; }

in_backend_tests() {
    use_pgrx "$pg15"
    local runas=()
    if is_root; then
        backend_tests=$(as_server mktemp -d /tmp/cmk_encrypt.XXXXXX)
        runas=(--runas postgres --pgdata "$backend_tests/data")
    fi
    cargo pgrx test pg15 "${runas[@]}"
}

# build_and_install PG_CONFIG PROFILE
build_and_install() {
    local stage
    stage=$(build_package "$1" "$2")
    install_package "$stage" "$1"
}

lint_sql() { scripts/lint_sql.sh "$("$pg15" --sharedir)"/extension/cmk_encrypt--*.sql; }

session_tests() {
    cargo build -q --locked -p fake_kms
    PG_CONFIG=$pg15 FAKE_KMS=$TARGET/debug/fake_kms pytest tests/sessions
}

postgresql_18() {
    pg18=$(scripts/fetch_postgres.sh 18.6.0)
    build_and_install "$pg18" dev
    scripts/demo.sh "$pg18"
}

step "what is missing" scripts/setup.sh test
pg15=$(clone_postgres "${PG_CONFIG:-$DEFAULT_PG_CONFIG}")

step "formatting" cargo fmt --all --check
step "tracked files" scripts/check_tree.sh
step "lint: crates" lint --workspace --exclude cmk_encrypt
step "tests: crates" cargo test --locked "${CRATES[@]}"
step "tests: a million C2SP vectors" cargo test --release --locked -p cmk-crypto --test c2sp_xaes
step "tests: golden envelopes, read by Python" pytest tests/crosscheck
step "tests: fuzzing, a few seconds" tests/fuzz/smoke.sh
step "tests: fake KMS, and roto-aws beside it" env CMK_TEST_ROTO_AWS="$VENV/bin/roto-server" \
    cargo test --locked -p fake_kms
use_pgrx "$pg15"
step "lint: PostgreSQL 15" lint -p cmk_encrypt --features "pg15 pg_test"
step "tests: in the backend" in_backend_tests
step "build: release for PostgreSQL 15" build_and_install "$pg15" release
step "lint: SQL" lint_sql
if [[ $(uname -m) == x86_64 ]]; then
    step "tests: processors without AES or AVX2" scripts/check_cpu.sh "$pg15"
fi
step "tests: sessions" session_tests
step "demonstration on PostgreSQL 15" scripts/demo.sh "$pg15"
step "PostgreSQL 18: build, CREATE EXTENSION, demonstration" postgresql_18
