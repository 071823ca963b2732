//! The lane types of packed blocks.

use std::ops::{BitAnd, BitOr, Shl, Shr};

/// Which integer the lanes of a width are made of.
#[derive(Clone, Copy)]
pub(super) enum LaneType {
    None,
    U8,
    U16,
    U32,
    U64,
}

impl LaneType {
    #[inline(always)]
    pub(super) fn of(width: usize) -> LaneType {
        match width {
            0 => LaneType::None,
            1..=8 => LaneType::U8,
            9..=16 => LaneType::U16,
            17..=32 => LaneType::U32,
            _ => LaneType::U64,
        }
    }
}

/// An integer that lanes are made of.
pub(crate) trait Lane:
    Copy
    + Default
    + PartialOrd
    + BitAnd<Output = Self>
    + BitOr<Output = Self>
    + Shl<usize, Output = Self>
    + Shr<usize, Output = Self>
    + Into<u64>
{
    /// Bits of a word; also the positions of a lane.
    const BITS: usize;
    /// Lanes of a block.
    const LANES: usize = 1024 / Self::BITS;

    /// The low bits of `value`.
    fn truncate(value: u64) -> Self;
    /// A word with its `width` (1 or more) lowest bits set.
    #[inline(always)]
    fn low_bits(width: usize) -> Self {
        Self::truncate(u64::MAX >> (64 - width))
    }
    /// The word at `index` of a little-endian sequence.
    ///
    /// # Safety
    /// `packed` points to at least `index + 1` words.
    unsafe fn load(packed: *const u8, index: usize) -> Self;
    /// Unpacks a row of 32-bit or 64-bit lanes with 512-bit (or else 256-bit) vectors; false if this type needs no such
    /// help, because LLVM vectorizes its rows. Rows of 16 or 32 lanes it unrolls first, and then shifts one by one.
    ///
    /// # Safety
    /// As [`row`]; the CPU has AVX-512 (or AVX2).
    #[cfg(target_arch = "x86_64")]
    unsafe fn row_x86(_packed: *const u8, _width: usize, _position: usize, _wide: bool, _out: *mut Self) -> bool {
        false
    }
    /// Appends the word, little-endian.
    fn append_to(self, out: &mut Vec<u8>);
}

