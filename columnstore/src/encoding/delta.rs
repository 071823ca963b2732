//! Ascending integers: per block a first value and bit-packed steps.
//!
//! ```text
//! delta = base:i128 divisor:u64 firsts:[u64; blocks] steps:packed
//! ```
//! Residual 0 of a block is its first; residual i is residual i-1 plus step i. Step 0 repeats step 1, so that a block of equal steps
//! packs into nothing. A block's residuals lie between its first and the next block's, which is all that a filter needs to skip it.

use super::condition::IntCondition;
use super::layout::Reader;
use super::packed::{self, PackedBlocks};
use super::residual::{Frame, Integer, ResidualCondition, Residuals, value};
use super::span;
use super::width::{PACKED, WORDS};

/// A delta-encoded column.
#[derive(Debug)]
pub(super) struct Delta {
    frame: Frame,
    firsts: Vec<u64>,
    steps: PackedBlocks,
}

/// The steps, if the residuals ascend.
pub(super) fn steps(residuals: &Residuals) -> Option<Vec<u64>> {
    let values = &residuals.values;
    if !values.is_sorted() {
        return None;
    }
    let mut steps = Vec::with_capacity(values.len());
    for block in values.chunks(PACKED) {
        steps.push(block.get(1).map_or(0, |second| second - block[0]));
        steps.extend(block.windows(2).map(|pair| pair[1] - pair[0]));
    }
    Some(steps)
}

/// Bytes that [`write`] takes.
pub(super) fn size(steps: &[u64]) -> usize {
    24 + 8 * steps.len().div_ceil(PACKED) + packed::size(steps, true)
}

/// Writes the payload.
pub(super) fn write(residuals: &Residuals, steps: &[u64], out: &mut Vec<u8>) {
    residuals.frame.write(out);
    residuals.values.chunks(PACKED).for_each(|block| out.extend(block[0].to_le_bytes()));
    packed::write(steps, true, out);
}

impl Delta {
    /// Reads and checks the payload.
    pub(super) fn open(reader: &mut Reader, rows: usize) -> Result<Self, String> {
        let frame = Frame::open(reader)?;
        let firsts = reader.u64s(rows.div_ceil(PACKED))?;
        if !firsts.is_sorted() {
            return Err("ascending values descend".into());
        }
        Ok(Delta { frame, firsts, steps: PackedBlocks::open(reader, rows)? })
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        format!("{}{}", self.steps.describe(), self.frame.describe())
    }

    fn decode(&self, block: usize, out: &mut [u64; PACKED]) {
        self.steps.decode(block, out);
        let mut sum = self.firsts[block];
        out[0] = 0;
        for value in out {
            sum = sum.wrapping_add(*value);
            *value = sum;
        }
    }

    /// Reads rows.
    pub(super) fn read<T: Integer>(&self, first_row: usize, rows: usize, selection: Option<&[u32]>) -> Vec<T> {
        let mut residuals = [0; PACKED];
        // Steps that are all equal need no sum.
        let equal_steps = (0..self.steps.blocks()).all(|block| self.steps.width(block) == 0);
        let get = |block: usize, picks: &[u32], out: &mut Vec<T>| {
            let (first, step) = (self.firsts[block], self.steps.base(block));
            out.extend(picks.iter().map(|&i| value::<T>(&self.frame, first.wrapping_add(step.wrapping_mul(i.into())))));
        };
        span::collect(
            first_row,
            rows,
            selection,
            |block, out| {
                self.decode(block, &mut residuals);
                out.iter_mut().zip(residuals).for_each(|(out, r)| *out = value(&self.frame, r));
            },
            if equal_steps { Some(&get) } else { None },
        )
    }

    /// A condition in this column's domain.
    pub(super) fn condition(&self, condition: &IntCondition) -> ResidualCondition {
        self.frame.condition(condition)
    }

    /// Which rows of a block pass.
    pub(super) fn mask(&self, condition: &ResidualCondition, block: usize, out: &mut [u64; WORDS]) {
        let first = self.firsts[block];
        let next = self.firsts.get(block + 1).copied().unwrap_or(u64::MAX);
        if let ResidualCondition::Range(low, high) = condition {
            if *high < first || *low > next {
                *out = [0; WORDS];
                return;
            }
            if *low <= first && *high >= next {
                *out = [u64::MAX; WORDS];
                return;
            }
        }
        let mut residuals = [0; PACKED];
        self.decode(block, &mut residuals);
        condition.decoded(&self.frame, &residuals, out);
    }
}
