//! From 64 comparisons to one word of a mask: the step that LLVM does not find by itself.
//!
//! A [`Level`] is a token that proves its CPU features; [`run_level`] makes one and compiles a body for it. The scalar
//! token is the specification.

/// Unsigned integers that ranges are compared as: 1, 2, 4 or 8 bytes.
pub(crate) trait Bits: Copy + PartialOrd {
    /// Bit `i` is set if `values[i] - low <= span`, wrapping, unsigned.
    fn scalar(values: &[Self; 64], low: Self, span: Self) -> u64;
    /// The same with AVX2.
    ///
    /// # Safety
    /// The CPU has AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn avx2(values: &[Self; 64], low: Self, span: Self) -> u64;
    /// The same with AVX-512.
    ///
    /// # Safety
    /// The CPU has AVX-512 F and BW.
    #[cfg(target_arch = "x86_64")]
    unsafe fn avx512(values: &[Self; 64], low: Self, span: Self) -> u64;
}

/// How a level makes words of masks.
pub(crate) trait Level: Copy {
    /// Bit `i` is set if `values[i] - low <= span`, wrapping, unsigned.
    fn in_range<T: Bits>(self, values: &[T; 64], low: T, span: T) -> u64;
    /// Bit `i` is set if bit `codes[i]` of `set` is.
    fn in_set(self, codes: &[u8; 64], set: &[u64; 4]) -> u64;
    /// Bit `i` is set if `flags[i]` (0 or 1) is.
    fn pack(self, flags: &[u8; 64]) -> u64;
}

/// Runs a block compiled for a level, with the level's token in a variable.
macro_rules! run_level {
    ($isa:expr, $level:ident => $body:block) => {
        match $isa.usable() {
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Isa::Avx512 => {
                // SAFETY: `usable` returns this level only if the CPU has its features.
                let $level = unsafe { $crate::compare::bits::Avx512::new() };
                $crate::isa::Isa::Avx512.run(
                    #[inline(always)]
                    || $body,
                )
            }
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Isa::Avx2 => {
                // SAFETY: as above.
                let $level = unsafe { $crate::compare::bits::Avx2::new() };
                $crate::isa::Isa::Avx2.run(
                    #[inline(always)]
                    || $body,
                )
            }
            _ => {
                let $level = $crate::compare::bits::Scalar;
                $body
            }
        }
    };
}
pub(crate) use run_level;

/// The token of the lowest level.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

impl Level for Scalar {
    #[inline(always)]
    fn in_range<T: Bits>(self, values: &[T; 64], low: T, span: T) -> u64 {
        T::scalar(values, low, span)
    }

    #[inline(always)]
    fn in_set(self, codes: &[u8; 64], set: &[u64; 4]) -> u64 {
        let mut bits = 0;
        for (index, code) in codes.iter().enumerate() {
            bits |= (set[usize::from(*code) / 64] >> (code % 64) & 1) << index;
        }
        bits
    }

    #[inline(always)]
    fn pack(self, flags: &[u8; 64]) -> u64 {
        pack_bytes(flags)
    }
}

/// Eight flags become a byte by one multiplication: the product's top byte gathers them without carries.
#[inline(always)]
fn pack_bytes(flags: &[u8; 64]) -> u64 {
    let mut bits = 0;
    for (index, eight) in flags.chunks_exact(8).enumerate() {
        let mut word = [0; 8];
        word.copy_from_slice(eight);
        let gathered = u64::from_le_bytes(word).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        bits |= gathered << (8 * index);
    }
    bits
}

macro_rules! scalar {
    ($type:ty) => {
        #[inline(always)]
        fn scalar(values: &[$type; 64], low: $type, span: $type) -> u64 {
            let mut flags = [0u8; 64];
            for (flag, value) in flags.iter_mut().zip(values) {
                *flag = u8::from(value.wrapping_sub(low) <= span);
            }
            pack_bytes(&flags)
        }
    };
}

#[cfg(not(target_arch = "x86_64"))]
mod portable {
    use super::{Bits, pack_bytes};
    macro_rules! portable { ($($type:ty),*) => { $(impl Bits for $type { scalar!($type); })* }; }
    portable!(u8, u16, u32, u64);
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! x86: compares into mask registers (AVX-512) or sign bits (AVX2).
    use super::{Bits, Level, pack_bytes};
    use std::arch::x86_64::*;

    /// Proves AVX2.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(());

    /// Proves AVX-512 as [`crate::isa::Isa::Avx512`] has it.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(());

    impl Avx2 {
        /// # Safety
        /// The CPU has the features of `Isa::Avx2`.
        #[inline(always)]
        pub(crate) unsafe fn new() -> Self {
            Avx2(())
        }
    }

