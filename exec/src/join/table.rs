//! The build side of a join, complete.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::array::{ArrayRef, BooleanArray};
use arrow::buffer::BooleanBuffer;

use super::index::Index;
use super::keys::KeyForm;
use super::members::Members;
use crate::{Layout, Reservation};

/// The build side of a join: its rows, and an index from keys to them.
pub(crate) struct JoinTable {
    /// The columns that are read above the build or by the residual.
    pub layout: Layout,
    /// Their values, contiguous.
    pub columns: Vec<ArrayRef>,
    /// Number of rows.
    pub rows: usize,
    /// Form of the keys.
    pub form: KeyForm,
    /// From keys to rows.
    pub index: Index,
    /// Turns the codes of keys into those of the index, where it has others.
    pub ranks: Option<Members>,
    /// Whether a build row has a NULL among its keys.
    pub null_keys: bool,
    /// One bit a row: it has a match. Empty unless build rows are output.
    pub matched: Bits,
    /// A probe row was seen.
    pub probed: AtomicBool,
    /// A probe row with a NULL key was seen.
    pub probed_null: AtomicBool,
    /// For each row, whether it has a NULL key; kept only for marks on the build side.
    pub null_rows: Option<BooleanArray>,
    /// The memory of all that.
    #[allow(dead_code, reason = "held until the table is dropped")]
    pub reservation: Reservation,
}

/// Bits that several workers set.
#[derive(Debug, Default)]
pub(crate) struct Bits(Vec<AtomicU64>);

impl Bits {
    /// `bits` zeros.
    pub fn new(bits: usize) -> Bits {
        Bits((0..bits.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Sets a bit.
    #[inline]
    pub fn set(&self, bit: usize) {
        let word = &self.0[bit / 64];
        let mask = 1 << (bit % 64);
        if word.load(Ordering::Relaxed) & mask == 0 {
            word.fetch_or(mask, Ordering::Relaxed);
        }
    }

    /// The bits `start..start + len`.
    pub fn range(&self, start: usize, len: usize) -> BooleanBuffer {
        BooleanBuffer::collect_bool(len, |i| {
            let bit = start + i;
            self.0[bit / 64].load(Ordering::Relaxed) >> (bit % 64) & 1 == 1
        })
    }
}
