//! Compress: the values whose mask bit is set, by byte width.

use crate::isa::{Isa, isa};
use crate::mask::{popcount_with, words};

mod sealed {
    //! What only this crate can implement.

    /// Where a type's compress is compiled: once for each byte width.
    pub trait Width: Sized {
        /// # Safety
        /// `out` has room for the values whose bits are set and `SLACK` bytes more; the mask's bits are of `values`.
        unsafe fn filter(isa: crate::Isa, values: &[Self], mask: &[u64], out: *mut Self);
    }
}

/// A value of 1, 2, 4, 8 or 16 bytes that is only moved.
pub trait Fixed: Copy + sealed::Width {}

/// Bytes past the last value that a level may write: one vector.
const SLACK: usize = 64;

/// Appends the values whose bits are set to `out`.
pub fn filter<T: Fixed>(values: &[T], mask: &[u64], out: &mut Vec<T>) {
    filter_with(isa(), values, mask, out);
}

/// [`filter`] at a given level.
pub fn filter_with<T: Fixed>(isa: Isa, values: &[T], mask: &[u64], out: &mut Vec<T>) {
    let used = words(values.len());
    assert!(mask.len() >= used, "mask too short");
    let mask = &mask[..used];
    assert!(mask.last().is_none_or(|last| last & !crate::mask::tail(values.len()) == 0), "a bit is set that stands for no value");
    let count = popcount_with(isa, mask);
    out.reserve(count + SLACK / size_of::<T>());
    let length = out.len();
    // SAFETY: the room was reserved, the mask has no bits but those of values, and `count` values are written.
    unsafe {
        T::filter(isa, values, mask, out.as_mut_ptr().add(length));
        out.set_len(length + count);
    }
}

