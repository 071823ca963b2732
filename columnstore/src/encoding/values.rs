//! Arrow arrays out of decoded parts, and values of arrays in the terms in which encodings compare and pack them.

use std::borrow::Cow;

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, BinaryArray, StringViewArray, make_array, make_view};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, DataType, Float32Type, Float64Type};

use super::condition::{Condition, Kind, float_key};
use super::text::Slices;
use crate::predicate::ValueFunction;
use crate::{Error, Result};

/// What a damaged blob answers.
pub(super) fn damaged(what: impl Into<String>) -> Error {
    Error::Invalid(format!("a column is damaged: {}", what.into()))
}

/// An array of fixed-width values.
pub(super) fn fixed_array(ty: &DataType, values: Buffer, rows: usize, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    Ok(make_array(ArrayData::builder(ty.clone()).len(rows).add_buffer(values).nulls(nulls).build()?))
}

/// An array of strings or binary. Strings are checked to be UTF-8.
pub(super) fn text_array(kind: Kind, slices: Slices, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    let Slices { buffer, places } = slices;
    let bytes = buffer.as_slice();
    if kind == Kind::Utf8 {
        check_utf8(bytes, &places)?;
        let mut views = Vec::with_capacity(places.len());
        for &(at, length) in &places {
            views.push(make_view(slice(bytes, at, length)?, 0, at));
        }
        // SAFETY: every view is of a slice of the one buffer, made by `make_view` from that slice, and the slice is UTF-8.
        let array = unsafe { StringViewArray::new_unchecked(ScalarBuffer::from(views), vec![buffer.clone()], nulls) };
        return Ok(std::sync::Arc::new(array));
    }
    let total: usize = places.iter().map(|&(_, length)| length as usize).sum();
    if i32::try_from(total).is_err() {
        return Err(Error::Invalid("more than 2 GiB of binary values at once".into()));
    }
    let (mut out, mut offsets) = (Vec::with_capacity(total), Vec::with_capacity(places.len() + 1));
    offsets.push(0i32);
    for &(at, length) in &places {
        out.extend_from_slice(slice(bytes, at, length)?);
        offsets.push(out.len() as i32);
    }
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    Ok(std::sync::Arc::new(BinaryArray::try_new(offsets, Buffer::from_vec(out), nulls)?))
}

fn slice(bytes: &[u8], at: u32, length: u32) -> Result<&[u8]> {
    let end = at as usize + length as usize;
    bytes.get(at as usize..end).ok_or_else(|| damaged("a string past the end"))
}

/// Checks every string: all at once if what they span is ASCII and not much more than they are, else one by one.
fn check_utf8(bytes: &[u8], places: &[(u32, u32)]) -> Result<()> {
    let (Some(&(first, _)), Some(&(last, length))) = (places.first(), places.last()) else { return Ok(()) };
    let (first, end) = (first as usize, last as usize + length as usize);
    if end.saturating_sub(first) <= 64 * places.len() + 4096 && bytes.get(first..end).is_some_and(<[u8]>::is_ascii) {
        return Ok(());
    }
    for &(at, length) in places {
        std::str::from_utf8(slice(bytes, at, length)?).map_err(|_| damaged("a string is not UTF-8"))?;
    }
    Ok(())
}

/// Values as keys by which equal ones are found and all are ordered; those of NULL rows are their predecessors', so that runs go on.
pub(super) enum Keys<'a> {
    /// Values of up to 64 bits, order kept.
    Narrow(Vec<u64>),
    /// Of 128 bits.
    Wide(Vec<i128>),
    /// Strings and binary.
    Bytes(Vec<&'a [u8]>),
}

const SIGN: u64 = 1 << 63;

/// The values of an array as keys.
pub(super) fn keys(array: &ArrayRef) -> Result<Keys<'_>> {
    let nulls = array.nulls().filter(|n| n.null_count() > 0);
    Ok(match array.data_type() {
        DataType::Boolean => {
            let bits = array.as_boolean().values();
            Keys::Narrow(filled((0..array.len()).map(|i| u64::from(bits.value(i))), nulls))
        }
        DataType::Decimal128(..) => Keys::Wide(filled(native::<i128>(array).iter().copied(), nulls)),
        DataType::Utf8View => {
            let strings = array.as_string_view();
            Keys::Bytes(filled((0..array.len()).map(|i| strings.value(i).as_bytes()), nulls))
        }
        DataType::Binary => {
            let strings = array.as_binary::<i32>();
            Keys::Bytes(filled((0..array.len()).map(|i| strings.value(i)), nulls))
        }
        DataType::Float32 => {
            let floats = array.as_primitive::<Float32Type>().values();
            // Distinct bits must stay distinct, which widening a signalling NaN does not promise: order the bits themselves.
            Keys::Narrow(filled(floats.iter().map(|v| float32_key(*v)), nulls))
        }
        DataType::Float64 => {
            let floats = array.as_primitive::<Float64Type>().values();
            Keys::Narrow(filled(floats.iter().map(|v| float_key(*v) as u64 ^ SIGN), nulls))
        }
        DataType::UInt64 => Keys::Narrow(filled(native::<u64>(array).iter().copied(), nulls)),
        _ => Keys::Narrow(filled(narrow_ints(array)?.iter().map(|v| *v as u64 ^ SIGN), nulls)),
    })
}

fn float32_key(value: f32) -> u64 {
    let bits = value.to_bits() as i32;
    u64::from((bits ^ (((bits >> 31) as u32) >> 1) as i32) as u32 ^ (1 << 31))
}

