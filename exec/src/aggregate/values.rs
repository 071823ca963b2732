//! Single values as bytes, for serialized states: written by type, read with checks.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, Float32Array, Float64Array, IntervalMonthDayNanoArray,
    StringViewBuilder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{Float32Type, Float64Type, IntervalMonthDayNanoType};
use stoa_plan::DataType;

use crate::expression::{bounds, from_i128, int_at};
use crate::{Error, Result};

/// States of groups as bytes, one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Written {
    bytes: Vec<u8>,
    /// Where that of each group ends.
    ends: Vec<usize>,
}

impl Written {
    /// Those that `write` appends, group by group.
    pub(crate) fn each(groups: usize, mut write: impl FnMut(usize, &mut Vec<u8>) -> Result<()>) -> Result<Written> {
        let mut out = Written { bytes: Vec::with_capacity(groups * 4), ends: Vec::with_capacity(groups) };
        for group in 0..groups {
            write(group, &mut out.bytes)?;
            out.ends.push(out.bytes.len());
        }
        Ok(out)
    }

    pub(crate) fn of(&self, group: usize) -> &[u8] {
        let start = group.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[group]]
    }

    /// As a column.
    pub(crate) fn column(self) -> Result<BinaryArray> {
        let lengths = (0..self.ends.len()).map(|group| self.of(group).len());
        if i32::try_from(self.bytes.len()).is_err() {
            return Err(Error::Unsupported(format!("partial states of {} bytes", self.bytes.len())));
        }
        Ok(BinaryArray::new(OffsetBuffer::from_lengths(lengths), self.bytes.into(), None))
    }
}

/// Appends an integer: zigzag, seven bits a byte.
pub(crate) fn put_int(value: i128, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 127)) as u128;
    if let Ok(mut rest) = u64::try_from(rest) {
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        return out.push(rest as u8);
    }
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends a float.
pub(crate) fn put_float(value: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends bytes with their length.
pub(crate) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_int(bytes.len() as i128, out);
    out.extend_from_slice(bytes);
}

/// Reads a state.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

fn damaged() -> Error {
    Error::Internal("a serialized aggregate state is damaged".into())
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: bytes }
    }

    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        if n > self.rest.len() {
            return Err(damaged());
        }
        let (head, rest) = self.rest.split_at(n);
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn int(&mut self) -> Result<i128> {
        let signed = |value: u128| (value >> 1) as i128 ^ -((value & 1) as i128);
        let mut low = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            low |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(signed(low.into()));
            }
        }
        let mut value = u128::from(low);
        for shift in (63..128).step_by(7) {
            let byte = self.byte()?;
            value |= u128::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(signed(value));
            }
        }
        Err(damaged())
    }

    /// A count of things that take a byte each at least.
    pub(crate) fn count(&mut self) -> Result<usize> {
        let n = usize::try_from(self.int()?).map_err(|_| damaged())?;
        if n > self.rest.len() { Err(damaged()) } else { Ok(n) }
    }

    pub(crate) fn float(&mut self) -> Result<f64> {
        Ok(f64::from_le_bytes(self.take(8)?.try_into().map_err(|_| damaged())?))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let n = self.count()?;
        self.take(n)
    }

    pub(crate) fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(damaged()) }
    }
}

/// Appends the value at a row of a canonical array.
pub(crate) fn put(array: &ArrayRef, row: usize, ty: DataType, out: &mut Vec<u8>) -> Result<()> {
    if array.is_null(row) || ty == DataType::Null {
        out.push(0);
        return Ok(());
    }
    out.push(1);
    match ty {
        DataType::Utf8 => put_bytes(array.as_string_view().value(row).as_bytes(), out),
        DataType::Binary => put_bytes(array.as_binary::<i32>().value(row), out),
        DataType::Float64 => put_float(array.as_primitive::<Float64Type>().value(row), out),
        DataType::Float32 => put_float(array.as_primitive::<Float32Type>().value(row).into(), out),
        DataType::Interval => {
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            put_int(value.months.into(), out);
            put_int(value.days.into(), out);
            put_int(value.nanoseconds.into(), out);
        }
        _ => put_int(int_at(array, row)?, out),
    }
    Ok(())
}

/// Values read one by one into a column.
#[derive(Debug)]
pub(crate) struct Column {
    ty: DataType,
    /// Least and greatest integer of the type, if it has such.
    limits: Option<(i128, i128)>,
    valid: Vec<bool>,
    ints: Vec<i128>,
    floats: Vec<f64>,
    bytes: Vec<Vec<u8>>,
    spans: Vec<(i32, i32, i64)>,
}

impl Column {
    pub(crate) fn new(ty: DataType) -> Column {
        Column { ty, limits: bounds::of_type(ty), valid: vec![], ints: vec![], floats: vec![], bytes: vec![], spans: vec![] }
    }

    pub(crate) fn read(&mut self, from: &mut Cursor<'_>) -> Result<()> {
        let valid = match from.byte()? {
            0 => false,
            1 if self.ty != DataType::Null => true,
            _ => return Err(damaged()),
        };
        self.valid.push(valid);
        match self.ty {
            DataType::Null => {}
            DataType::Utf8 | DataType::Binary => {
                let bytes = if valid { from.bytes()? } else { &[] };
                if self.ty == DataType::Utf8 && std::str::from_utf8(bytes).is_err() {
                    return Err(damaged());
                }
                self.bytes.push(bytes.to_vec());
            }
            DataType::Float64 | DataType::Float32 => self.floats.push(if valid { from.float()? } else { 0.0 }),
            DataType::Interval => {
                let mut part = || -> Result<i128> { if valid { from.int() } else { Ok(0) } };
                let small = |v: i128| i32::try_from(v).map_err(|_| damaged());
                let span = (small(part()?)?, small(part()?)?, i64::try_from(part()?).map_err(|_| damaged())?);
                self.spans.push(span);
            }
            _ => {
                let value = if valid { from.int()? } else { 0 };
                let limits = self.limits.ok_or_else(damaged)?;
                if value < limits.0 || value > limits.1 {
                    return Err(damaged());
                }
                self.ints.push(value);
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<ArrayRef> {
        let nulls = if self.valid.iter().all(|v| *v) { None } else { Some(self.valid.clone().into()) };
        Ok(match self.ty {
            DataType::Null => arrow::array::new_null_array(&arrow::datatypes::DataType::Null, self.valid.len()),
            DataType::Utf8 => {
                let mut builder = StringViewBuilder::with_capacity(self.valid.len());
                for (bytes, valid) in self.bytes.iter().zip(&self.valid) {
                    builder.append_option(valid.then(|| String::from_utf8_lossy(bytes)));
                }
                Arc::new(builder.finish())
            }
            DataType::Binary => {
                let mut builder = BinaryBuilder::new();
                for (bytes, valid) in self.bytes.iter().zip(&self.valid) {
                    builder.append_option(valid.then_some(bytes));
                }
                Arc::new(builder.finish())
            }
            DataType::Float64 => Arc::new(Float64Array::new(self.floats.into(), nulls)),
            DataType::Float32 => Arc::new(Float32Array::new(self.floats.iter().map(|v| *v as f32).collect(), nulls)),
            DataType::Interval => {
                let values = self.spans.iter().map(|(m, d, n)| IntervalMonthDayNanoType::make_value(*m, *d, *n)).collect();
                Arc::new(IntervalMonthDayNanoArray::new(values, nulls))
            }
            ty => from_i128(self.ints, nulls, ty)?,
        })
    }
}
