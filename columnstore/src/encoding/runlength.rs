//! Runs of equal values.
//!
//! ```text
//! runlength = entries:child, one for each run, ends:packed, as many
//! ```
//! `ends[i]` is the row after run i; the last is the number of rows. NULL rows prolong the run that they are in.

use arrow::array::{Array, ArrayRef};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;

use super::condition::Kind;
use super::entries::{self, EntrySet};
use super::layout::{self, Reader};
use super::packed::{self, PackedBlocks};
use super::span;
use super::values::Keys;
use super::width::{PACKED, WORDS};
use super::{Encoded, estimate};
use crate::Result;

/// A run-length column.
#[derive(Debug)]
pub(super) struct RunLength {
    entries: ArrayRef,
    how: String,
    ends: Vec<u32>,
}

/// The rows at which runs end.
pub(super) fn ends(keys: &Keys<'_>) -> Vec<u64> {
    fn of<T: PartialEq>(values: &[T]) -> Vec<u64> {
        let mut end = 0;
        values
            .chunk_by(|a, b| a == b)
            .map(|run| {
                end += run.len() as u64;
                end
            })
            .collect()
    }
    match keys {
        Keys::Narrow(values) => of(values),
        Keys::Wide(values) => of(values),
        Keys::Bytes(values) => of(values),
    }
}

/// A row of each run, one that is not NULL where there is one.
pub(super) fn rows(array: &ArrayRef, ends: &[u64]) -> Vec<u32> {
    let mut start = 0;
    ends.iter()
        .map(|&end| {
            let row = (start..end as u32).find(|&row| array.is_valid(row as usize)).unwrap_or(start);
            start = end as u32;
            row
        })
        .collect()
}

/// The values of the runs as a blob.
pub(super) fn encode_entries(array: &ArrayRef, ends: &[u64]) -> Result<Encoded> {
    let rows = arrow::array::UInt32Array::from(rows(array, ends));
    estimate::encode_entries(&arrow::compute::take(array, &rows, None)?)
}

/// Bytes that [`write`] takes.
pub(super) fn size(entries: &Encoded, ends: &[u64]) -> usize {
    24 + entries.bytes.len() + packed::size(ends, true)
}

/// Writes the payload.
pub(super) fn write(entries: &Encoded, ends: &[u64], out: &mut Vec<u8>) -> Result<()> {
    layout::child(out, entries.encoding, ends.len(), &entries.bytes)?;
    packed::write(ends, true, out);
    Ok(())
}

impl RunLength {
    /// Reads and checks the payload.
    pub(super) fn open(reader: &mut Reader, ty: &DataType, rows: usize) -> std::result::Result<Self, String> {
        let (entries, how) = entries::open(reader, ty)?;
        let packed = PackedBlocks::open(reader, entries.len())?;
        let mut ends = Vec::with_capacity(packed.blocks() * PACKED);
        let mut block_ends = [0; PACKED];
        for block in 0..packed.blocks() {
            packed.decode(block, &mut block_ends);
            for &end in &block_ends[..(entries.len() - block * PACKED).min(PACKED)] {
                ends.push(u32::try_from(end).map_err(|_| "a run past the end")?);
            }
        }
        if !ends.is_sorted_by(|a, b| a < b) || ends.last().map_or(0, |&end| end as usize) != rows {
            return Err("runs do not cover the rows".into());
        }
        Ok(RunLength { entries, how, ends })
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        format!("{} runs {}", self.ends.len(), self.how)
    }

    /// The value of each run.
    pub(super) fn entries(&self) -> &ArrayRef {
        &self.entries
    }

    /// Calls with each run of a block: its number and its rows within the block.
    fn runs(&self, block: usize, mut visit: impl FnMut(usize, usize, usize)) {
        let start = block * PACKED;
        let mut from = 0;
        for run in self.ends.partition_point(|&end| end as usize <= start)..self.ends.len() {
            let to = (self.ends[run] as usize - start).min(PACKED);
            visit(run, from, to);
            from = to;
            if to == PACKED {
                break;
            }
        }
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
        let decode = |block: usize, out: &mut [u32; PACKED]| {
            self.runs(block, |run, from, to| out[from..to].fill(run as u32));
        };
        let runs = span::collect(first_row, rows, selection, decode, None);
        entries::gather(&self.entries, kind, &runs, nulls)
    }

    /// Which rows of a block are in a run of the set.
    pub(super) fn mask(&self, set: &EntrySet, block: usize, out: &mut [u64; WORDS]) {
        *out = [0; WORDS];
        self.runs(block, |run, from, to| {
            if set.passes(run) {
                for (word, bits) in out.iter_mut().enumerate().take(to.div_ceil(64)).skip(from / 64) {
                    let low = from.saturating_sub(word * 64);
                    let high = (to - word * 64).min(64);
                    *bits |= (u64::MAX >> (64 - (high - low))) << low;
                }
            }
        });
    }
}
