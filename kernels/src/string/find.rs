//! Substring search in one string.

use crate::isa::{Isa, isa};

/// How a level searches. A token: where it exists, its features do.
pub(super) trait Find: Copy {
    /// The place of the first `needle` (of two bytes or more, no longer than the haystack).
    fn find(self, haystack: &[u8], needle: &[u8]) -> Option<usize>;

    /// The place of the first `needle` of any length.
    #[inline(always)]
    fn find_any(self, haystack: &[u8], needle: &[u8]) -> Option<usize> {
        match needle {
            [] => Some(0),
            _ if needle.len() > haystack.len() => None,
            [byte] => haystack.iter().position(|other| other == byte),
            _ => self.find(haystack, needle),
        }
    }
}

/// Runs a block compiled for a level, with the level's search token in a variable.
macro_rules! run_find {
    ($isa:expr, $find:ident => $body:expr) => {
        match $isa.usable() {
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Isa::Avx512 => {
                // SAFETY: `usable` returns this level only if the CPU has its features.
                let $find = unsafe { $crate::string::find::Avx512::new() };
                $crate::isa::Isa::Avx512.run(
                    #[inline(always)]
                    || $body,
                )
            }
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Isa::Avx2 => {
                // SAFETY: as above.
                let $find = unsafe { $crate::string::find::Avx2::new() };
                $crate::isa::Isa::Avx2.run(
                    #[inline(always)]
                    || $body,
                )
            }
            _ => {
                let $find = $crate::string::find::Scalar;
                $body
            }
        }
    };
}
pub(super) use run_find;

/// The specification: every place in turn.
#[derive(Clone, Copy)]
pub(super) struct Scalar;

impl Find for Scalar {
    #[inline(always)]
    fn find(self, haystack: &[u8], needle: &[u8]) -> Option<usize> {
        let (first, last) = (needle[0], needle[needle.len() - 1]);
        (0..=haystack.len() - needle.len())
            .find(|at| haystack[*at] == first && haystack[at + needle.len() - 1] == last && haystack[*at..].starts_with(needle))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! 32 or 64 places at a time.
    use super::{Find, Scalar};
    use std::arch::x86_64::*;

    /// Proves AVX2.
    #[derive(Clone, Copy)]
    pub(in crate::string) struct Avx2(());

    /// Proves AVX-512.
    #[derive(Clone, Copy)]
    pub(in crate::string) struct Avx512(());

    impl Avx2 {
        /// # Safety
        /// The CPU has the features of `Isa::Avx2`.
        #[inline(always)]
        pub(in crate::string) unsafe fn new() -> Self {
            Avx2(())
        }
    }

    impl Avx512 {
        /// # Safety
        /// The CPU has the features of `Isa::Avx512`.
        #[inline(always)]
        pub(in crate::string) unsafe fn new() -> Self {
            Avx512(())
        }
    }

    impl Find for Avx2 {
        #[inline(always)]
        fn find(self, haystack: &[u8], needle: &[u8]) -> Option<usize> {
            if haystack.len() - needle.len() < 31 {
                return Scalar.find(haystack, needle);
            }
            // SAFETY: the token proves AVX2, and there are at least 32 places.
            unsafe { find_avx2(haystack, needle) }
        }
    }

    impl Find for Avx512 {
        #[inline(always)]
        fn find(self, haystack: &[u8], needle: &[u8]) -> Option<usize> {
            // SAFETY: the token proves AVX-512; the needle is not longer than the haystack.
            unsafe { find_avx512(haystack, needle) }
        }
    }

    /// The first of the candidate places (bits, from place `at` on) where the needle is.
    #[inline(always)]
    fn verify(haystack: &[u8], needle: &[u8], at: usize, mut candidates: u64) -> Option<usize> {
        while candidates != 0 {
            let place = at + candidates.trailing_zeros() as usize;
            if haystack[place + 1..].starts_with(&needle[1..needle.len() - 1]) {
                return Some(place);
            }
            candidates &= candidates - 1;
        }
        None
    }

    /// # Safety
    /// The needle is two bytes or more and there are 32 places for it or more.
    #[inline]
    #[target_feature(enable = "avx2,bmi1")]
    unsafe fn find_avx2(haystack: &[u8], needle: &[u8]) -> Option<usize> {
        let (places, reach) = (haystack.len() - needle.len() + 1, needle.len() - 1);
        let first = _mm256_set1_epi8(needle[0].cast_signed());
        let last = _mm256_set1_epi8(needle[reach].cast_signed());
        let mut at = 0;
        loop {
            // The last vector overlaps the one before it. Places found twice were rejected before.
            let from = at.min(places - 32);
            // SAFETY: `from + 32 <= places`, so the reads end at `places + reach`, the haystack's end.
            let (starts, ends) = unsafe {
                let place = haystack.as_ptr().add(from);
                (_mm256_loadu_si256(place.cast()), _mm256_loadu_si256(place.add(reach).cast()))
            };
            let both = _mm256_and_si256(_mm256_cmpeq_epi8(starts, first), _mm256_cmpeq_epi8(ends, last));
            let candidates = u64::from(_mm256_movemask_epi8(both).cast_unsigned());
            if candidates != 0
                && let Some(place) = verify(haystack, needle, from, candidates)
            {
                return Some(place);
            }
            at += 32;
            if at >= places {
                return None;
            }
        }
    }

    /// # Safety
    /// The needle is two bytes or more and not longer than the haystack.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,bmi1,bmi2")]
    unsafe fn find_avx512(haystack: &[u8], needle: &[u8]) -> Option<usize> {
        let (places, reach) = (haystack.len() - needle.len() + 1, needle.len() - 1);
        let first = _mm512_set1_epi8(needle[0].cast_signed());
        let last = _mm512_set1_epi8(needle[reach].cast_signed());
        let mut at = 0;
        while at < places {
            let left = places - at;
            let valid = if left >= 64 { u64::MAX } else { (1 << left) - 1 };
            // SAFETY: masked-out bytes are not read; the others end at the haystack's end.
            let (starts, ends) = unsafe {
                let place = haystack.as_ptr().add(at).cast::<i8>();
                (_mm512_maskz_loadu_epi8(valid, place), _mm512_maskz_loadu_epi8(valid, place.add(reach)))
            };
            let candidates = _mm512_mask_cmpeq_epi8_mask(_mm512_mask_cmpeq_epi8_mask(valid, starts, first), ends, last);
            if candidates != 0
                && let Some(place) = verify(haystack, needle, at, candidates)
            {
                return Some(place);
            }
            at += 64;
        }
        None
    }
}

/// The place of the first `needle` in `haystack`.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    find_with(isa(), haystack, needle)
}

/// [`find`] at a given level.
pub fn find_with(isa: Isa, haystack: &[u8], needle: &[u8]) -> Option<usize> {
    run_find!(isa, level => level.find_any(haystack, needle))
}

/// Sets the bits of the strings that contain `needle`. String `i` is `data[offsets[i]..offsets[i + 1]]`.
pub fn contains(offsets: &[u32], data: &[u8], needle: &[u8], mask: &mut [u64]) {
    contains_with(isa(), offsets, data, needle, mask);
}

/// [`contains`] at a given level.
pub fn contains_with(isa: Isa, offsets: &[u32], data: &[u8], needle: &[u8], mask: &mut [u64]) {
    run_find!(isa, level => super::each(
        offsets,
        data,
        mask,
        #[inline(always)]
        |text| level.find_any(text, needle).is_some(),
    ));
}
