//! Single values of a packed block.

use super::lane::{Lane, LaneType};
use super::packed_block_bytes;

#[inline(always)]
fn check(packed: &[u8], width: usize) {
    assert!(width <= 64 && packed.len() >= packed_block_bytes(width), "packed block too short");
}

/// Value `index % 1024` of a packed block.
#[inline]
pub fn get(packed: &[u8], width: usize, index: usize) -> u64 {
    check(packed, width);
    // SAFETY: the block is whole; the width belongs to the lane type.
    unsafe {
        match LaneType::of(width) {
            LaneType::None => 0,
            LaneType::U8 => value::<u8>(packed.as_ptr(), width, index),
            LaneType::U16 => value::<u16>(packed.as_ptr(), width, index),
            LaneType::U32 => value::<u32>(packed.as_ptr(), width, index),
            LaneType::U64 => value::<u64>(packed.as_ptr(), width, index),
        }
    }
}

/// # Safety
/// `packed` points to a whole block of `width` bits and `width` is in `1..=T::BITS`.
#[inline(always)]
unsafe fn value<T: Lane>(packed: *const u8, width: usize, index: usize) -> u64 {
    let (lane, position) = (index % T::LANES, index % super::BLOCK / T::LANES);
    let (word, shift) = (position * width / T::BITS, position * width % T::BITS);
    // A value in one word reads a second word all the same (of the block, clamped): its bits are cut off below.
    let next = (word + 1).min(width - 1);
    // SAFETY: both words are below `width` and the lane is below `LANES`.
    let (first, second) = unsafe { (T::load(packed, word * T::LANES + lane), T::load(packed, next * T::LANES + lane)) };
    // Two shifts, as `BITS - shift` is out of range for a shift of 0.
    ((first >> shift | second << 1 << (T::BITS - 1 - shift)) & T::low_bits(width)).into()
}

#[inline(always)]
fn gather<O>(packed: &[u8], width: usize, selection: &[u32], out: &mut [O], convert: impl Fn(u64) -> O + Copy) {
    check(packed, width);
    assert_eq!(selection.len(), out.len(), "one value for each selected row");
    #[inline(always)]
    fn run<T: Lane, O>(packed: &[u8], width: usize, selection: &[u32], out: &mut [O], convert: impl Fn(u64) -> O) {
        for (into, index) in out.iter_mut().zip(selection) {
            // SAFETY: the caller checked that the block is whole and chose the lane type of the width.
            *into = convert(unsafe { value::<T>(packed.as_ptr(), width, *index as usize) });
        }
    }
    match LaneType::of(width) {
        LaneType::None => out.iter_mut().for_each(|into| *into = convert(0)),
        LaneType::U8 => run::<u8, O>(packed, width, selection, out, convert),
        LaneType::U16 => run::<u16, O>(packed, width, selection, out, convert),
        LaneType::U32 => run::<u32, O>(packed, width, selection, out, convert),
        LaneType::U64 => run::<u64, O>(packed, width, selection, out, convert),
    }
}

/// The values at the given rows of a block (each modulo 1024).
pub fn gather_u64(packed: &[u8], width: usize, selection: &[u32], out: &mut [u64]) {
    gather(packed, width, selection, out, |value| value);
}

/// The values at the given rows of a block (each modulo 1024) plus `base`, wrapping.
pub fn gather_i64(packed: &[u8], width: usize, base: i64, selection: &[u32], out: &mut [i64]) {
    gather(packed, width, selection, out, |value| base.wrapping_add(value.cast_signed()));
}

/// The values at the given rows of a block (each modulo 1024), whose width is at most 32.
pub fn gather_u32(packed: &[u8], width: usize, selection: &[u32], out: &mut [u32]) {
    assert!(width <= 32, "{width} bits do not fit u32");
    gather(packed, width, selection, out, |value| value as u32);
}
