//! Semi, anti and mark joins with a comparison besides their equality, without the build rows.
//!
//! Whether some build row of a key has a value unlike, below or above the probe row's is known from the key's smallest and largest
//! value: `EXISTS (.. WHERE b.k = p.k AND b.v <> p.v)` holds unless both are `p.v`. Such joins keep two values a key instead of all
//! rows, and look at those instead of at each row. Keys are dense codes: the two values are at the code's rank among those there.

use stoa_plan::{BinaryOp, DataType, Expr, Join};

use super::keys::Integers;
use super::members::{Members, mark};
use crate::Layout;

/// A residual that [`Extremes`] answer: `probe column op build column`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// The operator, with the probe side's value on its left.
    op: BinaryOp,
    /// Position of the build side's column.
    pub build: usize,
}

/// Smallest and largest value of each key.
#[derive(Debug)]
pub(crate) struct Extremes {
    members: Members,
    values: Vec<(i64, i64)>,
    op: BinaryOp,
}

impl Comparison {
    /// The residual of a join as a comparison of a column of each side, if it is one whose values compare as integers.
    pub fn of(join: &Join, build: &Layout) -> Option<Comparison> {
        let Some(Expr::Binary { op, left, right, .. }) = &join.residual else { return None };
        let (Expr::Column(l, left), Expr::Column(r, right)) = (&**left, &**right) else { return None };
        if !compare_as_integers(*left, *right) {
            return None;
        }
        let flipped = match op {
            BinaryOp::NotEq => BinaryOp::NotEq,
            BinaryOp::Lt => BinaryOp::Gt,
            BinaryOp::LtEq => BinaryOp::GtEq,
            BinaryOp::Gt => BinaryOp::Lt,
            BinaryOp::GtEq => BinaryOp::LtEq,
            _ => return None,
        };
        let at = |id| build.columns.iter().position(|c| c.field.id == id);
        match (at(*l), at(*r)) {
            (None, Some(build)) => Some(Comparison { op: *op, build }),
            (Some(build), None) => Some(Comparison { op: flipped, build }),
            _ => None,
        }
    }
}

/// Whether values of these types compare as the integers that they are stored as.
fn compare_as_integers(a: DataType, b: DataType) -> bool {
    match (a, b) {
        (DataType::Decimal { precision: p, scale: s }, DataType::Decimal { precision: q, scale: t }) => s == t && p.max(q) <= 18,
        (DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Date | DataType::Timestamp, _) => {
            a == b
        }
        _ => false,
    }
}

impl Extremes {
    /// The extremes of `values` for each code; rows without a code or a value are left out.
    pub fn new(codes: &[u64], slots: usize, values: &Integers<'_>, comparison: Comparison) -> Extremes {
        let there = |row: usize| values.valid.as_ref().is_none_or(|v| v.is_valid(row));
        let mut members = Members::new(codes, slots, there);
        let mut extremes = vec![(i64::MAX, i64::MIN); members.count()];
        for (row, (code, value)) in codes.iter().zip(values.values.iter()).enumerate() {
            if let Some(at) = members.rank(*code)
                && there(row)
            {
                let (low, high) = &mut extremes[at];
                *low = (*low).min(*value);
                *high = (*high).max(*value);
            }
        }
        Extremes { members, values: extremes, op: comparison.op }
    }

    /// Sets the bits of the probe rows for which some build row holds; `matched` has a bit a row, all 0.
    pub fn mark(&self, codes: &[u64], values: &Integers<'_>, matched: &mut [u64]) {
        match self.op {
            BinaryOp::Lt => self.mark_with(codes, values, matched, |v, _, high| v < high),
            BinaryOp::LtEq => self.mark_with(codes, values, matched, |v, _, high| v <= high),
            BinaryOp::Gt => self.mark_with(codes, values, matched, |v, low, _| v > low),
            BinaryOp::GtEq => self.mark_with(codes, values, matched, |v, low, _| v >= low),
            _ => self.mark_with(codes, values, matched, |v, low, high| v != low || v != high),
        }
    }

    fn mark_with(&self, codes: &[u64], values: &Integers<'_>, matched: &mut [u64], holds: impl Fn(i64, i64, i64) -> bool) {
        let there = |row: usize| values.valid.as_ref().is_none_or(|v| v.is_valid(row));
        mark(codes, matched, |row, code| {
            let found = self.members.rank(code).is_some_and(|at| {
                let (low, high) = self.values[at];
                there(row) && holds(values.values[row], low, high)
            });
            u64::from(found)
        });
    }

    /// Bytes that it holds.
    pub fn memory(&self) -> usize {
        self.members.memory() + self.values.len() * 16
    }

    /// For people.
    pub fn description(&self) -> String {
        format!("smallest and largest value of {} keys, {} slots", self.values.len(), self.members.slots())
    }
}
