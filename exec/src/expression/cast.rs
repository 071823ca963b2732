//! Casts. Numbers among themselves have loops of their own; the rest is arrow's.
//!
//! Decimals to fewer digits round half away from zero; decimals and floats to integers truncate.

use arrow::array::{Array, ArrayRef};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType as Arrow;
use arrow::util::display::FormatOptions;
use stoa_plan::DataType;

use super::arithmetic::{name, round_div, to_float};
use super::bounds;
use super::node::{Compiled, Node};
use super::value::{Data, Evaluated, Ints, from_i64, from_i128};
use crate::{Batch, Bounds, Error, Result};

/// `CAST(input AS ty)`.
#[derive(Debug)]
pub(crate) struct Cast {
    input: Compiled,
    ty: DataType,
    safe: bool,
    how: How,
}

#[derive(Debug)]
enum How {
    /// Values are kept: another name for the same 64 bits.
    Keep,
    /// Integers or decimals: `value * factor / divisor`; `proven` to fit 64 bits.
    Rescale { factor: i128, divisor: i128, round: bool, proven: bool },
    /// A number to a float.
    Float,
    /// Arrow's.
    Arrow,
}

fn exact(ty: DataType) -> bool {
    matches!(
        ty,
        DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32
            | DataType::UInt64
            | DataType::Decimal { .. }
    )
}

impl Cast {
    pub(crate) fn compile(input: Compiled, ty: DataType, safe: bool) -> (Node, Bounds, bool) {
        let (how, range, fallible) = Cast::choose(&input, ty);
        (Node::Cast(Box::new(Cast { input, ty, safe, how })), Bounds { range }, fallible && !safe)
    }

    fn choose(input: &Compiled, ty: DataType) -> (How, Option<bounds::Range>, bool) {
        let float = matches!(ty, DataType::Float32 | DataType::Float64);
        if float && (exact(input.ty) || matches!(input.ty, DataType::Float32 | DataType::Float64)) {
            return (How::Float, None, false);
        }
        let from = bounds::effective(input.bounds, input.ty);
        let limits = bounds::of_type(ty);
        let days = |a, b| a == DataType::Date && exact(b) && !matches!(b, DataType::Decimal { .. });
        let numbers = (exact(input.ty) && exact(ty)) || days(input.ty, ty) || days(ty, input.ty);
        let (Some(from), Some(limits), true) = (from, limits, numbers) else {
            let widening = ty == DataType::Utf8 || (input.ty == DataType::Date && ty == DataType::Timestamp);
            let range = (input.ty == ty).then_some(from).flatten();
            return (How::Arrow, range.or(if ty == DataType::Bool { Some((0, 1)) } else { None }), !widening);
        };
        let (a, b) = (bounds::scale(input.ty), bounds::scale(ty));
        let power = |n: i32| u32::try_from(n).ok().and_then(bounds::power_of_ten).unwrap_or(1);
        let (factor, divisor) = (power(b - a), power(a - b));
        let round = matches!(ty, DataType::Decimal { .. });
        let down = |v: i128| if round { round_div(v, divisor) } else { v / divisor };
        let to = bounds::mul(from, (factor, factor)).map(|r| ((down(r.0), down(r.1)), bounds::fits_i64(r)));
        let Some((to, small)) = to else {
            return (How::Rescale { factor, divisor, round, proven: false }, Some(limits), true);
        };
        let inside = bounds::within(to, limits);
        let proven =
            inside && small && bounds::fits_i64(from) && bounds::narrow(ty, to) && bounds::fits_i64((0, factor.max(divisor)));
        let range = Some((to.0.clamp(limits.0, limits.1), to.1.clamp(limits.0, limits.1)));
        if proven && factor == 1 && divisor == 1 {
            return (How::Keep, range, false);
        }
        (How::Rescale { factor, divisor, round, proven }, range, !inside)
    }

    pub(crate) fn input_mut(&mut self) -> &mut Compiled {
        &mut self.input
    }

