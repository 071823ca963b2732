//! Bit operations on integers.

use stoa_plan::{BinaryOp, DataType};

use super::arithmetic::{both_nulls, name, nothing};
use super::bounds;
use super::node::Compiled;
use super::value::{Data, Evaluated, Ints, from_i64};
use crate::{Batch, Error, Result};

/// `& | # << >>`.
#[derive(Debug)]
pub(crate) struct Bits {
    pub(crate) op: BinaryOp,
    pub(crate) left: Compiled,
    pub(crate) right: Compiled,
    pub(crate) ty: DataType,
}

impl Bits {
    pub(crate) fn evaluate(&self, batch: &Batch) -> Result<Evaluated> {
        let (left, right) = (self.left.evaluate(batch)?, self.right.evaluate(batch)?);
        let scalar = left.is_scalar() && right.is_scalar();
        let rows = if scalar { 1 } else { batch.rows };
        let (l, r) = (Ints::<i64>::of(&left)?, Ints::<i64>::of(&right)?);
        let array = match both_nulls(&l.nulls, &left, &r.nulls, &right, rows) {
            None => nothing(self.ty, rows)?,
            Some(nulls) => {
                let mut out = vec![0; rows];
                for (row, slot) in out.iter_mut().enumerate() {
                    if nulls.as_ref().is_none_or(|n| n.is_valid(row)) {
                        *slot = self.one(at(&l, row), at(&r, row))?;
                    }
                }
                from_i64(out, nulls, self.ty)?
            }
        };
        Ok(if scalar { Evaluated::Scalar(array) } else { Evaluated::Array(array) })
    }

    fn one(&self, a: i64, b: i64) -> Result<i64> {
        Ok(match self.op {
            BinaryOp::BitAnd => a & b,
            BinaryOp::BitOr => a | b,
            BinaryOp::BitXor => a ^ b,
            _ => {
                let width = bounds::of_type(self.ty).map_or(64, |(low, high)| 128 - (high - low).leading_zeros());
                let by = u32::try_from(b).ok().filter(|n| *n < width);
                let by = by.ok_or_else(|| Error::User(format!("a shift of {} by {b} bits", name(self.ty))))?;
                let unsigned = matches!(self.ty, DataType::UInt64);
                match (self.op, unsigned) {
                    (BinaryOp::ShiftLeft, _) => {
                        let wide = i128::from(a) << by;
                        let keep = 128 - width;
                        if unsigned { a << by } else { ((wide << keep) >> keep) as i64 }
                    }
                    (_, true) => ((a as u64) >> by) as i64,
                    (_, false) => a >> by,
                }
            }
        })
    }
}

fn at(ints: &Ints<i64>, row: usize) -> i64 {
    match &ints.values {
        Data::One(v) => *v,
        Data::Shared(values) => values[row],
        Data::Own(values) => values[row],
    }
}
