//! Zone maps: the smallest and largest value and the NULLs of a segment's column and of each of its blocks.
//!
//! [`Zone`] is the public form, in the column's own terms. Inside, everything is compared as 128-bit *keys*: an integer is its own
//! key, a float's is its place in the total order, and a string's is the eight bytes that follow the prefix which all values of the
//! segment share. Keys keep the order (a <= b implies key(a) <= key(b)); where they are not exact, two different values may have
//! equal keys, and a verdict then never claims more than is certain.

mod blocks;
mod key;
mod test;

pub(crate) use blocks::{BlockZones, encode_blocks};
pub(crate) use key::{KeySpace, string_key};
pub(crate) use test::ZoneTest;

use crate::Datum;

/// What a zone map says about a predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No row passes.
    None,
    /// Some may.
    Some,
    /// Every row passes.
    All,
}

/// The zone map of a range of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    /// A lower bound of the values that are not NULL, if any is known.
    pub min: Option<Datum>,
    /// An upper bound.
    pub max: Option<Datum>,
    /// Whether both bounds are values that occur.
    pub exact: bool,
    /// NULLs.
    pub nulls: u64,
    /// Rows.
    pub rows: u64,
}

impl Zone {
    /// Whether every value is NULL.
    #[must_use]
    pub fn is_all_null(&self) -> bool {
        self.nulls == self.rows
    }
}

/// A zone map in keys. `min > max` when every value is NULL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) min: i128,
    pub(crate) max: i128,
    pub(crate) nulls: usize,
    pub(crate) rows: usize,
}

impl Span {
    /// Of no rows.
    pub(crate) const EMPTY: Span = Span { min: i128::MAX, max: i128::MIN, nulls: 0, rows: 0 };
}
