//! Join keys in a form that compares fast.
//!
//! Keys that are integers at heart (integers, dates, timestamps, decimals of 64 bits, booleans, floats by their bits) are packed into
//! one `u64` code a row: each key's distance from the build side's minimum, side by side. A probe row whose key is outside the build
//! side's range has no code, nor has one with a NULL unless NULLs are equal. Everything else is compared in arrow's row format.

use std::borrow::Cow;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType as Arrow, Date32Type, Decimal64Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::row::{RowConverter, Rows, SortField};
use stoa_plan::DataType;

use crate::batch::canonical;
use crate::{CancelToken, Result};

/// The code of a row that matches nothing.
pub(crate) const NO_CODE: u64 = u64::MAX;

/// The type in which two key expressions are compared.
pub(crate) fn common_type(a: DataType, b: DataType) -> DataType {
    match (a, b) {
        (DataType::Decimal { scale: x, .. }, DataType::Decimal { scale: y, .. }) if x != y => {
            DataType::Decimal { precision: 38, scale: x.max(y) }
        }
        // One scale: the unscaled values compare, whatever the precision.
        (DataType::Decimal { precision: p, scale }, DataType::Decimal { precision: q, .. }) => {
            DataType::Decimal { precision: p.max(q), scale }
        }
        (DataType::Null, other) => other,
        (own, _) => own,
    }
}

/// How keys are compared, chosen by the build side.
pub(crate) enum KeyForm {
    /// No equality: every pair is a candidate.
    None,
    /// Codes of integers.
    Packed(Vec<Part>),
    /// Row format.
    Rows { converter: RowConverter, types: Vec<DataType>, null_equals_null: bool },
}

/// One key of a packed code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// Smallest value of the build side.
    pub min: i64,
    /// Largest value of the build side less the smallest.
    pub range: u64,
    /// Position in the code.
    pub shift: u32,
    /// The code of NULL, where NULLs are equal and the build side has one.
    pub null: Option<u64>,
}

/// Keys of the rows of a batch.
pub(crate) enum BatchKeys {
    /// One code a row, or [`NO_CODE`].
    Codes(Vec<u64>),
    /// One byte string a row; false in the mask: matches nothing.
    Rows(Rows, Option<NullBuffer>),
}

/// Integer values of an array, and which of them are there.
pub(crate) struct Integers<'a> {
    pub values: Cow<'a, [i64]>,
    pub valid: Option<NullBuffer>,
}

/// The integers at the heart of an array, if it has such. With `wrap`, decimals that fit no `i64` are cut instead of declining.
pub(crate) fn integers(array: &ArrayRef, wrap: bool) -> Option<Integers<'_>> {
    macro_rules! widen {
        ($ty:ty) => {
            Cow::Owned(array.as_primitive::<$ty>().values().iter().map(|v| *v as i64).collect())
        };
    }
    let mut valid = array.nulls().filter(|n| n.null_count() > 0).cloned();
    let values: Cow<'_, [i64]> = match array.data_type() {
        Arrow::Int64 => Cow::Borrowed(array.as_primitive::<Int64Type>().values()),
        Arrow::Decimal64(..) => Cow::Borrowed(array.as_primitive::<Decimal64Type>().values()),
        Arrow::Timestamp(..) => Cow::Borrowed(array.as_primitive_opt::<TimestampMicrosecondType>()?.values()),
        Arrow::Int32 => widen!(Int32Type),
        Arrow::Date32 => widen!(Date32Type),
        Arrow::Int16 => widen!(Int16Type),
        Arrow::Int8 => widen!(Int8Type),
        Arrow::UInt64 => widen!(UInt64Type),
        Arrow::UInt32 => widen!(UInt32Type),
        Arrow::UInt16 => widen!(UInt16Type),
        Arrow::UInt8 => widen!(UInt8Type),
        Arrow::Boolean => Cow::Owned(array.as_boolean().values().iter().map(i64::from).collect()),
        Arrow::Float64 => Cow::Owned(array.as_primitive::<Float64Type>().values().iter().map(|v| float_bits(*v)).collect()),
        Arrow::Float32 => {
            Cow::Owned(array.as_primitive::<Float32Type>().values().iter().map(|v| float_bits(f64::from(*v))).collect())
        }
        Arrow::Decimal128(..) => {
            let wide = array.as_primitive::<Decimal128Type>().values();
            let fits = |v: &i128| i64::try_from(*v).is_ok();
            if !wrap && !wide.iter().all(fits) {
                return None;
            }
            Cow::Owned(wide.iter().map(|v| *v as i64).collect())
        }
        _ => return None,
    };
    if values.is_empty() {
        valid = None;
    }
    Some(Integers { values, valid })
}

/// The bits of a float, the same for equal floats.
fn float_bits(v: f64) -> i64 {
    let v = if v == 0.0 { 0.0 } else { v };
    if v.is_nan() { f64::NAN.to_bits() as i64 } else { v.to_bits() as i64 }
}

/// Rows of wide decimals that fit no `i64`: they cannot be among the keys of a packed build side.
fn too_wide(array: &ArrayRef) -> Vec<usize> {
    let Arrow::Decimal128(..) = array.data_type() else { return vec![] };
    let values = array.as_primitive::<Decimal128Type>().values();
    values.iter().enumerate().filter(|(_, v)| i64::try_from(**v).is_err()).map(|(i, _)| i).collect()
}

