//! Arithmetic on integers, decimals and floats.
//!
//! Integers and decimals: operands are brought to the working scale, combined, and brought to the scale of the result. Where the
//! bounds prove that every step fits an `i64` the loops wrap without checks; otherwise each step is checked in `i128`.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Float64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DataType as Arrow, Float32Type, Float64Type};
use stoa_plan::{BinaryOp, DataType};

use super::bounds::{self, Range};
use super::node::{Compiled, Node};
use super::value::{Data, Evaluated, Ints, from_i64, from_i128};
use crate::{Batch, Bounds, Error, Result};

/// Integer or decimal arithmetic.
#[derive(Debug)]
pub(crate) struct Arithmetic {
    op: BinaryOp,
    left: Compiled,
    right: Compiled,
    ty: DataType,
    /// Factors that bring the operands to the working scale.
    factors: (i128, i128),
    /// What divides the working value to give the result, rounding half away from zero.
    divisor: i128,
    /// Whether the bounds prove that every step fits.
    proven: bool,
}

impl Arithmetic {
    /// Chooses scales and width.
    pub(crate) fn compile(op: BinaryOp, left: Compiled, right: Compiled, ty: DataType) -> Result<(Node, Bounds, bool)> {
        let (a, b, s) = (bounds::scale(left.ty), bounds::scale(right.ty), bounds::scale(ty));
        let (up_left, up_right, down) = match op {
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mod => {
                let work = a.max(b).max(s);
                (work - a, work - b, work - s)
            }
            BinaryOp::Mul => (0.max(s - a - b), 0, 0.max(a + b - s)),
            _ => (0.max(s - a + b), 0.max(a - b - s), 0),
        };
        let power = |n: i32| {
            u32::try_from(n)
                .ok()
                .and_then(bounds::power_of_ten)
                .ok_or_else(|| Error::User("overflow: too many decimal digits".into()))
        };
        let (factors, divisor) = ((power(up_left)?, power(up_right)?), power(down)?);
        let ranges = bounds::effective(left.bounds, left.ty).zip(bounds::effective(right.bounds, right.ty));
        let Some((l, r)) = ranges else { return Err(Error::Internal(format!("{op:?} of {:?} and {:?}", left.ty, right.ty))) };
        let limits = bounds::of_type(ty).ok_or_else(|| Error::Internal(format!("arithmetic of type {ty:?}")))?;
        let steps = Steps::of(op, l, r, factors, divisor);
        let divides = matches!(op, BinaryOp::Div | BinaryOp::Mod);
        let proven = steps.as_ref().is_some_and(|s| s.small && bounds::within(s.result, limits) && bounds::narrow(ty, s.result));
        let range = steps.map_or(limits, |s| (s.result.0.max(limits.0).min(limits.1), s.result.1.min(limits.1).max(limits.0)));
        let safe = proven && !(divides && r.0 <= 0 && r.1 >= 0);
        let node = Arithmetic { op, left, right, ty, factors, divisor, proven };
        Ok((Node::Arithmetic(Box::new(node)), Bounds { range: Some(range) }, !safe))
    }

    pub(crate) fn operands_mut(&mut self) -> Vec<&mut Compiled> {
        vec![&mut self.left, &mut self.right]
    }

    pub(crate) fn evaluate(&self, batch: &Batch) -> Result<Evaluated> {
        let left = self.left.evaluate(batch)?;
        let right = self.right.evaluate(batch)?;
        let scalar = left.is_scalar() && right.is_scalar();
        let rows = if scalar { 1 } else { batch.rows };
        let array = if self.proven { self.small(&left, &right, rows)? } else { self.wide(&left, &right, rows)? };
        Ok(if scalar { Evaluated::Scalar(array) } else { Evaluated::Array(array) })
    }

