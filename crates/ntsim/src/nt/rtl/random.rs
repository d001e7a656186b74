//! Random numbers from a seed that the driver keeps.
//!
//! Windows documents their range and nothing of their sequence, which differs here; `RtlUniform` names its generator
//! (Lehmer's), which is used for all three.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::export::exports;

exports! {
    "ntoskrnl.exe";
    RtlRandom: APC,
    RtlRandomEx: APC,
    RtlUniform: APC,
}

/// The next number, 0 to 0x7ffffffe (MAXLONG - 1): seed and result are the same.
///
/// # Safety
/// `seed` is readable and writable.
unsafe fn next(seed: *mut u32) -> u32 {
    const MULTIPLIER: u64 = 0x7fff_ffed;
    const INCREMENT: u64 = 0x7fff_ffc3;
    const MODULUS: u64 = 0x7fff_ffff;
    // SAFETY: the caller's promise.
    unsafe {
        let value = ((u64::from(seed.read()) * MULTIPLIER + INCREMENT) % MODULUS) as u32;
        seed.write(value);
        value
    }
}

unsafe extern "win64" fn RtlUniform(seed: *mut u32) -> u32 {
    // SAFETY: the page demands a ULONG seed to read and write.
    unsafe { next(seed) }
}

unsafe extern "win64" fn RtlRandom(seed: *mut u32) -> u32 {
    // SAFETY: the page demands a ULONG seed to read and write.
    unsafe { next(seed) }
}

unsafe extern "win64" fn RtlRandomEx(seed: *mut u32) -> u32 {
    // SAFETY: the page demands a ULONG seed to read and write.
    unsafe { next(seed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_in_range_and_follow_from_the_seed() {
        let (mut seed, mut same) = (1, 1);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            // SAFETY: the seeds are ours.
            let (a, b) = unsafe { (RtlRandomEx(&mut seed), RtlRandomEx(&mut same)) };
            assert_eq!(a, b);
            assert!(a < 0x7fff_ffff);
            seen.insert(a);
        }
        assert!(seen.len() > 990, "{} different of 1000", seen.len());
    }
}
