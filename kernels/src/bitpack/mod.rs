//! Bit-packing: blocks of 1024 unsigned values of one width, 0 to 64 bits, in interleaved lanes.
//!
//! ```text
//! width   lane type   lanes L   positions a lane
//!  0..=8     u8         128            8
//!  9..=16    u16         64           16
//! 17..=32    u32         32           32
//! 33..=64    u64         16           64
//!
//! value i is in lane i % L at position i / L: its lowest bit is bit (i / L) * width of the lane's bit string.
//! Word k of lane l is at word index k * L + l. A block is 128 * width bytes, little-endian, of any alignment.
//! ```
//!
//! So the 128 bytes at `k * 128` hold word `k` of all lanes, neighbouring values are in neighbouring lanes, and unpacking
//! a position is the same shift for a whole row of 128 bytes. Plain loops over rows vectorize at every level.
//! The layout is the idea of Afroozeh and Boncz, "The FastLanes Compression Layout", VLDB 2023, in natural order.

mod compare;
mod gather;
mod lane;
mod unpack;

pub use compare::{compare_packed, compare_packed_with, in_packed, in_packed_with};
pub use gather::{gather_i64, gather_u32, gather_u64, get};
pub use unpack::{
    unpack_i32, unpack_i32_with, unpack_i64, unpack_i64_with, unpack_u8, unpack_u8_with, unpack_u16, unpack_u16_with, unpack_u32,
    unpack_u32_with, unpack_u64, unpack_u64_with,
};

use lane::{Lane, LaneType};

/// Values in a packed block.
pub const BLOCK: usize = 1024;

/// Bytes of a packed block of this width.
#[inline]
pub const fn packed_block_bytes(width: usize) -> usize {
    128 * width
}

/// The width that values up to `max` need.
#[inline]
pub const fn width_of(max: u64) -> usize {
    64 - max.leading_zeros() as usize
}

/// Appends the packed block of `values` (at most 1024; missing ones are 0) to `out`. Bits above `width` are dropped.
pub fn pack(values: &[u64], width: usize, out: &mut Vec<u8>) {
    assert!(width <= 64, "width {width} is over 64");
    assert!(values.len() <= BLOCK, "a packed block holds 1024 values");
    match LaneType::of(width) {
        LaneType::None => {}
        LaneType::U8 => pack_lanes::<u8>(values, width, out),
        LaneType::U16 => pack_lanes::<u16>(values, width, out),
        LaneType::U32 => pack_lanes::<u32>(values, width, out),
        LaneType::U64 => pack_lanes::<u64>(values, width, out),
    }
}

fn pack_lanes<T: Lane>(values: &[u64], width: usize, out: &mut Vec<u8>) {
    let mut block = [0u64; BLOCK];
    block[..values.len()].copy_from_slice(values);
    let mut words = [T::default(); BLOCK];
    let low = T::low_bits(width);
    for position in 0..T::BITS {
        let (word, shift) = (position * width / T::BITS, position * width % T::BITS);
        let row = &block[position * T::LANES..][..T::LANES];
        for (into, value) in words[word * T::LANES..][..T::LANES].iter_mut().zip(row) {
            *into = *into | (T::truncate(*value) & low) << shift;
        }
        if shift + width > T::BITS {
            for (into, value) in words[(word + 1) * T::LANES..][..T::LANES].iter_mut().zip(row) {
                *into = *into | (T::truncate(*value) & low) >> (T::BITS - shift);
            }
        }
    }
    for word in &words[..width * T::LANES] {
        word.append_to(out);
    }
}