    fn small(&self, left: &Evaluated, right: &Evaluated, rows: usize) -> Result<arrow::array::ArrayRef> {
        let mut l = Ints::<i64>::of(left)?;
        let mut r = Ints::<i64>::of(right)?;
        let Some(nulls) = both_nulls(&l.nulls, left, &r.nulls, right, rows) else { return nothing(self.ty, rows) };
        scale_up(&mut l, self.factors.0 as i64);
        scale_up(&mut r, self.factors.1 as i64);
        let mut out = match self.op {
            BinaryOp::Add => zip(l, r, rows, i64::wrapping_add),
            BinaryOp::Sub => zip(l, r, rows, i64::wrapping_sub),
            BinaryOp::Mul => zip(l, r, rows, i64::wrapping_mul),
            _ => {
                divisor_check(&r, nulls.as_ref(), rows)?;
                if self.op == BinaryOp::Div {
                    zip(l, r, rows, |a, b| if b == 0 { 0 } else { a.wrapping_div(b) })
                } else {
                    zip(l, r, rows, |a, b| if b == 0 { 0 } else { a.wrapping_rem(b) })
                }
            }
        };
        if self.divisor != 1 {
            let d = self.divisor as i64;
            out.iter_mut().for_each(|v| *v = round_div_i64(*v, d));
        }
        from_i64(out, nulls, self.ty)
    }

    fn wide(&self, left: &Evaluated, right: &Evaluated, rows: usize) -> Result<arrow::array::ArrayRef> {
        let l = Ints::<i128>::of(left)?;
        let r = Ints::<i128>::of(right)?;
        let Some(nulls) = both_nulls(&l.nulls, left, &r.nulls, right, rows) else { return nothing(self.ty, rows) };
        let limits = bounds::of_type(self.ty).unwrap_or((0, 0));
        let overflow = || Error::User(format!("overflow in {} of {}", word(self.op), name(self.ty)));
        let mut out = vec![0i128; rows];
        for (row, slot) in out.iter_mut().enumerate() {
            if nulls.as_ref().is_some_and(|n| n.is_null(row)) {
                continue;
            }
            let a = at(&l, row).checked_mul(self.factors.0).ok_or_else(overflow)?;
            let b = at(&r, row).checked_mul(self.factors.1).ok_or_else(overflow)?;
            let value = match self.op {
                BinaryOp::Add => a.checked_add(b),
                BinaryOp::Sub => a.checked_sub(b),
                BinaryOp::Mul => a.checked_mul(b),
                _ if b == 0 => return Err(Error::User("division by zero".into())),
                BinaryOp::Div => a.checked_div(b),
                _ => Some(a.wrapping_rem(b)),
            };
            let value = value.map(|v| round_div(v, self.divisor)).filter(|v| *v >= limits.0 && *v <= limits.1);
            *slot = value.ok_or_else(overflow)?;
        }
        from_i128(out, nulls, self.ty)
    }
}

/// The ranges of the steps of an operation.
struct Steps {
    small: bool,
    result: Range,
}

impl Steps {
    fn of(op: BinaryOp, l: Range, r: Range, factors: (i128, i128), divisor: i128) -> Option<Steps> {
        let mut small = bounds::fits_i64(l) && bounds::fits_i64(r);
        let l = bounds::mul(l, (factors.0, factors.0))?;
        let r = bounds::mul(r, (factors.1, factors.1))?;
        small &= bounds::fits_i64(l) && bounds::fits_i64(r) && bounds::fits_i64((factors.0, factors.1.max(divisor)));
        let value = match op {
            BinaryOp::Add => bounds::add(l, r)?,
            BinaryOp::Sub => bounds::sub(l, r)?,
            BinaryOp::Mul => bounds::mul(l, r)?,
            BinaryOp::Div => bounds::div(l, r)?,
            _ => bounds::rem(l, r)?,
        };
        small &= bounds::fits_i64(value);
        Some(Steps { small, result: (round_div(value.0, divisor), round_div(value.1, divisor)) })
    }
}