/// The specification: copies runs of whole words, walks the bits of others.
///
/// # Safety
/// As [`sealed::Width::filter`].
#[inline(always)]
unsafe fn scalar<T: Copy>(values: &[T], mask: &[u64], mut out: *mut T) {
    for (index, word) in mask.iter().enumerate() {
        // SAFETY: every bit stands for a value, and there is room for one value a bit.
        unsafe {
            let from = values.as_ptr().add(index * 64);
            if *word == u64::MAX {
                std::ptr::copy_nonoverlapping(from, out, 64);
                out = out.add(64);
                continue;
            }
            let mut rest = *word;
            while rest != 0 {
                *out = *from.add(rest.trailing_zeros() as usize);
                out = out.add(1);
                rest &= rest - 1;
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! Compress in registers; whole vectors are stored, and the next one overwrites what was too much.
    use crate::mask::POSITIONS;
    use std::arch::x86_64::*;

    /// A loop over the words of the mask: whole words are copied, others compressed a vector at a time.
    macro_rules! compress {
        ($name:ident, $type:ty, $lanes:literal, $bits:ty, $load:ident, $compress:ident) => {
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,popcnt,bmi1,bmi2")]
            pub(super) unsafe fn $name(values: &[$type], mask: &[u64], mut out: *mut $type) {
                for (index, word) in mask.iter().enumerate() {
                    if *word == 0 {
                        continue;
                    }
                    for part in 0..64 / $lanes {
                        let bits = (*word >> (part * $lanes)) as $bits;
                        // SAFETY: only lanes whose bits are set are read, which stand for values; a vector fits the slack.
                        unsafe {
                            let from = values.as_ptr().add(index * 64 + part * $lanes);
                            let value = $load(bits, from.cast());
                            _mm512_storeu_si512(out.cast(), $compress(bits, value));
                            out = out.add(bits.count_ones() as usize);
                        }
                    }
                }
            }
        };
    }

    compress!(avx512_u8, u8, 64, u64, _mm512_maskz_loadu_epi8, _mm512_maskz_compress_epi8);
    compress!(avx512_u16, u16, 32, u32, _mm512_maskz_loadu_epi16, _mm512_maskz_compress_epi16);
    compress!(avx512_u32, u32, 16, u16, _mm512_maskz_loadu_epi32, _mm512_maskz_compress_epi32);
    compress!(avx512_u64, u64, 8, u8, _mm512_maskz_loadu_epi64, _mm512_maskz_compress_epi64);

    /// For every 4 bits the halves of the set 64-bit lanes, as 32-bit lane numbers.
    static PAIRS: [[u32; 8]; 16] = {
        let mut table = [[0u32; 8]; 16];
        let mut bits = 0;
        while bits < 16 {
            let (mut lane, mut at) = (0, 0);
            while lane < 4 {
                if bits >> lane & 1 != 0 {
                    table[bits][at] = 2 * lane;
                    table[bits][at + 1] = 2 * lane + 1;
                    at += 2;
                }
                lane += 1;
            }
            bits += 1;
        }
        table
    };

    /// # Safety
    /// As `Width::filter`; the CPU has AVX2.
    #[target_feature(enable = "avx2,popcnt,bmi1")]
    pub(super) unsafe fn avx2_u32(values: &[u32], mask: &[u64], mut out: *mut u32) {
        let whole = values.len() / 64;
        for (index, word) in mask[..whole].iter().enumerate() {
            if *word == 0 {
                continue;
            }
            for part in 0..8 {
                let bits = (*word >> (8 * part)) as u8;
                // SAFETY: the word's 64 values are there; a vector fits the slack.
                unsafe {
                    let value = _mm256_loadu_si256(values.as_ptr().add(index * 64 + part * 8).cast());
                    let lanes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(POSITIONS[bits as usize].as_ptr().cast()));
                    _mm256_storeu_si256(out.cast(), _mm256_permutevar8x32_epi32(value, lanes));
                    out = out.add(bits.count_ones() as usize);
                }
            }
        }
        // SAFETY: what is left of the values and of the room.
        unsafe { super::scalar(&values[whole * 64..], &mask[whole..], out) };
    }

    /// # Safety
    /// As `Width::filter`; the CPU has AVX2.
    #[target_feature(enable = "avx2,popcnt,bmi1")]
    pub(super) unsafe fn avx2_u64(values: &[u64], mask: &[u64], mut out: *mut u64) {
        let whole = values.len() / 64;
        for (index, word) in mask[..whole].iter().enumerate() {
            if *word == 0 {
                continue;
            }
            for part in 0..16 {
                let bits = (*word >> (4 * part)) as usize & 15;
                // SAFETY: the word's 64 values are there; a vector fits the slack.
                unsafe {
                    let value = _mm256_loadu_si256(values.as_ptr().add(index * 64 + part * 4).cast());
                    let lanes = _mm256_loadu_si256(PAIRS[bits].as_ptr().cast());
                    _mm256_storeu_si256(out.cast(), _mm256_permutevar8x32_epi32(value, lanes));
                    out = out.add(bits.count_ones() as usize);
                }
            }
        }
        // SAFETY: what is left of the values and of the room.
        unsafe { super::scalar(&values[whole * 64..], &mask[whole..], out) };
    }
}

/// The bits of a value's own type are moved as those of `$as`, which has the same size.
macro_rules! width {
    ($($type:ty)* => $as:ty, $avx2:expr, $avx512:expr) => { $(
        impl sealed::Width for $type {
            #[inline]
            unsafe fn filter(isa: Isa, values: &[Self], mask: &[u64], out: *mut Self) {
                // SAFETY: the types have the same size, and the alignment of `$as` is not above that of its source.
                let values = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<$as>(), values.len()) };
                // SAFETY: what the caller promises; `usable` proves the level.
                unsafe {
                    match isa.usable() {
                        #[cfg(target_arch = "x86_64")]
                        Isa::Avx512 => $avx512(values, mask, out.cast()),
                        #[cfg(target_arch = "x86_64")]
                        Isa::Avx2 => $avx2(values, mask, out.cast()),
                        _ => plain::<$as>(values, mask, out.cast()),
                    }
                }
            }
        }
        impl Fixed for $type {}
    )* };
}

/// # Safety
/// As [`sealed::Width::filter`].
unsafe fn plain<T: Copy>(values: &[T], mask: &[u64], out: *mut T) {
    // SAFETY: what the caller promises.
    unsafe { scalar(values, mask, out) }
}

/// # Safety
/// As [`sealed::Width::filter`]; the CPU has BMI1.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1")]
unsafe fn bits<T: Copy>(values: &[T], mask: &[u64], out: *mut T) {
    // SAFETY: what the caller promises.
    unsafe { scalar(values, mask, out) }
}

width!(u8 i8 => u8, bits::<u8>, x86::avx512_u8);
width!(u16 i16 => u16, bits::<u16>, x86::avx512_u16);
width!(u32 i32 f32 => u32, x86::avx2_u32, x86::avx512_u32);
width!(u64 i64 f64 => u64, x86::avx2_u64, x86::avx512_u64);
width!(u128 i128 => u128, bits::<u128>, bits::<u128>);
