//! Strings and binary of any store: lengths, and bytes that decode by groups of rows.
//!
//! ```text
//! text = group:u32 lengths:packed starts:[u32; groups+1] bytes        groups = ceil(rows/group)
//! ```
//! `lengths` are those of the decoded strings. Group g's stored bytes are `bytes[starts[g]..starts[g+1]]`; a group decodes alone and
//! consecutive groups decode as one stream where the store allows it (plain, FSST). Offsets stay below 2^32.

use arrow::buffer::Buffer;

use super::layout::Reader;
use super::packed::{self, PackedBlocks};
use super::span::{Span, spans};
use super::width::PACKED;

/// Lengths and starts, checked.
#[derive(Debug)]
pub(super) struct Framing {
    rows: usize,
    group: usize,
    lengths: PackedBlocks,
    starts: Vec<u32>,
}

/// Decoded strings: places in one buffer.
#[derive(Debug)]
pub(super) struct Slices {
    /// What the places are in.
    pub(super) buffer: Buffer,
    /// Offset and length of each.
    pub(super) places: Vec<(u32, u32)>,
}

/// Where groups' bytes come from.
pub(super) trait Store {
    /// Decodes the stored bytes of consecutive groups, `length` bytes when decoded, to the end of `out`.
    fn decode(&self, stored: &[u8], length: usize, out: &mut Vec<u8>) -> Result<(), String>;

    /// Whether consecutive groups may be decoded as one stream.
    fn streams(&self) -> bool;
}

/// Writes the framing.
pub(super) fn write(lengths: &[u64], group: usize, starts: &[u32], out: &mut Vec<u8>) {
    out.extend((group as u32).to_le_bytes());
    packed::write(lengths, true, out);
    starts.iter().for_each(|start| out.extend(start.to_le_bytes()));
}

impl Framing {
    /// Reads and checks the framing.
    pub(super) fn open(reader: &mut Reader, rows: usize) -> Result<Self, String> {
        let group = reader.u32()? as usize;
        if !group.is_power_of_two() || group > PACKED {
            return Err(format!("groups of {group} strings"));
        }
        let lengths = PackedBlocks::open(reader, rows)?;
        let starts = reader.u32s(rows.div_ceil(group) + 1)?;
        if !starts.is_sorted() {
            return Err("string offsets descend".into());
        }
        Ok(Framing { rows, group, lengths, starts })
    }

    /// Checks that all groups lie within the stored bytes.
    pub(super) fn check(&self, stored: usize) -> Result<(), String> {
        if u32::try_from(stored).is_err() || self.starts.last().is_some_and(|&end| end as usize > stored) {
            return Err("strings past the end".into());
        }
        Ok(())
    }

    /// The lengths.
    pub(super) fn lengths(&self) -> &PackedBlocks {
        &self.lengths
    }

    /// Places in the stored bytes themselves, which are not encoded.
    pub(super) fn in_place(
        &self,
        stored: &Buffer,
        first_row: usize,
        rows: usize,
        selection: Option<&[u32]>,
    ) -> Result<Slices, String> {
        let mut places = Vec::with_capacity(selection.map_or(rows, <[u32]>::len));
        self.walk(first_row, rows, selection, &mut places, |from, to, length| {
            if to - from == length { Ok(from) } else { Err("string lengths and offsets differ".to_string()) }
        })?;
        Ok(Slices { buffer: stored.clone(), places })
    }

    /// Decoded places.
    pub(super) fn decode(
        &self,
        store: &impl Store,
        stored: &[u8],
        first_row: usize,
        rows: usize,
        selection: Option<&[u32]>,
    ) -> Result<Slices, String> {
        let mut places = Vec::with_capacity(selection.map_or(rows, <[u32]>::len));
        let mut out = Vec::new();
        self.walk_by(store.streams(), first_row, rows, selection, &mut places, |from, to, length| {
            let at = out.len();
            if at + length > u32::MAX as usize {
                return Err(TOO_LONG.to_string());
            }
            store.decode(&stored[from..to], length, &mut out)?;
            if out.len() != at + length { Err("strings decode to another length".into()) } else { Ok(at) }
        })?;
        Ok(Slices { buffer: Buffer::from_vec(out), places })
    }

    fn walk(
        &self,
        first_row: usize,
        rows: usize,
        selection: Option<&[u32]>,
        places: &mut Vec<(u32, u32)>,
        place: impl FnMut(usize, usize, usize) -> Result<usize, String>,
    ) -> Result<(), String> {
        self.walk_by(true, first_row, rows, selection, places, place)
    }

    /// Visits runs of groups that hold wanted rows: `place(from, to, decoded length)` of stored bytes answers where the run's decoded
    /// bytes begin.
    fn walk_by(
        &self,
        streams: bool,
        first_row: usize,
        rows: usize,
        selection: Option<&[u32]>,
        places: &mut Vec<(u32, u32)>,
        mut place: impl FnMut(usize, usize, usize) -> Result<usize, String>,
    ) -> Result<(), String> {
        let mut lengths = [0; PACKED];
        let mut wanted = Vec::with_capacity(PACKED);
        for span in spans(first_row, rows, selection) {
            self.lengths.decode(span.block, &mut lengths);
            wanted.clear();
            span.each(|i| wanted.push(i as u32));
            if streams && span.dense() {
                self.run(&span, &lengths, &wanted, places, &mut place)?;
                continue;
            }
            for run in wanted.chunk_by(|a, b| *a as usize / self.group == *b as usize / self.group) {
                self.run(&span, &lengths, run, places, &mut place)?;
            }
        }
        Ok(())
    }

    fn run(
        &self,
        span: &Span<'_>,
        lengths: &[u64; PACKED],
        wanted: &[u32],
        places: &mut Vec<(u32, u32)>,
        place: &mut impl FnMut(usize, usize, usize) -> Result<usize, String>,
    ) -> Result<(), String> {
        let (Some(&first), Some(&last)) = (wanted.first(), wanted.last()) else { return Ok(()) };
        let block_start = span.block * PACKED;
        let in_block = (self.rows - block_start).min(PACKED);
        let low = first as usize / self.group * self.group;
        let high = ((last as usize / self.group + 1) * self.group).min(in_block);
        let total =
            lengths[low..high].iter().try_fold(0u64, |sum, &length| sum.checked_add(length)).ok_or("a string is too long")?;
        if total > u64::from(u32::MAX) {
            return Err(TOO_LONG.into());
        }
        let groups = (block_start + low) / self.group..(block_start + high).div_ceil(self.group);
        let (from, to) = (self.starts[groups.start] as usize, self.starts[groups.end] as usize);
        // The sum of the run's lengths is below 2^32, and so is the end of the run's place.
        let mut at = place(from, to, total as usize)? as u32;
        let mut row = low;
        for &wanted in wanted {
            while row < wanted as usize {
                at = at.wrapping_add(lengths[row] as u32);
                row += 1;
            }
            places.push((at, lengths[row] as u32));
        }
        Ok(())
    }
}

/// Says that a read is too large for one array.
pub(super) const TOO_LONG: &str = "more than 4 GiB of strings at once";
