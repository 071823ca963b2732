//! Predicates on packed blocks: a word of the mask at a time, 64 values are unpacked to registers or the stack, compared,
//! and forgotten.

use super::lane::{Lane, LaneType, row};
use super::{BLOCK, packed_block_bytes, width_of};
use crate::compare::bits::{Bits, Level};
use crate::isa::{Isa, isa};

/// Words of the mask of a block.
const WORDS: usize = BLOCK / 64;

/// Unpacks the 64 values of a word of the mask.
///
/// # Safety
/// `packed` points to a whole block of `width` bits, `width` is in `1..=T::BITS`, and the CPU has the level.
#[inline(always)]
unsafe fn unpack_word<T: Lane>(level: Isa, packed: *const u8, width: usize, word: usize, out: &mut [T; 64]) {
    let chunk = T::LANES.min(64);
    for part in 0..64 / chunk {
        let first = word * 64 + part * chunk;
        #[cfg(target_arch = "x86_64")]
        if level > Isa::Scalar {
            // SAFETY: the CPU has the level, and a row of the lanes that have vectors of their own is `chunk` values.
            let done = unsafe {
                let into = out.as_mut_ptr().add(part * chunk);
                T::row_x86(packed, width, first / T::LANES, level == Isa::Avx512, into)
            };
            if done {
                continue;
            }
        }
        let into = &mut out[part * chunk..][..chunk];
        // SAFETY: `chunk` values from the lane of the first one are within a row.
        unsafe { row::<T>(packed, width, first / T::LANES, first % T::LANES, chunk, |index, value| into[index] = value) };
    }
}

/// Sets the bit of each value of the block that is at least `low` and at most `high`, unsigned, and clears the others.
pub fn compare_packed(packed: &[u8], width: usize, low: u64, high: u64, mask: &mut [u64; WORDS]) {
    compare_packed_with(isa(), packed, width, low, high, mask);
}

/// [`compare_packed`] at a given level.
pub fn compare_packed_with(isa: Isa, packed: &[u8], width: usize, low: u64, high: u64, mask: &mut [u64; WORDS]) {
    assert!(width <= 64 && packed.len() >= packed_block_bytes(width), "packed block too short");
    let max = if width == 0 { 0 } else { u64::MAX >> (64 - width) };
    if low > high || low > max {
        return mask.fill(0);
    }
    let high = high.min(max);
    if low == 0 && high == max {
        return mask.fill(u64::MAX);
    }
    match LaneType::of(width) {
        LaneType::None => mask.fill(u64::MAX),
        LaneType::U8 => compare_lanes::<u8>(isa, packed, width, low, high, mask),
        LaneType::U16 => compare_lanes::<u16>(isa, packed, width, low, high, mask),
        LaneType::U32 => compare_lanes::<u32>(isa, packed, width, low, high, mask),
        LaneType::U64 => compare_lanes::<u64>(isa, packed, width, low, high, mask),
    }
}

fn compare_lanes<T: Lane + Bits>(isa: Isa, packed: &[u8], width: usize, low: u64, high: u64, mask: &mut [u64; WORDS]) {
    let (low, span) = (T::truncate(low), T::truncate(high - low));
    let usable = isa.usable();
    crate::compare::bits::run_level!(usable, level => {
        for (word, into) in mask.iter_mut().enumerate() {
            let mut values = [T::default(); 64];
            // SAFETY: `compare_packed_with` checked the block and chose the lane type of the width.
            unsafe { unpack_word::<T>(usable, packed.as_ptr(), width, word, &mut values) };
            *into = level.in_range(&values, low, span);
        }
    });
}

/// Sets the bit of each value of the block whose bit is set in `set` (a value past the end of `set` is not in it), and
/// clears the others. Meant for dictionary codes: a predicate is evaluated once for each entry, then looked up by code.
pub fn in_packed(packed: &[u8], width: usize, set: &[u64], mask: &mut [u64; WORDS]) {
    in_packed_with(isa(), packed, width, set, mask);
}

/// [`in_packed`] at a given level.
pub fn in_packed_with(isa: Isa, packed: &[u8], width: usize, set: &[u64], mask: &mut [u64; WORDS]) {
    assert!(width <= 64 && packed.len() >= packed_block_bytes(width), "packed block too short");
    if let Some((low, high)) = single_run(set) {
        return compare_packed_with(isa, packed, width, low, high, mask);
    }
    match LaneType::of(width) {
        LaneType::None => mask.fill(if set.first().is_some_and(|word| word & 1 != 0) { u64::MAX } else { 0 }),
        LaneType::U8 => in_bytes(isa, packed, width, set, mask),
        LaneType::U16 => in_lanes::<u16>(isa, packed, width, set, mask),
        LaneType::U32 => in_lanes::<u32>(isa, packed, width, set, mask),
        LaneType::U64 => in_lanes::<u64>(isa, packed, width, set, mask),
    }
}

/// The first and the last member, if all between them are members; an empty set is the empty range 1..=0.
fn single_run(set: &[u64]) -> Option<(u64, u64)> {
    let Some(first_word) = set.iter().position(|word| *word != 0) else {
        return Some((1, 0));
    };
    let last_word = set.iter().rposition(|word| *word != 0)?;
    let first = first_word * 64 + set[first_word].trailing_zeros() as usize;
    let last = last_word * 64 + width_of(set[last_word]) - 1;
    let members = set[first_word..=last_word].iter().map(|word| word.count_ones() as usize).sum::<usize>();
    (members == last - first + 1).then_some((first as u64, last as u64))
}

fn in_bytes(isa: Isa, packed: &[u8], width: usize, set: &[u64], mask: &mut [u64; WORDS]) {
    let mut table = [0u64; 4];
    let used = set.len().min(4);
    table[..used].copy_from_slice(&set[..used]);
    let usable = isa.usable();
    crate::compare::bits::run_level!(usable, level => {
        for (word, into) in mask.iter_mut().enumerate() {
            let mut values = [0u8; 64];
            // SAFETY: `in_packed_with` checked the block, and the width is at most 8.
            unsafe { unpack_word::<u8>(usable, packed.as_ptr(), width, word, &mut values) };
            *into = level.in_set(&values, &table);
        }
    });
}

#[inline(always)]
fn in_lanes<T: Lane>(isa: Isa, packed: &[u8], width: usize, set: &[u64], mask: &mut [u64; WORDS]) {
    let usable = isa.usable();
    usable.run(
        #[inline(always)]
        || {
            for (word, into) in mask.iter_mut().enumerate() {
                let mut values = [T::default(); 64];
                // SAFETY: `in_packed_with` checked the block and chose the lane type of the width.
                unsafe { unpack_word::<T>(usable, packed.as_ptr(), width, word, &mut values) };
                let mut bits = 0;
                for (index, value) in values.iter().enumerate() {
                    let value: u64 = (*value).into();
                    let member = set.get((value / 64) as usize).map_or(0, |word| word >> (value % 64) & 1);
                    bits |= member << index;
                }
                *into = bits;
            }
        },
    );
}
