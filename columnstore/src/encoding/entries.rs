//! The distinct or repeated values of a column that stores each once: conditions are evaluated once per entry.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, new_null_array};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::datatypes::DataType;

use super::condition::{Condition, Kind};
use super::layout::Reader;
use super::values::{evaluate, fixed_array};
use super::{EncodedColumn, Encoding};
use crate::Result;

/// Entries that pass, and whether NULLs do.
#[derive(Clone, Debug)]
pub(super) struct EntrySet {
    /// Bit per entry, filled up to a power of two of bits.
    pub(super) bits: Vec<u64>,
    /// What the bits look like.
    pub(super) shape: Shape,
    /// Whether a NULL passes, which only a function can say.
    pub(super) null_passes: bool,
}

/// What a set of entries looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Empty.
    Nothing,
    /// Every entry.
    Everything,
    /// Consecutive entries, inclusive.
    Range(u64, u64),
    /// All but consecutive entries, inclusive.
    Outside(u64, u64),
    /// Else.
    Scattered,
}

impl EntrySet {
    /// Evaluates a condition on every entry.
    pub(super) fn evaluate(condition: &Condition, entries: &ArrayRef, nulls: bool) -> Result<EntrySet> {
        let passes = evaluate(condition, entries)?;
        let null_passes = nulls
            && matches!(condition, Condition::Function(_))
            && evaluate(condition, &new_null_array(entries.data_type(), 1))?[0];
        let mut bits = vec![0u64; passes.len().next_power_of_two().div_ceil(64)];
        passes.iter().enumerate().for_each(|(i, &pass)| bits[i / 64] |= u64::from(pass) << (i % 64));
        Ok(EntrySet { bits, shape: shape(&passes), null_passes })
    }

    /// Whether an entry passes.
    pub(super) fn passes(&self, entry: usize) -> bool {
        self.bits.get(entry / 64).is_some_and(|w| w >> (entry % 64) & 1 == 1)
    }
}

fn shape(passes: &[bool]) -> Shape {
    let bounds = |of: bool| {
        let first = passes.iter().position(|&p| p == of)?;
        let last = passes.iter().rposition(|&p| p == of)?;
        Some((first, last, passes[first..=last].iter().all(|&p| p == of)))
    };
    match (bounds(true), bounds(false)) {
        (None, _) => Shape::Nothing,
        (_, None) => Shape::Everything,
        (Some((first, last, true)), _) => Shape::Range(first as u64, last as u64),
        (_, Some((first, last, true))) => Shape::Outside(first as u64, last as u64),
        _ => Shape::Scattered,
    }
}

/// Opens a blob of entries within a blob, and decodes it.
pub(super) fn open(reader: &mut Reader, ty: &DataType) -> std::result::Result<(ArrayRef, String), String> {
    let (encoding, count, bytes) = reader.child()?;
    if !matches!(encoding, Encoding::Plain | Encoding::BitPacked | Encoding::Fsst) {
        return Err(format!("entries cannot be {}", encoding.name()));
    }
    if count > 1 << 20 {
        return Err(format!("{count} entries"));
    }
    let column = EncodedColumn::open(encoding, ty, count, bytes)?;
    let values = column.read(0, count, None).map_err(|e| e.to_string())?;
    Ok((values, column.describe()))
}

/// The array of `entries[code]` for each code, for types other than strings. Every code is below the number of entries.
pub(super) fn gather(entries: &ArrayRef, kind: Kind, codes: &[u32], nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    let data = entries.to_data();
    macro_rules! gather {
        ($ty:ty) => {{
            let values = data.buffer::<$ty>(0);
            Buffer::from_vec(codes.iter().map(|&code| values[code as usize]).collect::<Vec<$ty>>())
        }};
    }
    let buffer = match kind {
        Kind::Int { bytes: 1, .. } => gather!(i8),
        Kind::Int { bytes: 2, .. } => gather!(i16),
        Kind::Int { bytes: 4, .. } | Kind::Float32 => gather!(i32),
        Kind::Int { bytes: 8, .. } | Kind::Float64 => gather!(i64),
        Kind::Int { .. } => gather!(i128),
        Kind::Binary | Kind::Utf8 | Kind::Bool => return gather_other(entries, codes, nulls.as_ref()),
    };
    fixed_array(entries.data_type(), buffer, codes.len(), nulls)
}

fn gather_other(entries: &ArrayRef, codes: &[u32], nulls: Option<&NullBuffer>) -> Result<ArrayRef> {
    let valid = |i: usize| nulls.is_none_or(|n| n.is_valid(i));
    if let Some(entries) = entries.as_binary_opt::<i32>() {
        let values = codes.iter().enumerate().map(|(i, &code)| valid(i).then(|| entries.value(code as usize)));
        return Ok(Arc::new(BinaryArray::from_iter(values)));
    }
    let rows = arrow::array::UInt32Array::new(codes.to_vec().into(), nulls.cloned());
    Ok(arrow::compute::take(entries, &rows, None)?)
}
