//! Overwrites what functions leave behind of a key: on the dead part of the stack, and in
//! registers, which a signal would write to the stack.

/// Bytes of a copy that goes through all registers which the copy of an expanded key goes through:
/// one of about as many.
const COPY: usize = 1024;

/// Zeroes what held a key, by whole words: the loop over bytes of `zeroize` takes as long as a
/// block of the cipher does.
#[inline]
pub(crate) fn overwrite<T: Default>(secret: &mut T) {
    *secret = T::default();
    // Whoever is shown it might read it, so it has to be written.
    std::hint::black_box(secret);
}

/// Overwrites the dead part of the stack, where functions that have returned may have left copies
/// of a key: moves of a value are plain copies, which nobody zeroes. Call it after a key was
/// expanded.
pub fn scrub_stack() {
    overwrite_registers();
    // Deeper than a KMS call with all its layers goes; a backend has 100 kB to spare below any
    // function.
    overwrite_stack::<{ 64 * 1024 }>();
}

/// Overwrites the registers through which an expanded key was copied to its place, which a signal
/// would write to the stack: by a copy of as many zeroes, about.
#[inline(never)]
pub(crate) fn overwrite_registers() {
    let (zeroes, mut room) = (std::hint::black_box([0_u8; COPY]), [1; COPY]);
    room.copy_from_slice(&zeroes);
    std::hint::black_box(&mut room);
    overwrite_upper_registers();
}

/// As [`scrub_stack`] for that many bytes below the caller's frame, and for the registers that
/// ciphers work in.
#[inline(never)]
pub(crate) fn overwrite_stack<const DEPTH: usize>() {
    // Whoever is shown it might read it, so it has to be written.
    std::hint::black_box(&mut [0_u8; DEPTH]);
    overwrite_lower_registers();
}

/// The first sixteen vector registers, which is all that code without AVX-512 knows.
#[inline]
fn overwrite_lower_registers() {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx") {
        // SAFETY: the processor has AVX.
        unsafe { clear_lower_registers() };
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
fn clear_lower_registers() {
    std::arch::x86_64::_mm256_zeroall();
}

/// The other sixteen, where there are any: AWS-LC works in them.
#[inline(never)]
pub(crate) fn overwrite_upper_registers() {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has AVX-512.
        unsafe { clear_upper_registers() };
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn clear_upper_registers() {
    macro_rules! clear {
        ($($register:tt)*) => {
            // SAFETY: writes registers that it names, and no memory.
            unsafe {
                std::arch::asm!(
                    $(concat!("vpxorq ", $register, ", ", $register, ", ", $register),)*
                    $(out($register) _,)*
                    options(nomem, nostack, preserves_flags)
                );
            }
        };
    }
    clear!("zmm16" "zmm17" "zmm18" "zmm19" "zmm20" "zmm21" "zmm22" "zmm23"
           "zmm24" "zmm25" "zmm26" "zmm27" "zmm28" "zmm29" "zmm30" "zmm31");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Leaves a pattern on the stack, and returns where.
    #[inline(never)]
    fn leave_copies() -> *const u8 {
        let copies = [0xA5_u8; COPIES];
        std::hint::black_box(&copies).as_ptr()
    }

    const COPIES: usize = 32 * 1024;

    /// How many bytes of the pattern are left. The upper part is what this very test uses.
    #[inline(never)]
    fn copies_left(at: *const u8) -> usize {
        // SAFETY: the thread's stack, which is mapped; what it holds is plain bytes to the
        // processor.
        let left = |i: &usize| unsafe { at.add(*i).read_volatile() } == 0xA5;
        (0..COPIES / 2).filter(left).count()
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads the dead part of the stack")]
    fn copies_that_functions_left_on_the_stack_are_overwritten() {
        let at = leave_copies();
        assert!(copies_left(at) > COPIES / 4, "the test looks at the wrong place");
        let at = leave_copies();
        scrub_stack();
        assert_eq!(copies_left(at), 0);
    }
}