impl KeyForm {
    /// Chooses the form for the build side's key columns.
    pub fn choose(columns: &[ArrayRef], types: &[DataType], null_equals_null: bool) -> Result<KeyForm> {
        if columns.is_empty() {
            return Ok(KeyForm::None);
        }
        if let Some(parts) = packed_parts(columns, null_equals_null) {
            return Ok(KeyForm::Packed(parts));
        }
        let fields = types.iter().map(|ty| SortField::new(ty.to_arrow())).collect();
        Ok(KeyForm::Rows { converter: RowConverter::new(fields)?, types: types.to_vec(), null_equals_null })
    }

    /// The keys of a batch; `columns` are its key columns.
    pub fn keys(&self, columns: &[ArrayRef], rows: usize, cancel: &CancelToken) -> Result<BatchKeys> {
        match self {
            KeyForm::None => Ok(BatchKeys::Codes(vec![0; rows])),
            KeyForm::Packed(parts) => {
                let mut codes = vec![0; rows];
                for (part, column) in parts.iter().zip(columns) {
                    let Some(integers) = integers(column, true) else {
                        return Err(crate::Error::Internal(format!("a join key of type {}", column.data_type())));
                    };
                    part.add(&integers, &mut codes);
                    for i in too_wide(column).into_iter().filter(|i| column.is_valid(*i)) {
                        codes[i] = NO_CODE;
                    }
                }
                Ok(BatchKeys::Codes(codes))
            }
            KeyForm::Rows { converter, types, null_equals_null } => {
                let columns = columns.iter().zip(types).map(|(c, ty)| canonical(c, *ty)).collect::<Result<Vec<_>>>()?;
                let mut converted = converter.empty_rows(rows, 0);
                for piece in cancel.pieces(rows) {
                    let piece = piece?;
                    let part: Vec<ArrayRef> = columns.iter().map(|c| c.slice(piece.start, piece.len())).collect();
                    converter.append(&mut converted, &part)?;
                    if piece.start == 0 && rows > piece.len() {
                        // All of it now, instead of copies of what is there whenever it has doubled.
                        let bytes: usize = converted.lengths().sum();
                        converted.reserve(rows, bytes.saturating_mul(rows / piece.len() + 1));
                    }
                }
                let valid = if *null_equals_null {
                    None
                } else {
                    columns.iter().fold(None, |all, c| NullBuffer::union(all.as_ref(), c.logical_nulls().as_ref()))
                };
                Ok(BatchKeys::Rows(converted, valid))
            }
        }
    }

    /// Number of codes if the keys are packed: all codes are below it.
    pub fn codes(&self) -> Option<u64> {
        match self {
            KeyForm::None | KeyForm::Rows { .. } => None,
            KeyForm::Packed(parts) => {
                parts.last().and_then(|p| (p.range + u64::from(p.null.is_some())).checked_add(1)?.checked_mul(1 << p.shift))
            }
        }
    }
}

impl Part {
    /// Adds this key to the codes of rows.
    fn add(&self, integers: &Integers<'_>, codes: &mut [u64]) {
        let (min, range, shift) = (self.min as u64, self.range, self.shift);
        let absent: Vec<(usize, u64)> = match &integers.valid {
            Some(valid) => (!valid.inner()).set_indices().map(|i| (i, codes[i])).collect(),
            None => vec![],
        };
        for (code, value) in codes.iter_mut().zip(integers.values.iter()) {
            let distance = (*value as u64).wrapping_sub(min);
            let added = *code | (distance << shift);
            *code = if distance <= range && *code != NO_CODE { added } else { NO_CODE };
        }
        for (i, before) in absent {
            codes[i] = match self.null {
                Some(null) if before != NO_CODE => before | (null << shift),
                _ => NO_CODE,
            };
        }
    }
}

/// The parts of a packed code, if all keys are integers and fit one `u64`.
fn packed_parts(columns: &[ArrayRef], null_equals_null: bool) -> Option<Vec<Part>> {
    let mut parts = Vec::with_capacity(columns.len());
    let mut shift = 0;
    for column in columns {
        let integers = integers(column, false)?;
        let (min, max) = extremes(&integers).unwrap_or((0, 0));
        let range = (max as u64).wrapping_sub(min as u64);
        let null = (null_equals_null && integers.valid.is_some()).then(|| range.checked_add(1)).flatten();
        if null_equals_null && integers.valid.is_some() && null.is_none() {
            return None;
        }
        let largest = null.unwrap_or(range);
        let bits = 64 - largest.leading_zeros();
        if shift + bits > 63 {
            return None;
        }
        parts.push(Part { min, range, shift, null });
        shift += bits;
    }
    Some(parts)
}

/// Smallest and largest value that is there.
pub(crate) fn extremes(integers: &Integers<'_>) -> Option<(i64, i64)> {
    let values = &integers.values;
    match &integers.valid {
        None => {
            let first = *values.first()?;
            Some(values.iter().fold((first, first), |(low, high), v| (low.min(*v), high.max(*v))))
        }
        Some(valid) => valid.valid_indices().map(|i| values[i]).fold(None, |all, v| match all {
            None => Some((v, v)),
            Some((low, high)) => Some((low.min(v), high.max(v))),
        }),
    }
}