/// Division that rounds half away from zero, as casts to fewer decimal digits do.
pub(crate) fn round_div(value: i128, divisor: i128) -> i128 {
    if divisor == 1 {
        return value;
    }
    let (q, r) = (value / divisor, value % divisor);
    if r.abs() >= divisor - r.abs() { q + value.signum() } else { q }
}

fn round_div_i64(value: i64, divisor: i64) -> i64 {
    let (q, r) = (value / divisor, value % divisor);
    if r.abs() >= divisor - r.abs() { q + value.signum() } else { q }
}

fn scale_up(ints: &mut Ints<i64>, factor: i64) {
    if factor == 1 {
        return;
    }
    match &mut ints.values {
        Data::One(v) => *v = v.wrapping_mul(factor),
        Data::Own(values) => values.iter_mut().for_each(|v| *v = v.wrapping_mul(factor)),
        Data::Shared(values) => ints.values = Data::Own(values.iter().map(|v| v.wrapping_mul(factor)).collect()),
    }
}

fn at(ints: &Ints<i128>, row: usize) -> i128 {
    match &ints.values {
        Data::One(v) => *v,
        Data::Own(values) => values[row],
        Data::Shared(values) => i128::from(values[row]),
    }
}

/// Combines row by row, in place where an operand owns its values.
fn zip(l: Ints<i64>, r: Ints<i64>, rows: usize, f: impl Fn(i64, i64) -> i64) -> Vec<i64> {
    match (l.values, r.values) {
        (Data::One(a), Data::One(b)) => vec![f(a, b); rows],
        (Data::Own(mut a), Data::One(b)) => {
            a.iter_mut().for_each(|v| *v = f(*v, b));
            a
        }
        (Data::One(a), Data::Own(mut b)) => {
            b.iter_mut().for_each(|v| *v = f(a, *v));
            b
        }
        (Data::Shared(a), Data::One(b)) => a.iter().map(|v| f(*v, b)).collect(),
        (Data::One(a), Data::Shared(b)) => b.iter().map(|v| f(a, *v)).collect(),
        (Data::Own(mut a), Data::Own(b)) => {
            a.iter_mut().zip(&b).for_each(|(v, b)| *v = f(*v, *b));
            a
        }
        (Data::Own(mut a), Data::Shared(b)) => {
            a.iter_mut().zip(b.iter()).for_each(|(v, b)| *v = f(*v, *b));
            a
        }
        (Data::Shared(a), Data::Own(mut b)) => {
            b.iter_mut().zip(a.iter()).for_each(|(v, a)| *v = f(*a, *v));
            b
        }
        (Data::Shared(a), Data::Shared(b)) => a.iter().zip(b.iter()).map(|(a, b)| f(*a, *b)).collect(),
    }
}

fn divisor_check(r: &Ints<i64>, nulls: Option<&NullBuffer>, rows: usize) -> Result<()> {
    let zero = match r.slice() {
        None => matches!(r.values, Data::One(0)) && rows > nulls.map_or(0, NullBuffer::null_count),
        Some(values) => values.iter().enumerate().any(|(row, v)| *v == 0 && nulls.is_none_or(|n| n.is_valid(row))),
    };
    if zero { Err(Error::User("division by zero".into())) } else { Ok(()) }
}

/// The NULLs of a result: outer `None` if a NULL constant makes every row NULL.
#[allow(clippy::option_option, reason = "the outer option says that nothing is left to compute")]
pub(crate) fn both_nulls(
    l: &Option<NullBuffer>,
    left: &Evaluated,
    r: &Option<NullBuffer>,
    right: &Evaluated,
    rows: usize,
) -> Option<Option<NullBuffer>> {
    let side = |nulls: &Option<NullBuffer>, value: &Evaluated| match nulls {
        Some(n) if value.is_scalar() && rows != 1 => {
            if n.null_count() > 0 {
                None
            } else {
                Some(None)
            }
        }
        Some(n) if value.is_scalar() && n.null_count() > 0 => None,
        other => Some(other.clone()),
    };
    Some(NullBuffer::union(side(l, left)?.as_ref(), side(r, right)?.as_ref()))
}