/// Replaces values of NULL rows by the value before them, or by the first that there is.
fn filled<T: Copy>(values: impl Iterator<Item = T>, nulls: Option<&NullBuffer>) -> Vec<T> {
    let mut values: Vec<T> = values.collect();
    let Some(nulls) = nulls else { return values };
    let Some(mut last) = nulls.valid_indices().next().map(|row| values[row]) else {
        if let Some(first) = values.first().copied() {
            values.fill(first);
        }
        return values;
    };
    for (row, value) in values.iter_mut().enumerate() {
        if nulls.is_null(row) {
            *value = last;
        }
        last = *value;
    }
    values
}

/// The values of an array's native type. The caller knows the type's width.
pub(super) fn native<T: ArrowNativeType>(array: &ArrayRef) -> Cow<'_, [T]> {
    let data = array.to_data();
    Cow::Owned(data.buffer::<T>(0)[..array.len()].to_vec())
}

/// Integers of up to 64 bits that fit `i64`.
pub(super) fn narrow_ints(array: &ArrayRef) -> Result<Vec<i64>> {
    let data = array.to_data();
    let rows = array.len();
    macro_rules! widen {
        ($ty:ty) => {
            data.buffer::<$ty>(0)[..rows].iter().map(|&v| i64::from(v)).collect()
        };
    }
    Ok(match Kind::of(array.data_type()) {
        Some(Kind::Int { bytes: 1, signed: true }) => widen!(i8),
        Some(Kind::Int { bytes: 2, signed: true }) => widen!(i16),
        Some(Kind::Int { bytes: 4, signed: true }) => widen!(i32),
        Some(Kind::Int { bytes: 8, signed: true }) => widen!(i64),
        Some(Kind::Int { bytes: 1, signed: false }) => widen!(u8),
        Some(Kind::Int { bytes: 2, signed: false }) => widen!(u16),
        Some(Kind::Int { bytes: 4, signed: false }) => widen!(u32),
        _ => return Err(Error::Invalid(format!("{} is not a narrow integer", array.data_type()))),
    })
}

/// Integers for packing: NULL rows filled, `None` if the column is not one of integers or their range is above 64 bits.
pub(super) fn residuals(array: &ArrayRef) -> Option<super::residual::Residuals> {
    let Kind::Int { .. } = Kind::of(array.data_type())? else { return None };
    match keys(array).ok()? {
        Keys::Wide(values) => super::residual::Residuals::new(&values),
        Keys::Narrow(values) => {
            let mut residuals = super::residual::Residuals::new(&values)?;
            if *array.data_type() != DataType::UInt64 {
                residuals.frame.base -= i128::from(SIGN);
            }
            Some(residuals)
        }
        Keys::Bytes(_) => None,
    }
}

/// The strings of a column, empty where NULL.
pub(super) fn strings(array: &ArrayRef) -> Option<Vec<&[u8]>> {
    let value = |row: usize, bytes| if array.is_null(row) { &b""[..] } else { bytes };
    match array.data_type() {
        DataType::Utf8View => {
            let strings = array.as_string_view();
            Some((0..array.len()).map(|i| value(i, strings.value(i).as_bytes())).collect())
        }
        DataType::Binary => {
            let strings = array.as_binary::<i32>();
            Some((0..array.len()).map(|i| value(i, strings.value(i))).collect())
        }
        _ => None,
    }
}

/// The values that a function lets pass, where NULL is no.
pub(super) fn call(function: &ValueFunction, values: &ArrayRef) -> Result<BooleanBuffer> {
    let passes = (function.function)(values)?;
    if passes.len() != values.len() {
        let (given, rows) = (passes.len(), values.len());
        return Err(Error::Invalid(format!("{} answers {given} of {rows} rows", function.description)));
    }
    Ok(match passes.nulls() {
        Some(nulls) => passes.values() & nulls.inner(),
        None => passes.values().clone(),
    })
}

/// Evaluates a condition value by value. The values are of a canonical type.
pub(super) fn evaluate(condition: &Condition, values: &ArrayRef) -> Result<Vec<bool>> {
    let rows = values.len();
    let valid = |i: usize| values.is_valid(i);
    Ok(match condition {
        Condition::IsNull => (0..rows).map(|i| !valid(i)).collect(),
        Condition::IsNotNull => (0..rows).map(valid).collect(),
        Condition::Function(function) => call(function, values)?.iter().collect(),
        Condition::Int(c) => match values.data_type() {
            DataType::Boolean => (0..rows).map(|i| valid(i) && c.passes(i128::from(values.as_boolean().value(i)))).collect(),
            DataType::Decimal128(..) => {
                native::<i128>(values).iter().enumerate().map(|(i, &v)| valid(i) && c.passes(v)).collect()
            }
            DataType::UInt64 => {
                native::<u64>(values).iter().enumerate().map(|(i, &v)| valid(i) && c.passes(i128::from(v))).collect()
            }
            _ => narrow_ints(values)?.iter().enumerate().map(|(i, &v)| valid(i) && c.passes(i128::from(v))).collect(),
        },
        Condition::Float(c) => match values.data_type() {
            DataType::Float32 => {
                let floats = values.as_primitive::<Float32Type>();
                (0..rows).map(|i| valid(i) && c.passes(float_key(f64::from(floats.value(i))).into())).collect()
            }
            _ => {
                let floats = values.as_primitive::<Float64Type>();
                (0..rows).map(|i| valid(i) && c.passes(float_key(floats.value(i)).into())).collect()
            }
        },
        Condition::Bytes(c) => match values.data_type() {
            DataType::Utf8View => {
                let strings = values.as_string_view();
                (0..rows).map(|i| valid(i) && c.passes(strings.value(i).as_bytes())).collect()
            }
            _ => {
                let strings = values.as_binary::<i32>();
                (0..rows).map(|i| valid(i) && c.passes(strings.value(i))).collect()
            }
        },
    })
}
