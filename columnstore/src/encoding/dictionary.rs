//! Distinct values and bit-packed codes.
//!
//! ```text
//! dictionary = entries:child codes:packed        every base of the codes is 0
//! child      = tag:u8 rows:u32 length:u32 padding to a multiple of 16, a blob without NULLs
//! ```
//! Entries are sorted, so that a range of values is a range of codes. The code of a NULL row is its predecessor's.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, DictionaryArray, UInt32Array};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, UInt32Type};
use hashbrown::HashMap;

use super::condition::Kind;
use super::entries::{self, EntrySet, Shape};
use super::layout::{self, Reader};
use super::packed::{self, PackedBlocks};
use super::span;
use super::values::Keys;
use super::width::{PACKED, WORDS};
use super::{Encoded, estimate};
use crate::Result;

/// A dictionary column.
#[derive(Debug)]
pub(super) struct Dictionary {
    entries: ArrayRef,
    how: String,
    codes: PackedBlocks,
}

/// Distinct values of a column, sorted, and the code of every row.
pub(super) struct Distinct {
    /// A row that has the value, for each value.
    pub(super) rows: Vec<u32>,
    /// The values' order among each other is the codes'.
    pub(super) codes: Vec<u64>,
}

/// Finds the distinct values; `None` if there are more than `limit`.
pub(super) fn distinct(keys: &Keys<'_>, limit: usize) -> Option<Distinct> {
    match keys {
        Keys::Narrow(values) => distinct_of(values, limit),
        Keys::Wide(values) => distinct_of(values, limit),
        Keys::Bytes(values) => distinct_of(values, limit),
    }
}

fn distinct_of<T: Copy + Ord + std::hash::Hash>(values: &[T], limit: usize) -> Option<Distinct> {
    let mut map: HashMap<T, u32> = HashMap::new();
    let mut rows = Vec::new();
    let mut codes = Vec::with_capacity(values.len());
    let mut last: Option<(T, u32)> = None;
    for (row, &value) in values.iter().enumerate() {
        if let Some((_, code)) = last.filter(|(same, _)| *same == value) {
            codes.push(u64::from(code));
            continue;
        }
        let code = *map.entry(value).or_insert_with(|| {
            rows.push(row as u32);
            rows.len() as u32 - 1
        });
        if rows.len() > limit {
            return None;
        }
        last = Some((value, code));
        codes.push(u64::from(code));
    }
    let mut order: Vec<u32> = (0..rows.len() as u32).collect();
    order.sort_unstable_by_key(|&code| values[rows[code as usize] as usize]);
    let mut rank = vec![0u64; rows.len()];
    order.iter().enumerate().for_each(|(new, &old)| rank[old as usize] = new as u64);
    codes.iter_mut().for_each(|code| *code = rank[*code as usize]);
    Some(Distinct { rows: order.iter().map(|&old| rows[old as usize]).collect(), codes })
}

/// The entries of a column as a blob.
pub(super) fn encode_entries(array: &ArrayRef, rows: &[u32]) -> Result<Encoded> {
    // NULL rows before the first value stand for it.
    let first = array.nulls().and_then(|nulls| nulls.valid_indices().next()).map_or(0, |row| row as u32);
    let rows: Vec<u32> = rows.iter().map(|&row| if array.is_null(row as usize) { first } else { row }).collect();
    estimate::encode_entries(&arrow::compute::take(array, &UInt32Array::from(rows), None)?)
}

/// Bytes that [`write`] takes.
pub(super) fn size(entries: &Encoded, distinct: &Distinct) -> usize {
    24 + entries.bytes.len() + packed::size(&distinct.codes, false)
}

/// Writes the payload.
pub(super) fn write(entries: &Encoded, distinct: &Distinct, out: &mut Vec<u8>) -> Result<()> {
    layout::child(out, entries.encoding, distinct.rows.len(), &entries.bytes)?;
    packed::write(&distinct.codes, false, out);
    Ok(())
}

impl Dictionary {
    /// Reads and checks the payload, every code included.
    pub(super) fn open(reader: &mut Reader, ty: &DataType, rows: usize) -> std::result::Result<Self, String> {
        let (entries, how) = entries::open(reader, ty)?;
        let codes = PackedBlocks::open(reader, rows)?;
        let mut within = [0; WORDS];
        for block in 0..codes.blocks() {
            if codes.base(block) != 0 {
                return Err("codes with a base".into());
            }
            let rows = (rows - block * PACKED).min(PACKED);
            let last = (entries.len() as u64).checked_sub(1).ok_or("no entries")?;
            codes.range(block, 0, last, &mut within);
            stoa_kernels::mask::clear_tail(&mut within[..rows.div_ceil(64)], rows);
            if !stoa_kernels::mask::all(&within[..rows.div_ceil(64)], rows) {
                return Err("a code past the dictionary's end".into());
            }
        }
        Ok(Dictionary { entries, how, codes })
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        format!("{} entries {}, codes {}", self.entries.len(), self.how, self.codes.describe())
    }

    /// The entries.
    pub(super) fn entries(&self) -> &ArrayRef {
        &self.entries
    }

    /// Reads rows.
    pub(super) fn read(
        &self,
        kind: Kind,
        first_row: usize,
        rows: usize,
        selection: Option<&[u32]>,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef> {
        let get = |block: usize, picks: &[u32], out: &mut Vec<u32>| {
            self.codes.gather(block, picks, |code| out.push(code as u32));
        };
        let codes = span::collect(first_row, rows, selection, |block, out| self.codes.decode_u32(block, out), Some(&get));
        if kind == Kind::Utf8 {
            return Ok(dictionary_array(codes, &self.entries, nulls));
        }
        entries::gather(&self.entries, kind, &codes, nulls)
    }

    /// Which rows of a block have an entry of the set.
    pub(super) fn mask(&self, set: &EntrySet, block: usize, out: &mut [u64; WORDS]) {
        match set.shape {
            Shape::Nothing => *out = [0; WORDS],
            Shape::Everything => *out = [u64::MAX; WORDS],
            Shape::Range(low, high) => self.codes.range(block, low, high, out),
            Shape::Outside(low, high) => {
                self.codes.range(block, low, high, out);
                out.iter_mut().for_each(|word| *word = !*word);
            }
            Shape::Scattered => self.codes.members(block, &set.bits, out),
        }
    }
}

/// A dictionary array over shared entries. Every code is below their number.
pub(super) fn dictionary_array(codes: Vec<u32>, entries: &ArrayRef, nulls: Option<NullBuffer>) -> ArrayRef {
    let keys = UInt32Array::new(ScalarBuffer::from(codes), nulls);
    // SAFETY: `open` checked that every code is below the number of entries; a constant column has code 0 and one entry.
    Arc::new(unsafe { DictionaryArray::<UInt32Type>::new_unchecked(keys, entries.clone()) })
}
