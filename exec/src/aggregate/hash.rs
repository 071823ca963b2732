//! Hashes of keys.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType as Arrow, Float32Type, Float64Type, IntervalMonthDayNanoType, UInt32Type};

use crate::Result;
use crate::expression::{Evaluated, Ints};

const K: u64 = 0x9E37_79B9_7F4A_7C15;

/// Hash of an integer: a 128-bit product, folded.
#[inline]
pub(crate) fn hash_u64(value: u64) -> u64 {
    fold(value ^ 0x2545_F491_4F6C_DD1D, K)
}

/// Hash of `value` after `seed`.
#[inline]
pub(crate) fn combine(seed: u64, value: u64) -> u64 {
    fold(seed.rotate_left(23) ^ value ^ 0xA076_1D64_78BD_642F, K)
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

/// Hash of bytes, eight at a time.
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = hash_u64(bytes.len() as u64);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        hash = combine(hash, u64::from_le_bytes(chunk.try_into().unwrap_or_default()));
    }
    let mut last = [0; 8];
    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    combine(hash, u64::from_le_bytes(last))
}

/// One hash per row over all columns; equal values hash alike whatever their encoding.
pub(crate) fn hash_columns(columns: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
    let mut hashes = vec![0; rows];
    for column in columns {
        let values = column_hashes(column)?;
        for (row, hash) in hashes.iter_mut().enumerate() {
            let value = if column.is_valid(row) { values[row] } else { K };
            *hash = combine(*hash, value);
        }
    }
    Ok(hashes)
}

/// One hash per element; what it is for NULLs is of no meaning.
pub(crate) fn column_hashes(column: &ArrayRef) -> Result<Vec<u64>> {
    Ok(match column.data_type() {
        Arrow::Dictionary(..) => {
            let dictionary = column.as_dictionary::<UInt32Type>();
            let entries = column_hashes(dictionary.values())?;
            dictionary.keys().values().iter().map(|k| entries.get(*k as usize).copied().unwrap_or(0)).collect()
        }
        Arrow::Utf8View => {
            let strings = column.as_string_view();
            (0..strings.len()).map(|row| hash_bytes(strings.value(row).as_bytes())).collect()
        }
        Arrow::Binary => {
            let bytes = column.as_binary::<i32>();
            (0..bytes.len()).map(|row| hash_bytes(bytes.value(row))).collect()
        }
        Arrow::Float64 => column.as_primitive::<Float64Type>().values().iter().map(|v| hash_u64(v.to_bits())).collect(),
        Arrow::Float32 => {
            column.as_primitive::<Float32Type>().values().iter().map(|v| hash_u64(f64::from(*v).to_bits())).collect()
        }
        Arrow::Interval(_) => {
            let values = column.as_primitive::<IntervalMonthDayNanoType>().values();
            values.iter().map(|v| combine(hash_u64(v.months as u64 ^ ((v.days as u64) << 32)), v.nanoseconds as u64)).collect()
        }
        Arrow::Decimal128(..) => {
            let ints = Ints::<i128>::of(&Evaluated::Array(column.clone()))?;
            ints.slice().unwrap_or_default().iter().map(|v| wide(*v)).collect()
        }
        Arrow::Null => vec![0; column.len()],
        _ => {
            let ints = Ints::<i64>::of(&Evaluated::Array(column.clone()))?;
            ints.slice().unwrap_or_default().iter().map(|v| hash_u64(*v as u64)).collect()
        }
    })
}

/// Alike for narrow and wide decimals.
fn wide(value: i128) -> u64 {
    match i64::try_from(value) {
        Ok(small) => hash_u64(small as u64),
        Err(_) => combine(hash_u64(value as u64), (value >> 64) as u64),
    }
}
