//! Refuses to load on a processor that lacks what this build was compiled for.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

/// What `.cargo/config.toml` compiled in, and the CPUID bit for each: leaf, register (0 = EBX, 1 = ECX), bit
/// (Intel SDM volume 2A, CPUID). `is_x86_feature_detected!` can't be used: it answers at compile time
/// what the build assumes.
#[cfg(target_arch = "x86_64")]
const REQUIRED: [(&str, bool, u32, usize, u32); 8] = [
    ("aes", cfg!(target_feature = "aes"), 1, 1, 25),
    ("pclmulqdq", cfg!(target_feature = "pclmulqdq"), 1, 1, 1),
    ("ssse3", cfg!(target_feature = "ssse3"), 1, 1, 9),
    ("fma", cfg!(target_feature = "fma"), 1, 1, 12),
    ("movbe", cfg!(target_feature = "movbe"), 1, 1, 22),
    ("avx", cfg!(target_feature = "avx"), 1, 1, 28),
    ("avx2", cfg!(target_feature = "avx2"), 7, 0, 5),
    ("bmi2", cfg!(target_feature = "bmi2"), 7, 0, 8),
];

/// # Errors
/// Raises F0000 `cpu_feature` itself, before anything else of the library runs.
#[cfg(target_arch = "x86_64")]
pub fn require_features() {
    use std::arch::x86_64::__cpuid_count;
    let highest = __cpuid_count(0, 0).eax;
    let missing = REQUIRED.iter().find(|&&(_, needed, leaf, register, bit)| {
        let registers = __cpuid_count(leaf, 0);
        let word = [registers.ebx, registers.ecx][register];
        needed && (leaf > highest || word >> bit & 1 == 0)
    });
    if let Some((name, ..)) = missing {
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_CONFIG_FILE_ERROR,
            "this build of cmk_encrypt needs a processor feature that this machine lacks",
            "_PG_init",
        )
        .set_detail(format!("reason=cpu_feature feature={name}"))
        .set_hint("Build it with RUSTFLAGS=\"\" for any processor; see the README.")
        .report(PgLogLevel::ERROR);
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub fn require_features() {}
