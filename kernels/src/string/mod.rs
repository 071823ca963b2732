//! Strings: prefixes, substrings and LIKE patterns, on bytes of UTF-8.
//!
//! A substring is searched by the first and the last byte of the needle at once, a vector of places at a time; only places
//! where both match are compared in full. The level is chosen once for a whole column, not for each string.

mod find;
mod like;

pub use find::{contains, contains_with, find, find_with};
pub use like::Like;

use crate::mask::words;

/// Sets the bits of the strings that start with `prefix`. String `i` is `data[offsets[i]..offsets[i + 1]]`.
pub fn prefix(offsets: &[u32], data: &[u8], prefix: &[u8], mask: &mut [u64]) {
    each(offsets, data, mask, |text| text.starts_with(prefix));
}

/// The strings of offsets and data, each tested, into a mask. Offsets that are not within the data read as empty strings.
#[inline(always)]
fn each(offsets: &[u32], data: &[u8], mask: &mut [u64], test: impl Fn(&[u8]) -> bool) {
    let rows = offsets.len().saturating_sub(1);
    assert!(mask.len() >= words(rows), "mask too short");
    mask.fill(0);
    for (row, pair) in offsets.windows(2).enumerate() {
        let text = data.get(pair[0] as usize..pair[1] as usize).unwrap_or_default();
        mask[row / 64] |= u64::from(test(text)) << (row % 64);
    }
}
