//! Unsigned integers in packed blocks of 1024, each block with a base and a width of its own: what most encodings are made of.
//!
//! ```text
//! packed = bases:[u64; blocks] widths:[u8; blocks] blocks of 128*width bytes each      blocks = ceil(rows/1024)
//! ```
//! Value = base + packed value. The last block is filled up with zeros. The layout of a packed block is the kernels'.

use arrow::buffer::Buffer;

use super::layout::Reader;
use super::width::{PACKED, WORDS, width_max};
use stoa_kernels::bitpack::{self, packed_block_bytes};

/// Packed blocks, checked.
#[derive(Debug)]
pub(super) struct PackedBlocks {
    bases: Vec<u64>,
    widths: Vec<u8>,
    starts: Vec<usize>,
    data: Buffer,
}

/// The base and width that a block gets.
fn frame(values: &[u64], rebase: bool) -> (u64, u8) {
    let (min, max) = values.iter().fold((u64::MAX, 0), |(min, max), &v| (min.min(v), max.max(v)));
    let base = if rebase { min } else { 0 };
    (base, bitpack::width_of(max - base) as u8)
}

/// Bytes that [`write`] takes.
pub(super) fn size(values: &[u64], rebase: bool) -> usize {
    values.chunks(PACKED).map(|block| 9 + packed_block_bytes(frame(block, rebase).1.into())).sum()
}

/// Writes values; without `rebase` every base is 0.
pub(super) fn write(values: &[u64], rebase: bool, out: &mut Vec<u8>) {
    let frames: Vec<(u64, u8)> = values.chunks(PACKED).map(|block| frame(block, rebase)).collect();
    frames.iter().for_each(|(base, _)| out.extend(base.to_le_bytes()));
    frames.iter().for_each(|(_, width)| out.push(*width));
    let mut shifted = [0; PACKED];
    for (block, (base, width)) in values.chunks(PACKED).zip(frames) {
        for (to, from) in shifted.iter_mut().zip(block) {
            *to = from - base;
        }
        bitpack::pack(&shifted[..block.len()], width.into(), out);
    }
}

impl PackedBlocks {
    /// Reads and checks the section of `rows` values.
    pub(super) fn open(reader: &mut Reader, rows: usize) -> Result<Self, String> {
        let blocks = rows.div_ceil(PACKED);
        let bases = reader.u64s(blocks)?;
        let widths = reader.take(blocks)?.to_vec();
        if let Some(width) = widths.iter().find(|w| **w > 64) {
            return Err(format!("packed values of {width} bits"));
        }
        let mut starts = Vec::with_capacity(blocks);
        let mut end = 0;
        for &width in &widths {
            starts.push(end);
            end += packed_block_bytes(width.into());
        }
        Ok(PackedBlocks { bases, widths, starts, data: reader.take(end)? })
    }

    /// Blocks.
    pub(super) fn blocks(&self) -> usize {
        self.widths.len()
    }

    /// Smallest and largest width, for people.
    pub(super) fn describe(&self) -> String {
        let (min, max) = self.widths.iter().fold((64, 0), |(min, max), &w| (w.min(min), w.max(max)));
        if min >= max { format!("{max} bits") } else { format!("{min}..{max} bits") }
    }

    /// The base of a block.
    pub(super) fn base(&self, block: usize) -> u64 {
        self.bases[block]
    }

    /// The width of a block.
    pub(super) fn width(&self, block: usize) -> u8 {
        self.widths[block]
    }

    /// No value of a block is above this.
    pub(super) fn max(&self, block: usize) -> u64 {
        self.bases[block].saturating_add(width_max(self.widths[block]))
    }

    /// The packed bytes of a block.
    pub(super) fn packed(&self, block: usize) -> &[u8] {
        &self.data[self.starts[block]..self.starts[block] + packed_block_bytes(self.widths[block].into())]
    }

    /// One value.
    #[inline]
    pub(super) fn get(&self, block: usize, i: usize) -> u64 {
        self.bases[block].wrapping_add(bitpack::get(self.packed(block), self.widths[block].into(), i))
    }

