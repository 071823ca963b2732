//! Comparisons, also of decimals of different scale and of narrow with wide ones.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Decimal128Array, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::compute::kernels::cmp;
use arrow::datatypes::DataType as Arrow;
use stoa_plan::{BinaryOp, DataType};

use super::arithmetic::to_float;
use super::bounds;
use super::node::{Compiled, Node};
use super::value::{Data, Evaluated, Ints};
use crate::{Batch, Error, Result};

/// `left op right`.
#[derive(Debug)]
pub(crate) struct Compare {
    op: BinaryOp,
    left: Compiled,
    right: Compiled,
    domain: Domain,
}

/// What is compared.
#[derive(Clone, Copy, Debug)]
enum Domain {
    /// Arrays of one type, as they are.
    Same,
    /// Integers brought to one scale in 64 bits.
    Small { factors: (i64, i64) },
    /// Integers brought to one scale in 128 bits.
    Wide { factors: (i128, i128) },
    /// Anything with a float.
    Float,
    /// Arrays cast to the type of the left side.
    Cast,
}

impl Compare {
    pub(crate) fn compile(op: BinaryOp, left: Compiled, right: Compiled) -> Result<Node> {
        let ranges = bounds::effective(left.bounds, left.ty).zip(bounds::effective(right.bounds, right.ty));
        let float = |ty| matches!(ty, DataType::Float32 | DataType::Float64);
        let plain = |ty| matches!(ty, DataType::Int32 | DataType::Date | DataType::Int64 | DataType::Bool | DataType::Timestamp);
        let domain = if left.ty == right.ty && (plain(left.ty) || ranges.is_none()) {
            Domain::Same
        } else if let Some((l, r)) = ranges {
            let (a, b) = (bounds::scale(left.ty), bounds::scale(right.ty));
            let power = |n: i32| u32::try_from(n).ok().and_then(bounds::power_of_ten).unwrap_or(1);
            let factors = (power(b - a), power(a - b));
            let fits = |range, factor| bounds::mul(range, (factor, factor)).is_some_and(bounds::fits_i64);
            if bounds::fits_i64(l) && bounds::fits_i64(r) && fits(l, factors.0) && fits(r, factors.1) {
                Domain::Small { factors: (factors.0 as i64, factors.1 as i64) }
            } else {
                Domain::Wide { factors }
            }
        } else if float(left.ty) || float(right.ty) {
            Domain::Float
        } else {
            Domain::Cast
        };
        Ok(Node::Compare(Box::new(Compare { op, left, right, domain })))
    }

    pub(crate) fn operands_mut(&mut self) -> Vec<&mut Compiled> {
        vec![&mut self.left, &mut self.right]
    }

    pub(crate) fn evaluate(&self, batch: &Batch) -> Result<Evaluated> {
        let mut left = self.left.flat(batch)?;
        let mut right = self.right.flat(batch)?;
        match self.domain {
            Domain::Same => {}
            Domain::Small { factors } => {
                left = small(&left, factors.0)?;
                right = small(&right, factors.1)?;
            }
            Domain::Wide { factors } => {
                left = wide(&left, factors.0)?;
                right = wide(&right, factors.1)?;
            }
            Domain::Float => {
                left = to_float(left, self.left.ty, &Arrow::Float64)?;
                right = to_float(right, self.right.ty, &Arrow::Float64)?;
            }
            Domain::Cast => {
                let target = left.array().data_type().clone();
                let array = cast(right.array(), &target)?;
                right = right.with(array);
            }
        }
        let scalar = left.is_scalar() && right.is_scalar();
        let result: ArrayRef = Arc::new(compare(self.op, &left, &right, batch.rows)?);
        Ok(if scalar { Evaluated::Scalar(result) } else { Evaluated::Array(result) })
    }
}

/// Compares values of one type.
pub(crate) fn compare(op: BinaryOp, left: &Evaluated, right: &Evaluated, rows: usize) -> Result<BooleanArray> {
    if matches!(left.array().data_type(), Arrow::Null) {
        return compare_nulls(op, right, rows);
    }
    let run = match op {
        BinaryOp::Eq => cmp::eq,
        BinaryOp::NotEq => cmp::neq,
        BinaryOp::Lt => cmp::lt,
        BinaryOp::LtEq => cmp::lt_eq,
        BinaryOp::Gt => cmp::gt,
        BinaryOp::GtEq => cmp::gt_eq,
        BinaryOp::IsDistinctFrom => cmp::distinct,
        BinaryOp::IsNotDistinctFrom => cmp::not_distinct,
        other => return Err(Error::Internal(format!("{other:?} is no comparison"))),
    };
    Ok(left.datum(|l| right.datum(|r| run(l, r)))?)
}

fn compare_nulls(op: BinaryOp, right: &Evaluated, rows: usize) -> Result<BooleanArray> {
    let rows = if right.is_scalar() { 1 } else { rows };
    let null = match op {
        BinaryOp::IsDistinctFrom => arrow::compute::is_not_null(right.array())?,
        BinaryOp::IsNotDistinctFrom => arrow::compute::is_null(right.array())?,
        _ => BooleanArray::new_null(rows),
    };
    Ok(null)
}

fn small(value: &Evaluated, factor: i64) -> Result<Evaluated> {
    let ints = Ints::<i64>::of(value)?;
    let nulls = ints.nulls;
    let array = match ints.values {
        Data::One(v) => one::<Int64Array>(v.wrapping_mul(factor), nulls.as_ref()),
        Data::Shared(values) if factor == 1 => Arc::new(Int64Array::new(values, nulls)),
        Data::Shared(values) => Arc::new(Int64Array::new(values.iter().map(|v| v.wrapping_mul(factor)).collect(), nulls)),
        Data::Own(mut values) => {
            values.iter_mut().for_each(|v| *v = v.wrapping_mul(factor));
            Arc::new(Int64Array::new(values.into(), nulls))
        }
    };
    Ok(value.with(array))
}

/// Saturates: a value past the limit still compares as it should with every decimal.
fn wide(value: &Evaluated, factor: i128) -> Result<Evaluated> {
    let ints = Ints::<i128>::of(value)?;
    let nulls = ints.nulls;
    let array: ArrayRef = match ints.values {
        Data::One(v) => Arc::new(Decimal128Array::new(vec![v.saturating_mul(factor)].into(), nulls)),
        Data::Own(mut values) => {
            values.iter_mut().for_each(|v| *v = v.saturating_mul(factor));
            Arc::new(Decimal128Array::new(values.into(), nulls))
        }
        Data::Shared(values) => {
            Arc::new(Decimal128Array::new(values.iter().map(|v| i128::from(*v).saturating_mul(factor)).collect(), nulls))
        }
    };
    Ok(value.with(array))
}

fn one<A: Array + FromIterator<Option<i64>> + 'static>(value: i64, nulls: Option<&NullBuffer>) -> ArrayRef {
    let valid = nulls.is_none_or(|n| n.is_valid(0));
    Arc::new(std::iter::once(valid.then_some(value)).collect::<A>())
}