macro_rules! lane {
    ($($type:ty $(, $avx2:ident, $avx512:ident)?;)*) => { $(
        impl Lane for $type {
            $(
                #[cfg(target_arch = "x86_64")]
                #[inline(always)]
                unsafe fn row_x86(packed: *const u8, width: usize, position: usize, wide: bool, out: *mut Self) -> bool {
                    // SAFETY: what the caller promises.
                    unsafe {
                        if wide {
                            x86::$avx512(packed, width, position, out);
                        } else {
                            x86::$avx2(packed, width, position, out);
                        }
                    }
                    true
                }
            )?
            const BITS: usize = <$type>::BITS as usize;
            #[inline(always)]
            fn truncate(value: u64) -> Self {
                value as $type
            }
            #[inline(always)]
            unsafe fn load(packed: *const u8, index: usize) -> Self {
                // SAFETY: the caller proves that the word is there; it may be unaligned.
                unsafe { <$type>::from_le(packed.cast::<$type>().add(index).read_unaligned()) }
            }
            #[inline(always)]
            fn append_to(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    )* };
}

lane! {
    u8;
    u16;
    u32, avx2_u32, avx512_u32;
    u64, avx2_u64, avx512_u64;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! Rows of 32-bit and 64-bit lanes: two words, two shifts by counts in registers, and one mask. A value that is in
    //! one word reads a second one all the same, whose bits the mask cuts off.
    use super::Lane;
    use std::arch::x86_64::*;

    macro_rules! rows {
        ($name:ident, $type:ty, $features:literal, $bytes:literal, $load:ident, $store:ident, $and:ident, $or:ident,
         $right:ident, $left:ident, $set1:ident, $signed:ty) => {
            /// # Safety
            /// As `Lane::row_x86`.
            #[inline]
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name(packed: *const u8, width: usize, position: usize, out: *mut $type) {
                let (word, shift) = (position * width / <$type>::BITS as usize, position * width % <$type>::BITS as usize);
                let next = (word + 1).min(width - 1);
                let right = _mm_cvtsi64_si128(shift as i64);
                // A shift by all bits or more gives 0.
                let left = _mm_cvtsi64_si128(<$type>::BITS as i64 - shift as i64);
                let low = $set1(<$type as Lane>::low_bits(width) as $signed);
                for part in 0..128 / $bytes {
                    // SAFETY: both words are below `width`; a row of words and a row of values are 128 bytes.
                    unsafe {
                        let first = $right($load(packed.add(word * 128 + part * $bytes).cast()), right);
                        let second = $left($load(packed.add(next * 128 + part * $bytes).cast()), left);
                        $store(out.cast::<u8>().add(part * $bytes).cast(), $and($or(first, second), low));
                    }
                }
            }
        };
    }

    rows!(
        avx512_u32,
        u32,
        "avx512f",
        64,
        _mm512_loadu_si512,
        _mm512_storeu_si512,
        _mm512_and_si512,
        _mm512_or_si512,
        _mm512_srl_epi32,
        _mm512_sll_epi32,
        _mm512_set1_epi32,
        i32
    );
    rows!(
        avx512_u64,
        u64,
        "avx512f",
        64,
        _mm512_loadu_si512,
        _mm512_storeu_si512,
        _mm512_and_si512,
        _mm512_or_si512,
        _mm512_srl_epi64,
        _mm512_sll_epi64,
        _mm512_set1_epi64,
        i64
    );
    rows!(
        avx2_u32,
        u32,
        "avx2",
        32,
        _mm256_loadu_si256,
        _mm256_storeu_si256,
        _mm256_and_si256,
        _mm256_or_si256,
        _mm256_srl_epi32,
        _mm256_sll_epi32,
        _mm256_set1_epi32,
        i32
    );
    rows!(
        avx2_u64,
        u64,
        "avx2",
        32,
        _mm256_loadu_si256,
        _mm256_storeu_si256,
        _mm256_and_si256,
        _mm256_or_si256,
        _mm256_srl_epi64,
        _mm256_sll_epi64,
        _mm256_set1_epi64x,
        i64
    );
}

/// What a packed block is unpacked to: the unsigned integers, of the lane's size or wider.
pub(crate) trait Target<T: Lane>: Copy {
    /// `value + base`, wrapping.
    fn widen(value: T, base: Self) -> Self;
}

macro_rules! target {
    ($($target:ty: $($lane:ty)*;)*) => { $($(
        impl Target<$lane> for $target {
            #[inline(always)]
            fn widen(value: $lane, base: Self) -> Self {
                <$target>::from(value).wrapping_add(base)
            }
        }
    )*)* };
}

target! {
    u8: u8;
    u16: u8 u16;
    u32: u8 u16 u32;
    u64: u8 u16 u32 u64;
}

/// Calls `put` with the index and the value of each of the `count` values that start at `lane` of the row of `position`.
///
/// # Safety
/// `packed` points to a whole block of `width` bits, `width` is in `1..=T::BITS`, and `lane + count <= T::LANES`.
#[inline(always)]
pub(super) unsafe fn row<T: Lane>(
    packed: *const u8,
    width: usize,
    position: usize,
    lane: usize,
    count: usize,
    mut put: impl FnMut(usize, T),
) {
    let (word, shift) = (position * width / T::BITS, position * width % T::BITS);
    let (at, low) = (word * T::LANES + lane, T::low_bits(width));
    // SAFETY: `word` and, when the value straddles two words, `word + 1` are below `width`, so the words are in the block.
    unsafe {
        if shift + width <= T::BITS {
            for index in 0..count {
                put(index, T::load(packed, at + index) >> shift & low);
            }
        } else {
            for index in 0..count {
                let (first, second) = (T::load(packed, at + index), T::load(packed, at + T::LANES + index));
                put(index, (first >> shift | second << (T::BITS - shift)) & low);
            }
        }
    }
}