    /// Calls with each of the given values of a block.
    #[inline]
    pub(super) fn gather(&self, block: usize, picks: &[u32], mut visit: impl FnMut(u64)) {
        let mut values = [0; 64];
        for picks in picks.chunks(64) {
            let values = &mut values[..picks.len()];
            bitpack::gather_u64(self.packed(block), self.widths[block].into(), picks, values);
            values.iter().for_each(|&value| visit(self.bases[block].wrapping_add(value)));
        }
    }

    /// All values of a block.
    pub(super) fn decode(&self, block: usize, out: &mut [u64; PACKED]) {
        bitpack::unpack_u64(self.packed(block), self.widths[block].into(), out);
        let base = self.bases[block];
        if base != 0 {
            out.iter_mut().for_each(|v| *v = v.wrapping_add(base));
        }
    }

    /// All values of a block, plus a base.
    pub(super) fn decode_i64(&self, block: usize, base: i64, out: &mut [i64; PACKED]) {
        bitpack::unpack_i64(self.packed(block), self.widths[block].into(), base.wrapping_add(self.bases[block] as i64), out);
    }

    /// All values of a block, plus a base, truncated.
    pub(super) fn decode_i32(&self, block: usize, base: i32, out: &mut [i32; PACKED]) {
        let width = self.widths[block];
        if width <= 32 {
            return bitpack::unpack_i32(self.packed(block), width.into(), base.wrapping_add(self.bases[block] as i32), out);
        }
        let mut wide = [0; PACKED];
        self.decode_i64(block, i64::from(base), &mut wide);
        out.iter_mut().zip(wide).for_each(|(to, from)| *to = from as i32);
    }

    /// All values of a block, truncated.
    pub(super) fn decode_u32(&self, block: usize, out: &mut [u32; PACKED]) {
        let (width, base) = (self.widths[block], self.bases[block] as u32);
        if width <= 32 {
            bitpack::unpack_u32(self.packed(block), width.into(), out);
        } else {
            let mut wide = [0; PACKED];
            bitpack::unpack_u64(self.packed(block), width.into(), &mut wide);
            out.iter_mut().zip(wide).for_each(|(to, from)| *to = from as u32);
        }
        if base != 0 {
            out.iter_mut().for_each(|v| *v = v.wrapping_add(base));
        }
    }

    /// Which values of a block are within inclusive bounds.
    pub(super) fn range(&self, block: usize, low: u64, high: u64, out: &mut [u64; WORDS]) {
        let (base, max) = (self.base(block), self.max(block));
        if low > high || high < base || low > max {
            *out = [0; WORDS];
        } else if low <= base && high >= max {
            *out = [u64::MAX; WORDS];
        } else {
            let width = self.widths[block];
            let high = (high - base).min(width_max(width));
            bitpack::compare_packed(self.packed(block), width.into(), low.saturating_sub(base), high, out);
        }
    }

    /// Which values of a block have their bit set in `set`; the set has a bit for every value that occurs.
    pub(super) fn members(&self, block: usize, set: &[u64], out: &mut [u64; WORDS]) {
        let (base, width) = (self.base(block), self.width(block));
        if base == 0 && width <= 20 && set.len() >= (1usize << width).div_ceil(64) {
            return bitpack::in_packed(self.packed(block), width.into(), set, out);
        }
        let mut values = [0; PACKED];
        self.decode(block, &mut values);
        kernel_mask(&values, out, |v| set.get((v / 64) as usize).is_some_and(|w| w >> (v % 64) & 1 == 1));
    }
}

/// A mask of the values that pass.
#[inline]
pub(super) fn kernel_mask<T: Copy>(values: &[T], out: &mut [u64; WORDS], passes: impl Fn(T) -> bool) {
    *out = [0; WORDS];
    for (word, values) in out.iter_mut().zip(values.chunks(64)) {
        let mut bits = 0;
        for (i, &value) in values.iter().enumerate() {
            bits |= u64::from(passes(value)) << i;
        }
        *word = bits;
    }
}
