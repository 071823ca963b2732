//! The predicates of a scan: in the terms of a segment, and in the order that costs least.

use std::sync::Arc;

use stoa_columnstore::predicate::KeyMembers;
use stoa_columnstore::{Datum, KeySet, Predicate, PreparedFilter, Segment, Verdict};

use crate::Bounds;

/// A predicate on one column.
pub(super) struct ScanPredicate {
    /// The column.
    pub ordinal: usize,
    /// What must hold.
    pub predicate: Predicate,
    /// A run-time filter: rows that it lets pass in error are dropped later, so it may be skipped where it does not help.
    pub optional: bool,
}

impl ScanPredicate {
    /// A conjunct of the query.
    pub fn new(ordinal: usize, predicate: Predicate) -> ScanPredicate {
        ScanPredicate { ordinal, predicate, optional: false }
    }

    /// A run-time filter; nothing if it cannot exclude a value within `bounds`.
    pub fn of_keys(ordinal: usize, keys: Arc<KeySet>, bounds: Bounds) -> Option<ScanPredicate> {
        let covers = bounds.range.is_some_and(|(low, high)| i128::from(keys.min) <= low && high <= i128::from(keys.max));
        let predicate = match &keys.members {
            _ if keys.is_empty() => Predicate::KeySet(keys),
            KeyMembers::All if covers => return None,
            KeyMembers::All => Predicate::Range {
                low: Some((Datum::Int(i128::from(keys.min)), true)),
                high: Some((Datum::Int(i128::from(keys.max)), true)),
            },
            KeyMembers::Bits(_) | KeyMembers::Bloom(_) => Predicate::KeySet(keys),
        };
        Some(ScanPredicate { ordinal, predicate, optional: true })
    }

    /// A guess of the cost of a row, for the order before anything is measured.
    pub fn guess(&self) -> u32 {
        match &self.predicate {
            Predicate::IsNull | Predicate::IsNotNull => 1,
            Predicate::Range { .. } => 2,
            Predicate::In(_) => 3,
            Predicate::NotEqual(_) => 4,
            Predicate::KeySet(_) => 5,
            Predicate::Function(_) => 20,
        }
    }
}

/// The predicates in the terms of one segment.
#[derive(Default)]
pub(super) struct Prepared {
    /// No row can pass.
    pub none: bool,
    /// The predicates that the segment's zone maps leave open, by their index.
    pub open: Vec<(usize, PreparedFilter)>,
}

impl Prepared {
    /// Asks the segment's zone maps, and prepares what they leave open.
    pub fn new(predicates: &[ScanPredicate], segment: &Segment) -> stoa_columnstore::Result<Prepared> {
        for p in predicates {
            if segment.verdict(p.ordinal, &p.predicate)? == Verdict::None {
                return Ok(Prepared { none: true, open: vec![] });
            }
        }
        let mut prepared = Prepared::default();
        for (i, p) in predicates.iter().enumerate() {
            let filter = segment.column(p.ordinal)?.prepare(&p.predicate);
            match filter.verdict() {
                Verdict::None => return Ok(Prepared { none: true, open: vec![] }),
                Verdict::All => {}
                Verdict::Some => prepared.open.push((i, filter)),
            }
        }
        Ok(prepared)
    }
}

/// What one worker has measured of a predicate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measured {
    pub rows_in: u64,
    pub rows_out: u64,
    pub nanos: u64,
}

impl Measured {
    /// Cost of a row over the share of rows that it drops: the lower, the earlier.
    pub fn rank(&self, guess: u32) -> f64 {
        if self.rows_in < 4096 {
            return f64::from(guess);
        }
        let rows = self.rows_in as f64;
        let dropped = (rows - self.rows_out as f64) / rows;
        self.nanos as f64 / rows / dropped.max(0.001)
    }

    /// Whether the predicate drops so little that an optional one is not worth its cost.
    pub fn is_useless(&self) -> bool {
        self.rows_in > 64 * 1024 && self.rows_out as f64 > 0.95 * self.rows_in as f64
    }
}