    impl Avx512 {
        /// # Safety
        /// The CPU has the features of `Isa::Avx512`.
        #[inline(always)]
        pub(crate) unsafe fn new() -> Self {
            Avx512(())
        }
    }

    impl Level for Avx2 {
        #[inline(always)]
        fn in_range<T: Bits>(self, values: &[T; 64], low: T, span: T) -> u64 {
            // SAFETY: the token proves AVX2.
            unsafe { T::avx2(values, low, span) }
        }

        #[inline(always)]
        fn in_set(self, codes: &[u8; 64], set: &[u64; 4]) -> u64 {
            // SAFETY: the token proves AVX2.
            unsafe { in_set_avx2(codes, set) }
        }

        #[inline(always)]
        fn pack(self, flags: &[u8; 64]) -> u64 {
            // SAFETY: the token proves AVX2.
            unsafe { pack_avx2(flags) }
        }
    }

    impl Level for Avx512 {
        #[inline(always)]
        fn in_range<T: Bits>(self, values: &[T; 64], low: T, span: T) -> u64 {
            // SAFETY: the token proves AVX-512.
            unsafe { T::avx512(values, low, span) }
        }

        #[inline(always)]
        fn in_set(self, codes: &[u8; 64], set: &[u64; 4]) -> u64 {
            // SAFETY: the token proves AVX-512.
            unsafe { in_set_avx512(codes, set) }
        }

        #[inline(always)]
        fn pack(self, flags: &[u8; 64]) -> u64 {
            // SAFETY: the token proves AVX-512.
            unsafe { pack_avx512(flags) }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn pack_avx2(flags: &[u8; 64]) -> u64 {
        // SAFETY: 64 bytes are read.
        let (a, b) = unsafe { (_mm256_loadu_si256(flags.as_ptr().cast()), _mm256_loadu_si256(flags.as_ptr().add(32).cast())) };
        // The lowest bit of each byte becomes its sign.
        let (a, b) = (_mm256_movemask_epi8(_mm256_slli_epi16(a, 7)), _mm256_movemask_epi8(_mm256_slli_epi16(b, 7)));
        u64::from(a.cast_unsigned()) | u64::from(b.cast_unsigned()) << 32
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn pack_avx512(flags: &[u8; 64]) -> u64 {
        // SAFETY: 64 bytes are read.
        let flags = unsafe { _mm512_loadu_si512(flags.as_ptr().cast()) };
        _mm512_test_epi8_mask(flags, flags)
    }

    /// The bit of each code within a byte of the set, as a byte.
    const BIT: i64 = 0x8040_2010_0804_0201_u64.cast_signed();

    #[inline]
    #[target_feature(enable = "avx2")]
    fn in_set_avx2(codes: &[u8; 64], set: &[u64; 4]) -> u64 {
        let set = set.map(u64::cast_signed);
        let (low, high) =
            (_mm256_setr_epi64x(set[0], set[1], set[0], set[1]), _mm256_setr_epi64x(set[2], set[3], set[2], set[3]));
        let mut bits = 0;
        for half in 0..2 {
            // SAFETY: 32 of the 64 bytes are read.
            let codes = unsafe { _mm256_loadu_si256(codes.as_ptr().add(32 * half).cast()) };
            let byte = _mm256_and_si256(_mm256_srli_epi16(codes, 3), _mm256_set1_epi8(31));
            // Bytes 0..16 of the set or bytes 16..32: the code's top bit says which.
            let found = _mm256_blendv_epi8(_mm256_shuffle_epi8(low, byte), _mm256_shuffle_epi8(high, byte), codes);
            let bit = _mm256_shuffle_epi8(_mm256_set1_epi64x(BIT), _mm256_and_si256(codes, _mm256_set1_epi8(7)));
            let member = _mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_and_si256(found, bit), bit));
            bits |= u64::from(member.cast_unsigned()) << (32 * half);
        }
        bits
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn in_set_avx512(codes: &[u8; 64], set: &[u64; 4]) -> u64 {
        let set = set.map(u64::cast_signed);
        let table = _mm512_setr_epi64(set[0], set[1], set[2], set[3], 0, 0, 0, 0);
        // SAFETY: 64 bytes are read.
        let codes = unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) };
        let byte = _mm512_and_si512(_mm512_srli_epi16(codes, 3), _mm512_set1_epi8(31));
        let bit = _mm512_shuffle_epi8(_mm512_set1_epi64(BIT), _mm512_and_si512(codes, _mm512_set1_epi8(7)));
        _mm512_test_epi8_mask(_mm512_permutexvar_epi8(byte, table), bit)
    }

