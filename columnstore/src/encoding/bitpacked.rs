//! Frame of reference and bit-packing.
//!
//! ```text
//! bitpacked = base:i128 divisor:u64 packed        value = base + divisor * (block base + packed value)
//! ```
//! The base is the column's smallest value, the divisor the greatest common divisor of all differences to it.

use super::condition::IntCondition;
use super::layout::Reader;
use super::packed::{self, PackedBlocks};
use super::residual::{Frame, Integer, ResidualCondition, Residuals, value};
use super::span;
use super::width::WORDS;

/// A bit-packed column.
#[derive(Debug)]
pub(super) struct BitPacked {
    frame: Frame,
    blocks: PackedBlocks,
}

/// Bytes that [`write`] takes.
pub(super) fn size(residuals: &Residuals) -> usize {
    24 + packed::size(&residuals.values, true)
}

/// Writes the payload.
pub(super) fn write(residuals: &Residuals, out: &mut Vec<u8>) {
    residuals.frame.write(out);
    packed::write(&residuals.values, true, out);
}

impl BitPacked {
    /// Reads and checks the payload.
    pub(super) fn open(reader: &mut Reader, rows: usize) -> Result<Self, String> {
        Ok(BitPacked { frame: Frame::open(reader)?, blocks: PackedBlocks::open(reader, rows)? })
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        format!("{}{}", self.blocks.describe(), self.frame.describe())
    }

    /// Reads rows.
    pub(super) fn read<T: Integer>(&self, first_row: usize, rows: usize, selection: Option<&[u32]>) -> Vec<T> {
        let frame = &self.frame;
        let get = |block: usize, picks: &[u32], out: &mut Vec<T>| {
            self.blocks.gather(block, picks, |residual| out.push(value(frame, residual)));
        };
        span::collect(
            first_row,
            rows,
            selection,
            |block, out| {
                if frame.divisor == 1 {
                    return T::decode(&self.blocks, block, frame.base, out);
                }
                let mut residuals = [0; 1024];
                self.blocks.decode(block, &mut residuals);
                out.iter_mut().zip(residuals).for_each(|(out, r)| *out = value(frame, r));
            },
            Some(&get),
        )
    }

    /// A condition in this column's domain.
    pub(super) fn condition(&self, condition: &IntCondition) -> ResidualCondition {
        self.frame.condition(condition)
    }

    /// Which rows of a block pass.
    pub(super) fn mask(&self, condition: &ResidualCondition, block: usize, current: &[u64], out: &mut [u64; WORDS]) {
        condition.packed(&self.frame, &self.blocks, block, current, out);
    }
}
