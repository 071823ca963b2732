//! What joins need: keys looked up in dense tables and bit sets.

use crate::isa::{Isa, isa};
use crate::mask::words;

/// The value of a table that stands for no entry.
pub const NONE: u32 = u32::MAX;

/// An integer key; its distance from a base is taken modulo 2^64.
pub trait Key: Copy {
    /// `self - base`, wrapping: a large number if the key is below the base.
    fn distance(self, base: i64) -> u64;
}

macro_rules! key {
    ($($type:ty),*) => { $(
        impl Key for $type {
            #[inline(always)]
            fn distance(self, base: i64) -> u64 {
                (self as u64).wrapping_sub(base.cast_unsigned())
            }
        }
    )* };
}

key!(i8, u8, i16, u16, i32, u32, i64, u64);

/// Looks keys up in a dense table: for each row `i` whose `table[keys[i] - base]` exists and is not [`NONE`], in order,
/// appends `i` to `rows` and the entry to `values`.
pub fn dense_lookup<K: Key>(keys: &[K], base: i64, table: &[u32], rows: &mut Vec<u32>, values: &mut Vec<u32>) {
    let (first_row, first_value) = (rows.len(), values.len());
    rows.resize(first_row + keys.len(), 0);
    values.resize(first_value + keys.len(), 0);
    let mut count = 0;
    let (out_rows, out_values) = (&mut rows[first_row..], &mut values[first_value..]);
    for (row, key) in keys.iter().enumerate() {
        let distance = key.distance(base);
        let entry = if distance < table.len() as u64 { table[distance as usize] } else { NONE };
        // `count` never passes `row`.
        out_rows[count] = row as u32;
        out_values[count] = entry;
        count += usize::from(entry != NONE);
    }
    rows.truncate(first_row + count);
    values.truncate(first_value + count);
}

/// Looks keys up in a dense table: `out[i] = table[keys[i] - base]`, or [`NONE`] if that is out of range.
pub fn dense_entries<K: Key>(keys: &[K], base: i64, table: &[u32], out: &mut [u32]) {
    assert_eq!(keys.len(), out.len(), "one entry for each key");
    for (entry, key) in out.iter_mut().zip(keys) {
        let distance = key.distance(base);
        *entry = if distance < table.len() as u64 { table[distance as usize] } else { NONE };
    }
}

/// Clears the bits of `mask` whose key is not in the set: `keys[i]` is in it if bit `keys[i] - base` of `bits` is set.
/// Words of the mask that are 0 cost nothing.
pub fn bitset_probe<K: Key>(keys: &[K], base: i64, bits: &[u64], mask: &mut [u64]) {
    bitset_probe_with(isa(), keys, base, bits, mask);
}

/// [`bitset_probe`] at a given level.
pub fn bitset_probe_with<K: Key>(isa: Isa, keys: &[K], base: i64, bits: &[u64], mask: &mut [u64]) {
    assert!(mask.len() >= words(keys.len()), "mask too short");
    isa.run(
        #[inline(always)]
        || {
            for (word, keys) in mask.iter_mut().zip(keys.chunks(64)) {
                match word.count_ones() {
                    0 => {}
                    1..=24 => *word = probe_sparse(*word, keys, base, bits),
                    _ => *word &= probe_all(keys, base, bits),
                }
            }
        },
    );
}

#[inline(always)]
fn member<K: Key>(key: K, base: i64, bits: &[u64]) -> u64 {
    let distance = key.distance(base);
    if distance < 64 * bits.len() as u64 { bits[(distance / 64) as usize] >> (distance % 64) & 1 } else { 0 }
}

#[inline(always)]
fn probe_all<K: Key>(keys: &[K], base: i64, bits: &[u64]) -> u64 {
    let mut found = 0;
    for (index, key) in keys.iter().enumerate() {
        found |= member(*key, base, bits) << index;
    }
    found
}

#[inline(always)]
fn probe_sparse<K: Key>(word: u64, keys: &[K], base: i64, bits: &[u64]) -> u64 {
    let (mut rest, mut found) = (word, 0);
    while rest != 0 {
        let index = rest.trailing_zeros();
        rest &= rest - 1;
        if let Some(key) = keys.get(index as usize) {
            found |= member(*key, base, bits) << index;
        }
    }
    found
}

/// Adds keys to a set as [`bitset_probe`] reads it; returns whether all of them were in its range.
pub fn bitset_insert<K: Key>(keys: &[K], base: i64, bits: &mut [u64]) -> bool {
    let mut all = true;
    for key in keys {
        let distance = key.distance(base);
        match bits.get_mut((distance / 64) as usize) {
            Some(word) => *word |= 1 << (distance % 64),
            None => all = false,
        }
    }
    all
}
