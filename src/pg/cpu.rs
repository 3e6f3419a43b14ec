//! Refuses to load on a processor that lacks what this build was compiled for.
//!
//! Everything in here runs on that very processor, compiled for a better one. So it is scalar code
//! and calls into PostgreSQL only: no formatting, no pgrx, no panic. `scripts/check_cpu.sh` runs it
//! on an emulated old processor.

use super::elog::{errcode, errdetail, errfinish, errhint, errmsg, errstart};
use pgrx::PgLogLevel;
use std::ffi::{CStr, c_int};

/// F0000 config_file_error, as PostgreSQL packs a SQLSTATE: six bits a character.
const CONFIG_FILE_ERROR: c_int = ('F' as c_int) - ('0' as c_int);

/// Raises F0000 `cpu_feature`, before anything else of the library runs.
#[cfg(target_arch = "x86_64")]
#[inline]
pub fn require_features() {
    use std::arch::x86_64::__cpuid_count;
    let highest = __cpuid_count(0, 0).eax;
    let features = __cpuid_count(1, 0).ecx;
    let extended = if highest >= 7 { __cpuid_count(7, 0).ebx } else { 0 };
    // Bits of CPUID (Intel SDM volume 2A). `is_x86_feature_detected!` can't be used: where the
    // build assumes a feature, it says yes without looking.
    macro_rules! require {
        ($feature:literal, $word:ident, $bit:literal) => {
            if cfg!(target_feature = $feature) && $word >> $bit & 1 == 0 {
                refuse(const { c_name(concat!($feature, "\0")) });
            }
        };
    }
    require!("aes", features, 25);
    require!("pclmulqdq", features, 1);
    require!("ssse3", features, 9);
    require!("sse4.2", features, 20);
    require!("fma", features, 12);
    require!("movbe", features, 22);
    require!("popcnt", features, 23);
    require!("avx", features, 28);
    require!("avx2", extended, 5);
    require!("bmi1", extended, 3);
    require!("bmi2", extended, 8);
}

#[cfg(not(target_arch = "x86_64"))]
pub fn require_features() {}

#[cfg(target_arch = "x86_64")]
const fn c_name(name: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(name.as_bytes()) {
        Ok(name) => name,
        Err(_) => panic!("one zero byte, at the end"),
    }
}

#[cold]
#[inline(never)]
fn refuse(feature: &'static CStr) {
    // SAFETY: called from _PG_init on the main thread, in the order that ereport() of elog.h has.
    // All strings are constant. errfinish jumps out over frames that hold nothing to drop.
    unsafe {
        if errstart(PgLogLevel::ERROR as c_int, std::ptr::null()) {
            errcode(CONFIG_FILE_ERROR);
            errmsg(
                c"this build of cmk_encrypt needs a processor feature that this machine lacks"
                    .as_ptr(),
            );
            errdetail(c"reason=cpu_feature feature=%s".as_ptr(), feature.as_ptr());
            errhint(c"Build it with RUSTFLAGS=\"\" for any processor; see the README.".as_ptr());
            errfinish(c"cpu.rs".as_ptr(), 0, c"_PG_init".as_ptr());
        }
    }
}