    pub(crate) fn evaluate(&self, batch: &Batch) -> Result<Evaluated> {
        let value = self.input.evaluate(batch)?;
        let array = match &self.how {
            How::Keep => {
                let ints = Ints::<i64>::of(&value)?;
                let nulls = ints.nulls;
                match ints.values {
                    Data::One(v) => from_i64(vec![v], nulls, self.ty)?,
                    Data::Own(values) => from_i64(values, nulls, self.ty)?,
                    Data::Shared(values) if matches!(self.ty, DataType::Int64) => {
                        std::sync::Arc::new(arrow::array::Int64Array::new(values, nulls))
                    }
                    Data::Shared(values) => match self.ty {
                        DataType::Decimal { precision, scale } => std::sync::Arc::new(
                            arrow::array::Decimal64Array::new(values, nulls)
                                .with_precision_and_scale(precision.min(18), scale)?,
                        ),
                        _ => from_i64(values.to_vec(), nulls, self.ty)?,
                    },
                }
            }
            How::Rescale { factor, divisor, round, proven } => self.rescale(&value, *factor, *divisor, *round, *proven)?,
            How::Float => return to_float(value, self.input.ty, &self.ty.to_arrow()),
            How::Arrow => self.by_arrow(value.array())?,
        };
        Ok(value.with(array))
    }

    fn rescale(&self, value: &Evaluated, factor: i128, divisor: i128, round: bool, proven: bool) -> Result<ArrayRef> {
        if proven {
            let ints = Ints::<i64>::of(value)?;
            let (factor, half) = (factor as i64, divisor);
            let step = |v: i64| {
                let v = v.wrapping_mul(factor);
                if half == 1 {
                    v
                } else if round {
                    round_div(i128::from(v), half) as i64
                } else {
                    v / half as i64
                }
            };
            let out = match ints.values {
                Data::One(v) => vec![step(v)],
                Data::Shared(values) => values.iter().map(|v| step(*v)).collect(),
                Data::Own(values) => values.into_iter().map(step).collect(),
            };
            return from_i64(out, ints.nulls, self.ty);
        }
        let ints = Ints::<i128>::of(value)?;
        let limits = bounds::of_type(self.ty).unwrap_or((0, 0));
        let input: Vec<i128> = match ints.values {
            Data::One(v) => vec![v],
            Data::Own(values) => values,
            Data::Shared(values) => values.iter().map(|v| i128::from(*v)).collect(),
        };
        let mut valid = vec![true; input.len()];
        let mut out = Vec::with_capacity(input.len());
        for (row, v) in input.into_iter().enumerate() {
            let null = ints.nulls.as_ref().is_some_and(|n| n.is_null(row));
            let scaled = v.checked_mul(factor).map(|v| if round { round_div(v, divisor) } else { v / divisor });
            match scaled.filter(|v| *v >= limits.0 && *v <= limits.1) {
                Some(v) if !null => out.push(v),
                _ if null || self.safe => {
                    valid[row] = false;
                    out.push(0);
                }
                _ => return Err(Error::User(format!("overflow: {} does not fit {}", shown(v, self.input.ty), name(self.ty)))),
            }
        }
        let all = valid.iter().all(|v| *v);
        from_i128(out, (!all).then(|| NullBuffer::new(BooleanBuffer::from(valid))), self.ty)
    }

    fn by_arrow(&self, array: &ArrayRef) -> Result<ArrayRef> {
        let target = self.ty.to_arrow();
        if *array.data_type() == target {
            return Ok(array.clone());
        }
        if let Arrow::Dictionary(..) = array.data_type() {
            if self.ty == DataType::Utf8 {
                return Ok(array.clone());
            }
            return self.by_arrow(&crate::batch::canonical(array, self.input.ty)?);
        }
        cast_array(array, &target, self.safe)
    }
}

/// Arrow's cast, with errors of the user.
pub(crate) fn cast_array(array: &ArrayRef, target: &Arrow, safe: bool) -> Result<ArrayRef> {
    if array.data_type() == target {
        return Ok(array.clone());
    }
    if *array.data_type() == Arrow::Null {
        return Ok(arrow::array::new_null_array(target, array.len()));
    }
    let options = CastOptions { safe, format_options: FormatOptions::default() };
    cast_with_options(array, target, &options).map_err(|error| match error {
        arrow::error::ArrowError::NotYetImplemented(what) => Error::Unsupported(what),
        other => other.into(),
    })
}

fn shown(value: i128, ty: DataType) -> String {
    let scale = bounds::scale(ty);
    match u32::try_from(scale).ok().and_then(bounds::power_of_ten) {
        Some(unit) if unit > 1 => {
            let sign = if value < 0 { "-" } else { "" };
            format!("{sign}{}.{:0width$}", (value / unit).abs(), (value % unit).abs(), width = scale as usize)
        }
        _ => value.to_string(),
    }
}
