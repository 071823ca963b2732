//! What an expression evaluates to, and the integer view of arrays that arithmetic and comparisons work on.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal64Array, Decimal128Array,
    Float32Array, Float64Array, IntervalMonthDayNanoArray, NullArray, PrimitiveArray, Scalar, StringViewArray,
    TimestampMicrosecondArray, UInt32Array, UInt64Array, new_null_array,
};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::compute::take;
use arrow::datatypes::{
    DataType as Arrow, Date32Type, Decimal32Type, Decimal64Type, Decimal128Type, Int8Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, TimeUnit, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use stoa_plan::{DataType, Literal, Value};

use crate::{Error, Result};

/// The value of an expression for a batch: one per row, or one for all rows.
#[derive(Clone, Debug)]
pub(crate) enum Evaluated {
    /// One element per row.
    Array(ArrayRef),
    /// One element that stands for every row.
    Scalar(ArrayRef),
}

impl Evaluated {
    /// The array, of one element for a scalar.
    pub(crate) fn array(&self) -> &ArrayRef {
        match self {
            Evaluated::Array(array) | Evaluated::Scalar(array) => array,
        }
    }

    pub(crate) fn is_scalar(&self) -> bool {
        matches!(self, Evaluated::Scalar(_))
    }

    /// One element per row.
    pub(crate) fn into_array(self, rows: usize) -> Result<ArrayRef> {
        match self {
            Evaluated::Array(array) => Ok(array),
            Evaluated::Scalar(array) if rows == 1 => Ok(array),
            Evaluated::Scalar(array) if array.is_null(0) || *array.data_type() == Arrow::Null => {
                Ok(new_null_array(array.data_type(), rows))
            }
            Evaluated::Scalar(array) => Ok(take(&array, &UInt32Array::from(vec![0; rows]), None)?),
        }
    }

    /// The same kind of value with another array.
    pub(crate) fn with(&self, array: ArrayRef) -> Evaluated {
        match self {
            Evaluated::Array(_) => Evaluated::Array(array),
            Evaluated::Scalar(_) => Evaluated::Scalar(array),
        }
    }

    /// Calls `run` with the form that arrow's kernels take for scalars and arrays.
    pub(crate) fn datum<T>(&self, run: impl FnOnce(&dyn arrow::array::Datum) -> T) -> T {
        match self {
            Evaluated::Array(array) => run(array),
            Evaluated::Scalar(array) => run(&Scalar::new(array.clone())),
        }
    }
}

/// Integers (unscaled decimals, days, microseconds) as `i64` or `i128`.
#[derive(Debug)]
pub(crate) struct Ints<T> {
    /// One value, or one per row.
    pub(crate) values: Data<T>,
    /// Which rows are not NULL.
    pub(crate) nulls: Option<NullBuffer>,
}

/// Values of [`Ints`].
#[derive(Debug)]
pub(crate) enum Data<T> {
    /// One value for all rows.
    One(T),
    /// In a shared buffer.
    Shared(ScalarBuffer<i64>),
    /// Own values.
    Own(Vec<T>),
}

impl Ints<i64> {
    /// The view of a value whose elements are known to fit.
    pub(crate) fn of(value: &Evaluated) -> Result<Ints<i64>> {
        let array = value.array();
        let nulls = array.logical_nulls();
        if value.is_scalar() {
            let one = if array.is_null(0) { 0 } else { int_at(array, 0)? as i64 };
            return Ok(Ints { values: Data::One(one), nulls });
        }
        let values = match array.data_type() {
            Arrow::Int64 => Data::Shared(array.as_primitive::<Int64Type>().values().clone()),
            Arrow::Decimal64(..) => Data::Shared(array.as_primitive::<Decimal64Type>().values().clone()),
            Arrow::Timestamp(TimeUnit::Microsecond, _) => {
                Data::Shared(array.as_primitive::<TimestampMicrosecondType>().values().clone())
            }
            Arrow::Int8 => Data::Own(widen::<Int8Type, _>(array, i64::from)),
            Arrow::Int16 => Data::Own(widen::<Int16Type, _>(array, i64::from)),
            Arrow::Int32 => Data::Own(widen::<Int32Type, _>(array, i64::from)),
            Arrow::UInt8 => Data::Own(widen::<UInt8Type, _>(array, i64::from)),
            Arrow::UInt16 => Data::Own(widen::<UInt16Type, _>(array, i64::from)),
            Arrow::UInt32 => Data::Own(widen::<UInt32Type, _>(array, i64::from)),
            Arrow::UInt64 => Data::Own(widen::<UInt64Type, _>(array, |v| v as i64)),
            Arrow::Date32 => Data::Own(widen::<Date32Type, _>(array, i64::from)),
            Arrow::Decimal32(..) => Data::Own(widen::<Decimal32Type, _>(array, i64::from)),
            Arrow::Decimal128(..) => Data::Own(widen::<Decimal128Type, _>(array, |v| v as i64)),
            Arrow::Boolean => Data::Own(array.as_boolean().values().iter().map(i64::from).collect()),
            Arrow::Null => Data::Own(vec![0; array.len()]),
            other => return Err(not_integer(other)),
        };
        Ok(Ints { values, nulls })
    }

    /// The values, if there is one per row.
    pub(crate) fn slice(&self) -> Option<&[i64]> {
        match &self.values {
            Data::One(_) => None,
            Data::Shared(values) => Some(values),
            Data::Own(values) => Some(values),
        }
    }
}

impl Ints<i128> {
    /// The view of a value.
    pub(crate) fn of(value: &Evaluated) -> Result<Ints<i128>> {
        let array = value.array();
        if value.is_scalar() {
            let one = if array.is_null(0) { 0 } else { int_at(array, 0)? };
            return Ok(Ints { values: Data::One(one), nulls: array.logical_nulls() });
        }
        let own = match array.data_type() {
            Arrow::Decimal128(..) => array.as_primitive::<Decimal128Type>().values().to_vec(),
            Arrow::UInt64 => widen::<UInt64Type, _>(array, i128::from),
            _ => {
                let ints = Ints::<i64>::of(value)?;
                ints.slice().unwrap_or_default().iter().map(|v| i128::from(*v)).collect()
            }
        };
        Ok(Ints { values: Data::Own(own), nulls: array.logical_nulls() })
    }

    /// The values, if there is one per row.
    pub(crate) fn slice(&self) -> Option<&[i128]> {
        match &self.values {
            Data::Own(values) => Some(values),
            _ => None,
        }
    }
}

fn widen<P: ArrowPrimitiveType, T>(array: &ArrayRef, convert: impl Fn(P::Native) -> T) -> Vec<T> {
    array.as_primitive::<P>().values().iter().map(|v| convert(*v)).collect()
}

fn not_integer(ty: &Arrow) -> Error {
    Error::Internal(format!("integers expected, found {ty}"))
}

/// The integer at a valid row.
pub(crate) fn int_at(array: &ArrayRef, row: usize) -> Result<i128> {
    macro_rules! at {
        ($p:ty) => {
            i128::from(array.as_primitive::<$p>().value(row))
        };
    }
    Ok(match array.data_type() {
        Arrow::Int8 => at!(Int8Type),
        Arrow::Int16 => at!(Int16Type),
        Arrow::Int32 => at!(Int32Type),
        Arrow::Int64 => at!(Int64Type),
        Arrow::UInt8 => at!(UInt8Type),
        Arrow::UInt16 => at!(UInt16Type),
        Arrow::UInt32 => at!(UInt32Type),
        Arrow::UInt64 => at!(UInt64Type),
        Arrow::Date32 => at!(Date32Type),
        Arrow::Timestamp(TimeUnit::Microsecond, _) => at!(TimestampMicrosecondType),
        Arrow::Decimal32(..) => at!(Decimal32Type),
        Arrow::Decimal64(..) => at!(Decimal64Type),
        Arrow::Decimal128(..) => array.as_primitive::<Decimal128Type>().value(row),
        Arrow::Boolean => i128::from(array.as_boolean().value(row)),
        other => return Err(not_integer(other)),
    })
}

/// An array of `ty` from integers that are in its range. A `DECIMAL` of more than 18 digits becomes narrow.
pub(crate) fn from_i64(values: Vec<i64>, nulls: Option<NullBuffer>, ty: DataType) -> Result<ArrayRef> {
    fn cast<P: ArrowPrimitiveType>(values: &[i64], nulls: Option<NullBuffer>, convert: impl Fn(i64) -> P::Native) -> ArrayRef {
        Arc::new(PrimitiveArray::<P>::new(values.iter().map(|v| convert(*v)).collect(), nulls))
    }
    Ok(match ty {
        DataType::Int8 => cast::<Int8Type>(&values, nulls, |v| v as i8),
        DataType::Int16 => cast::<Int16Type>(&values, nulls, |v| v as i16),
        DataType::Int32 => cast::<Int32Type>(&values, nulls, |v| v as i32),
        DataType::UInt8 => cast::<UInt8Type>(&values, nulls, |v| v as u8),
        DataType::UInt16 => cast::<UInt16Type>(&values, nulls, |v| v as u16),
        DataType::UInt32 => cast::<UInt32Type>(&values, nulls, |v| v as u32),
        DataType::UInt64 => cast::<UInt64Type>(&values, nulls, |v| v as u64),
        DataType::Date => cast::<Date32Type>(&values, nulls, |v| v as i32),
        DataType::Bool => Arc::new(BooleanArray::new(values.iter().map(|v| *v != 0).collect(), nulls)),
        DataType::Int64 => Arc::new(PrimitiveArray::<Int64Type>::new(values.into(), nulls)),
        DataType::Timestamp => Arc::new(TimestampMicrosecondArray::new(values.into(), nulls)),
        DataType::Decimal { precision, scale } => {
            Arc::new(Decimal64Array::new(values.into(), nulls).with_precision_and_scale(precision.min(18), scale)?)
        }
        other => return Err(Error::Internal(format!("{other:?} is no integer type"))),
    })
}

/// An array of the canonical form of `ty` from integers that are in its range.
pub(crate) fn from_i128(values: Vec<i128>, nulls: Option<NullBuffer>, ty: DataType) -> Result<ArrayRef> {
    match ty {
        DataType::Decimal { precision, scale } if precision > 18 => {
            Ok(Arc::new(Decimal128Array::new(values.into(), nulls).with_precision_and_scale(precision, scale)?))
        }
        DataType::UInt64 => Ok(Arc::new(UInt64Array::new(values.iter().map(|v| *v as u64).collect(), nulls))),
        _ => from_i64(values.iter().map(|v| *v as i64).collect(), nulls, ty),
    }
}

/// One element holding a literal, narrow where that fits.
///
/// # Errors
/// If its value is none of its type.
pub fn literal(literal: &Literal) -> Result<ArrayRef> {
    let ty = literal.ty;
    let misfit = || Error::Internal(format!("the literal {:?} is no {ty:?}", literal.value));
    Ok(match (&literal.value, ty) {
        (Value::Null, DataType::Null) => Arc::new(NullArray::new(1)),
        (Value::Null, _) => new_null_array(&ty.to_arrow(), 1),
        (Value::Bool(v), DataType::Bool) => Arc::new(BooleanArray::from(vec![*v])),
        (Value::Float(v), DataType::Float32) => Arc::new(Float32Array::from(vec![*v as f32])),
        (Value::Float(v), DataType::Float64) => Arc::new(Float64Array::from(vec![*v])),
        (Value::Str(v), DataType::Utf8) => Arc::new(StringViewArray::from(vec![v.as_str()])),
        (Value::Bytes(v), DataType::Binary) => Arc::new(BinaryArray::from(vec![v.as_slice()])),
        (Value::Interval { months, days, nanos }, DataType::Interval) => {
            let value = IntervalMonthDayNanoType::make_value(*months, *days, *nanos);
            Arc::new(IntervalMonthDayNanoArray::from(vec![value]))
        }
        (Value::Int(_) | Value::UInt(_) | Value::Decimal(_), _) => {
            let v = integer(&literal.value).ok_or_else(misfit)?;
            let (low, high) = super::bounds::of_type(ty).ok_or_else(misfit)?;
            if v < low || v > high {
                return Err(misfit());
            }
            if super::bounds::narrow(ty, (v, v)) { from_i64(vec![v as i64], None, ty)? } else { from_i128(vec![v], None, ty)? }
        }
        _ => return Err(misfit()),
    })
}

/// The integer that a value holds.
pub(crate) fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Int(v) => Some(i128::from(*v)),
        Value::UInt(v) => Some(i128::from(*v)),
        Value::Decimal(v) => Some(*v),
        Value::Bool(v) => Some(i128::from(*v)),
        _ => None,
    }
}

/// Type without data, of the date type that arrow's kernels want.
pub(crate) fn dates(values: Vec<i32>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(Date32Array::new(values.into(), nulls))
}
