//! The zone maps of a segment column's blocks as stored: frame-of-reference keys of one width, read in place.
//!
//! ```text
//! 0   u32  blocks
//! 4   u8   width of an offset: 0, 1, 2, 4, 8 or 16 bytes
//! 5   u8   1 if NULL counts follow
//! 6   u16  bytes of the prefix that all strings share
//! 8   u8   1 if string keys are exact
//! 9        zeros to 16
//! 16  i128 base
//! 32       min of each block: its offset from the base
//!          max of each block
//!          u16 NULLs of each block, if flagged
//! ```
//! All numbers are little-endian. A block of NULLs only has min 0 and max 0.

use arrow::buffer::Buffer;

use crate::BLOCK_ROWS;
use crate::zone::{KeySpace, Span};

const HEADER: usize = 32;

/// The block zones of one column, read in place.
#[derive(Clone, Debug)]
pub(crate) struct BlockZones {
    bytes: Buffer,
    rows: usize,
    blocks: usize,
    width: usize,
    has_nulls: bool,
    base: i128,
    prefix: usize,
    exact: bool,
}

/// Serializes block zones. The spans are those of consecutive blocks.
pub(crate) fn encode_blocks(spans: &[Span], space: &KeySpace) -> Vec<u8> {
    let base = spans.iter().map(|s| s.min).min().unwrap_or(0);
    let all_null = |s: &Span| s.min > s.max;
    let base = if spans.iter().all(all_null) { 0 } else { base };
    let offset = |s: &Span, key: i128| if all_null(s) { 0 } else { key.wrapping_sub(base) as u128 };
    let most = spans.iter().map(|s| offset(s, s.max)).max().unwrap_or(0);
    let width = [0usize, 1, 2, 4, 8].into_iter().find(|w| most >> (8 * w) == 0).unwrap_or(16);
    let has_nulls = spans.iter().any(|s| s.nulls > 0);
    let (prefix, exact) = match space {
        KeySpace::Bytes { prefix, exact } => (prefix.len() as u16, *exact),
        _ => (0, false),
    };
    let mut out = Vec::with_capacity(HEADER + spans.len() * (2 * width + 2));
    out.extend((spans.len() as u32).to_le_bytes());
    out.extend([width as u8, u8::from(has_nulls)]);
    out.extend(prefix.to_le_bytes());
    out.push(u8::from(exact));
    out.resize(16, 0);
    out.extend(base.to_le_bytes());
    for bound in [|s: &Span| s.min, |s: &Span| s.max] {
        for span in spans {
            out.extend(&offset(span, bound(span)).to_le_bytes()[..width]);
        }
    }
    if has_nulls {
        spans.iter().for_each(|s| out.extend((s.nulls as u16).to_le_bytes()));
    }
    out
}

impl BlockZones {
    /// Checks the bytes.
    pub(crate) fn open(bytes: Buffer, rows: usize) -> Result<BlockZones, String> {
        let header: &[u8; HEADER] = bytes.first_chunk().ok_or("block zones are cut short")?;
        let blocks = rows.div_ceil(BLOCK_ROWS);
        let word = |at: usize| [header[at], header[at + 1]];
        if header[..4] != (blocks as u32).to_le_bytes() {
            return Err("block zones are of another number of blocks".into());
        }
        let (width, has_nulls) = (usize::from(header[4]), header[5] == 1);
        let mut base = [0; 16];
        base.copy_from_slice(&header[16..]);
        let prefix = usize::from(u16::from_le_bytes(word(6)));
        let exact = header[8] == 1;
        let length = HEADER + blocks * (2 * width + if has_nulls { 2 } else { 0 });
        if ![0, 1, 2, 4, 8, 16].contains(&width) || header[5] > 1 || bytes.len() != length {
            return Err("block zones have a wrong length".into());
        }
        Ok(BlockZones { rows, blocks, width, has_nulls, base: i128::from_le_bytes(base), prefix, exact, bytes })
    }

    /// Length of the shared prefix and whether string keys are exact.
    pub(crate) fn string_keys(&self) -> (usize, bool) {
        (self.prefix, self.exact)
    }

    /// The span of a block; of no rows if there is no such block.
    #[inline]
    pub(crate) fn get(&self, block: usize) -> Span {
        if block >= self.blocks {
            return Span::EMPTY;
        }
        let rows = (self.rows - block * BLOCK_ROWS).min(BLOCK_ROWS);
        let nulls = if self.has_nulls {
            let at = HEADER + self.blocks * 2 * self.width + block * 2;
            usize::from(u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])).min(rows)
        } else {
            0
        };
        if nulls == rows {
            return Span { nulls, rows, ..Span::EMPTY };
        }
        let min = self.base.wrapping_add(self.offset(block) as i128);
        let max = self.base.wrapping_add(self.offset(self.blocks + block) as i128);
        Span { min, max, nulls, rows }
    }

    #[inline]
    fn offset(&self, index: usize) -> u128 {
        let mut bytes = [0; 16];
        let at = HEADER + index * self.width;
        bytes[..self.width].copy_from_slice(&self.bytes[at..at + self.width]);
        u128::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_survive() {
        let cases: [Vec<(i128, i128, usize)>; 5] = [
            vec![(5, 5, 0), (5, 5, 0)],
            vec![(-3, 250, 0), (0, 1, 7)],
            vec![(i128::MIN, i128::MAX, 0), (0, 0, 0)],
            vec![(1, 70_000, 1024), (3, 9, 0)],
            vec![(0, 0, 1024), (0, 0, 10)],
        ];
        for case in cases {
            let rows = 1034;
            let spans: Vec<Span> = [1024, 10]
                .iter()
                .zip(&case)
                .map(
                    |(&rows, &(min, max, nulls))| {
                        if nulls == rows { Span { nulls, rows, ..Span::EMPTY } } else { Span { min, max, nulls, rows } }
                    },
                )
                .collect();
            let bytes = encode_blocks(&spans, &KeySpace::Integer);
            let zones = BlockZones::open(Buffer::from_vec(bytes), rows).unwrap();
            assert_eq!((0..2).map(|b| zones.get(b)).collect::<Vec<_>>(), spans);
            assert_eq!(zones.get(2), Span::EMPTY);
        }
    }
}