/// Only NULLs.
pub(crate) fn nothing(ty: DataType, rows: usize) -> Result<arrow::array::ArrayRef> {
    Ok(arrow::array::new_null_array(&ty.to_arrow(), rows))
}

fn word(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Add => "addition",
        BinaryOp::Sub => "subtraction",
        BinaryOp::Mul => "multiplication",
        BinaryOp::Div => "division",
        _ => "remainder",
    }
}

/// The name of a type in messages.
pub(crate) fn name(ty: DataType) -> String {
    match ty {
        DataType::Decimal { precision, scale } => format!("DECIMAL({precision},{scale})"),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Float32 => "FLOAT".into(),
        DataType::Utf8 => "VARCHAR".into(),
        other => format!("{other:?}").to_uppercase(),
    }
}

/// Float arithmetic; other operands are converted.
#[derive(Debug)]
pub(crate) struct FloatArithmetic {
    pub(crate) op: BinaryOp,
    pub(crate) left: Compiled,
    pub(crate) right: Compiled,
    pub(crate) ty: DataType,
}

impl FloatArithmetic {
    pub(crate) fn evaluate(&self, batch: &Batch) -> Result<Evaluated> {
        let target = self.ty.to_arrow();
        let left = to_float(self.left.evaluate(batch)?, self.left.ty, &target)?;
        let right = to_float(self.right.evaluate(batch)?, self.right.ty, &target)?;
        if matches!(self.op, BinaryOp::Div | BinaryOp::Mod) {
            let divisor = right.array();
            let zero = match &target {
                Arrow::Float32 => divisor.as_primitive::<Float32Type>().iter().any(|v| v == Some(0.0)),
                _ => divisor.as_primitive::<Float64Type>().iter().any(|v| v == Some(0.0)),
            };
            if zero && batch.rows > 0 {
                return Err(Error::User("division by zero".into()));
            }
        }
        let scalar = left.is_scalar() && right.is_scalar();
        let array = left.datum(|l| {
            right.datum(|r| match self.op {
                BinaryOp::Add => numeric::add(l, r),
                BinaryOp::Sub => numeric::sub(l, r),
                BinaryOp::Mul => numeric::mul(l, r),
                BinaryOp::Div => numeric::div(l, r),
                _ => numeric::rem(l, r),
            })
        })?;
        Ok(if scalar { Evaluated::Scalar(array) } else { Evaluated::Array(array) })
    }
}

/// Brings a number to a float type.
pub(crate) fn to_float(value: Evaluated, ty: DataType, target: &Arrow) -> Result<Evaluated> {
    if value.array().data_type() == target {
        return Ok(value);
    }
    let DataType::Decimal { scale, .. } = ty else {
        let array = cast(value.array(), target)?;
        return Ok(value.with(array));
    };
    let divisor = 10f64.powi(i32::from(scale));
    let nulls = value.array().logical_nulls();
    let floats: Vec<f64> = if matches!(value.array().data_type(), Arrow::Decimal128(..)) {
        let array = Evaluated::Array(value.array().clone());
        Ints::<i128>::of(&array)?.slice().unwrap_or_default().iter().map(|v| *v as f64 / divisor).collect()
    } else {
        let array = Evaluated::Array(value.array().clone());
        Ints::<i64>::of(&array)?.slice().unwrap_or_default().iter().map(|v| *v as f64 / divisor).collect()
    };
    let array: arrow::array::ArrayRef = Arc::new(Float64Array::new(floats.into(), nulls));
    Ok(value.with(if *target == Arrow::Float64 { array } else { cast(&array, target)? }))
}