    macro_rules! avx512 {
        ($type:ty, $lanes:literal, $set1:ident, $signed:ty, $sub:ident, $compare:ident) => {
            #[inline]
            #[target_feature(enable = "avx512f,avx512bw")]
            unsafe fn avx512(values: &[$type; 64], low: $type, span: $type) -> u64 {
                let (low, span) = ($set1(low as $signed), $set1(span as $signed));
                let mut bits = 0;
                for part in 0..64 / $lanes {
                    // SAFETY: `$lanes` of the 64 values are read.
                    let value = unsafe { _mm512_loadu_si512(values.as_ptr().add(part * $lanes).cast()) };
                    bits |= u64::from($compare($sub(value, low), span)) << (part * $lanes);
                }
                bits
            }
        };
    }

    macro_rules! load {
        ($values:ident, $at:expr) => {
            // SAFETY: the callers read within the 64 values.
            unsafe { _mm256_loadu_si256($values.as_ptr().add($at).cast()) }
        };
    }

    impl Bits for u8 {
        scalar!(u8);
        avx512!(u8, 64, _mm512_set1_epi8, i8, _mm512_sub_epi8, _mm512_cmple_epu8_mask);

        #[inline]
        #[target_feature(enable = "avx2")]
        unsafe fn avx2(values: &[u8; 64], low: u8, span: u8) -> u64 {
            let (low, span) = (_mm256_set1_epi8(low.cast_signed()), _mm256_set1_epi8(span.cast_signed()));
            let mut bits = 0;
            for part in 0..2 {
                let value = _mm256_sub_epi8(load!(values, part * 32), low);
                let within = _mm256_cmpeq_epi8(_mm256_min_epu8(value, span), value);
                bits |= u64::from(_mm256_movemask_epi8(within).cast_unsigned()) << (part * 32);
            }
            bits
        }
    }

    impl Bits for u16 {
        scalar!(u16);
        avx512!(u16, 32, _mm512_set1_epi16, i16, _mm512_sub_epi16, _mm512_cmple_epu16_mask);

        #[inline]
        #[target_feature(enable = "avx2")]
        unsafe fn avx2(values: &[u16; 64], low: u16, span: u16) -> u64 {
            let (low, span) = (_mm256_set1_epi16(low.cast_signed()), _mm256_set1_epi16(span.cast_signed()));
            let mut bits = 0;
            for part in 0..2 {
                let a = _mm256_sub_epi16(load!(values, part * 32), low);
                let b = _mm256_sub_epi16(load!(values, part * 32 + 16), low);
                let a = _mm256_cmpeq_epi16(_mm256_min_epu16(a, span), a);
                let b = _mm256_cmpeq_epi16(_mm256_min_epu16(b, span), b);
                // Packing interleaves the 128-bit halves of its operands: put them back in order.
                let both = _mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0b11_01_10_00);
                bits |= u64::from(_mm256_movemask_epi8(both).cast_unsigned()) << (part * 32);
            }
            bits
        }
    }

    impl Bits for u32 {
        scalar!(u32);
        avx512!(u32, 16, _mm512_set1_epi32, i32, _mm512_sub_epi32, _mm512_cmple_epu32_mask);

        #[inline]
        #[target_feature(enable = "avx2")]
        unsafe fn avx2(values: &[u32; 64], low: u32, span: u32) -> u64 {
            let (low, span) = (_mm256_set1_epi32(low.cast_signed()), _mm256_set1_epi32(span.cast_signed()));
            let mut bits = 0;
            for part in 0..8 {
                let value = _mm256_sub_epi32(load!(values, part * 8), low);
                let within = _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_min_epu32(value, span), value));
                bits |= u64::from(_mm256_movemask_ps(within).cast_unsigned()) << (part * 8);
            }
            bits
        }
    }

    impl Bits for u64 {
        scalar!(u64);
        avx512!(u64, 8, _mm512_set1_epi64, i64, _mm512_sub_epi64, _mm512_cmple_epu64_mask);

        #[inline]
        #[target_feature(enable = "avx2")]
        unsafe fn avx2(values: &[u64; 64], low: u64, span: u64) -> u64 {
            // AVX2 compares signed only: both sides are shifted by 2^63, the value by way of `low`.
            let low = _mm256_set1_epi64x(low.cast_signed().wrapping_sub(i64::MIN));
            let span = _mm256_set1_epi64x(span.cast_signed() ^ i64::MIN);
            let mut outside = 0;
            for part in 0..16 {
                let value = _mm256_sub_epi64(load!(values, part * 4), low);
                let above = _mm256_castsi256_pd(_mm256_cmpgt_epi64(value, span));
                outside |= u64::from(_mm256_movemask_pd(above).cast_unsigned()) << (part * 4);
            }
            !outside
        }
    }
}
