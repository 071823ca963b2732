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
    /// Appends the word, little-endian.
    fn append_to(self, out: &mut Vec<u8>);
}

macro_rules! lane {
    ($($type:ty),*) => { $(
        impl Lane for $type {
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

lane!(u8, u16, u32, u64);

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
