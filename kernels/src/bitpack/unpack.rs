//! Unpacking whole blocks.

use super::lane::{Lane, LaneType, Target, row};
use super::{BLOCK, packed_block_bytes};
use crate::isa::{Isa, isa};

#[inline(always)]
fn unpack_lanes<T: Lane, O: Target<T>>(isa: Isa, packed: &[u8], width: usize, base: O, out: &mut [O; BLOCK]) {
    assert!(packed.len() >= packed_block_bytes(width) && width >= 1 && width <= T::BITS, "packed block too short");
    // Rows of 32-bit and 64-bit lanes are not faster with 256-bit vectors than at the lowest level.
    let level = match isa.usable() {
        Isa::Avx2 if T::BITS >= 32 => Isa::Scalar,
        level => level,
    };
    level.run(
        #[inline(always)]
        || {
            for position in 0..T::BITS {
                let into = &mut out[position * T::LANES..][..T::LANES];
                #[cfg(target_arch = "x86_64")]
                if level > Isa::Scalar {
                    let mut values = [T::default(); 32];
                    // SAFETY: as below; `level` is usable, and a row fits.
                    if unsafe { T::row_x86(packed.as_ptr(), width, position, level == Isa::Avx512, values.as_mut_ptr()) } {
                        into.iter_mut().zip(&values).for_each(|(into, value)| *into = O::widen(*value, base));
                        continue;
                    }
                }
                // SAFETY: the block is whole and the width fits, see the assertion; a row is `LANES` values.
                unsafe {
                    row::<T>(packed.as_ptr(), width, position, 0, T::LANES, |index, value| into[index] = O::widen(value, base));
                }
            }
        },
    );
}

/// Unpacks a block of at most 8 bits.
pub fn unpack_u8(packed: &[u8], width: usize, out: &mut [u8; BLOCK]) {
    unpack_u8_with(isa(), packed, width, out);
}

/// [`unpack_u8`] at a given level.
pub fn unpack_u8_with(isa: Isa, packed: &[u8], width: usize, out: &mut [u8; BLOCK]) {
    match LaneType::of(width) {
        LaneType::None => out.fill(0),
        LaneType::U8 => unpack_lanes::<u8, u8>(isa, packed, width, 0, out),
        _ => panic!("{width} bits do not fit u8"),
    }
}

/// Unpacks a block of at most 16 bits.
pub fn unpack_u16(packed: &[u8], width: usize, out: &mut [u16; BLOCK]) {
    unpack_u16_with(isa(), packed, width, out);
}

/// [`unpack_u16`] at a given level.
pub fn unpack_u16_with(isa: Isa, packed: &[u8], width: usize, out: &mut [u16; BLOCK]) {
    match LaneType::of(width) {
        LaneType::None => out.fill(0),
        LaneType::U8 => unpack_lanes::<u8, u16>(isa, packed, width, 0, out),
        LaneType::U16 => unpack_lanes::<u16, u16>(isa, packed, width, 0, out),
        _ => panic!("{width} bits do not fit u16"),
    }
}

/// Unpacks a block of at most 32 bits.
pub fn unpack_u32(packed: &[u8], width: usize, out: &mut [u32; BLOCK]) {
    unpack_u32_with(isa(), packed, width, out);
}

/// [`unpack_u32`] at a given level.
pub fn unpack_u32_with(isa: Isa, packed: &[u8], width: usize, out: &mut [u32; BLOCK]) {
    unpack_32(isa, packed, width, 0, out);
}

/// Unpacks a block of at most 32 bits to `base + value`, wrapping.
pub fn unpack_i32(packed: &[u8], width: usize, base: i32, out: &mut [i32; BLOCK]) {
    unpack_i32_with(isa(), packed, width, base, out);
}

/// [`unpack_i32`] at a given level.
pub fn unpack_i32_with(isa: Isa, packed: &[u8], width: usize, base: i32, out: &mut [i32; BLOCK]) {
    // SAFETY: u32 and i32 have the same layout and every bit pattern is valid for both.
    let out = unsafe { &mut *std::ptr::from_mut(out).cast::<[u32; BLOCK]>() };
    unpack_32(isa, packed, width, base.cast_unsigned(), out);
}

fn unpack_32(isa: Isa, packed: &[u8], width: usize, base: u32, out: &mut [u32; BLOCK]) {
    match LaneType::of(width) {
        LaneType::None => out.fill(base),
        LaneType::U8 => unpack_lanes::<u8, u32>(isa, packed, width, base, out),
        LaneType::U16 => unpack_lanes::<u16, u32>(isa, packed, width, base, out),
        LaneType::U32 => unpack_lanes::<u32, u32>(isa, packed, width, base, out),
        LaneType::U64 => panic!("{width} bits do not fit u32"),
    }
}

/// Unpacks a block.
pub fn unpack_u64(packed: &[u8], width: usize, out: &mut [u64; BLOCK]) {
    unpack_u64_with(isa(), packed, width, out);
}

/// [`unpack_u64`] at a given level.
pub fn unpack_u64_with(isa: Isa, packed: &[u8], width: usize, out: &mut [u64; BLOCK]) {
    unpack_64(isa, packed, width, 0, out);
}

/// Unpacks a block to `base + value`, wrapping.
pub fn unpack_i64(packed: &[u8], width: usize, base: i64, out: &mut [i64; BLOCK]) {
    unpack_i64_with(isa(), packed, width, base, out);
}

/// [`unpack_i64`] at a given level.
pub fn unpack_i64_with(isa: Isa, packed: &[u8], width: usize, base: i64, out: &mut [i64; BLOCK]) {
    // SAFETY: u64 and i64 have the same layout and every bit pattern is valid for both.
    let out = unsafe { &mut *std::ptr::from_mut(out).cast::<[u64; BLOCK]>() };
    unpack_64(isa, packed, width, base.cast_unsigned(), out);
}

fn unpack_64(isa: Isa, packed: &[u8], width: usize, base: u64, out: &mut [u64; BLOCK]) {
    assert!(width <= 64, "width {width} is over 64");
    match LaneType::of(width) {
        LaneType::None => out.fill(base),
        LaneType::U8 => unpack_lanes::<u8, u64>(isa, packed, width, base, out),
        LaneType::U16 => unpack_lanes::<u16, u64>(isa, packed, width, base, out),
        LaneType::U32 => unpack_lanes::<u32, u64>(isa, packed, width, base, out),
        LaneType::U64 => unpack_lanes::<u64, u64>(isa, packed, width, base, out),
    }
}
