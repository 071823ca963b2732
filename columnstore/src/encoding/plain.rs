//! Values as they are in memory.
//!
//! ```text
//! plain = padding to a multiple of 64 from the blob's start, little-endian values      integers, decimals, dates, floats
//!       | bit per row, LSB first                                                        booleans
//!       | text-framing (groups of 8) bytes                                              strings, binary
//! ```
//! Reading whole ranges copies nothing: arrays point into the blob.

use arrow::array::BooleanArray;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::datatypes::DataType;

use super::condition::{Condition, IntCondition, Kind, float_key};
use super::fsst::GROUP;
use super::layout::{self, Reader};
use super::packed::kernel_mask;
use super::text::{self, Framing};
use super::values::{damaged, fixed_array, text_array};
use super::width::{PACKED, WORDS};
use crate::{Error, Result};

/// A plain column.
#[derive(Debug)]
pub(super) enum Plain {
    /// Aligned values of so many bytes.
    Fixed(Buffer, usize),
    /// Bits.
    Bits(BooleanBuffer),
    /// Strings.
    Text(Framing, Buffer),
}

/// Bytes of a value of a fixed width.
pub(super) fn width(kind: Kind) -> Option<usize> {
    match kind {
        Kind::Int { bytes, .. } => Some(bytes),
        Kind::Float32 => Some(4),
        Kind::Float64 => Some(8),
        Kind::Bool | Kind::Utf8 | Kind::Binary => None,
    }
}

/// Writes the payload.
pub(super) fn write(array: &ArrayRef, kind: Kind, out: &mut Vec<u8>) -> Result<()> {
    if let Some(width) = width(kind) {
        layout::align(out, 64);
        let data = array.to_data();
        let start = data.offset() * width;
        out.extend_from_slice(&data.buffers()[0].as_slice()[start..start + array.len() * width]);
        return Ok(());
    }
    if kind == Kind::Bool {
        write_bits(array.as_boolean().values(), out);
        return Ok(());
    }
    let Some(values) = super::values::strings(array) else {
        return Err(Error::Invalid(format!("a column cannot be of type {}", array.data_type())));
    };
    write_text(&values, out)
}

/// Writes a bit a row.
pub(super) fn write_bits(values: &BooleanBuffer, out: &mut Vec<u8>) {
    let mut bits = vec![0u8; values.len().div_ceil(8)];
    values.set_indices().for_each(|row| bits[row / 8] |= 1 << (row % 8));
    out.extend(bits);
}

fn write_text(values: &[&[u8]], out: &mut Vec<u8>) -> Result<()> {
    let (mut starts, mut end) = (vec![0u32], 0usize);
    for group in values.chunks(GROUP) {
        end += group.iter().map(|v| v.len()).sum::<usize>();
        starts.push(u32::try_from(end).map_err(|_| Error::Invalid("a column of more than 4 GiB a segment".into()))?);
    }
    let lengths: Vec<u64> = values.iter().map(|v| v.len() as u64).collect();
    text::write(&lengths, GROUP, &starts, out);
    values.iter().for_each(|v| out.extend_from_slice(v));
    Ok(())
}

/// A buffer whose address suits values of `width` bytes: the same, or a copy.
pub(super) fn aligned(buffer: Buffer, width: usize) -> Buffer {
    if buffer.as_ptr().align_offset(width) == 0 { buffer } else { Buffer::from_slice_ref(buffer.as_slice()) }
}

impl Plain {
    /// Reads and checks the payload.
    pub(super) fn open(reader: &mut Reader, kind: Kind, rows: usize) -> std::result::Result<Self, String> {
        if let Some(width) = width(kind) {
            reader.align(64)?;
            let values = reader.take(rows.checked_mul(width).ok_or("too many rows")?)?;
            return Ok(Plain::Fixed(aligned(values, width), width));
        }
        if kind == Kind::Bool {
            return Ok(Plain::Bits(BooleanBuffer::new(reader.take(rows.div_ceil(8))?, 0, rows)));
        }
        let framing = Framing::open(reader, rows)?;
        let bytes = reader.rest();
        framing.check(bytes.len())?;
        Ok(Plain::Text(framing, bytes))
    }

    /// Reads rows.
    pub(super) fn read(
        &self,
        ty: &DataType,
        kind: Kind,
        first_row: usize,
        rows: usize,
        selection: Option<&[u32]>,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef> {
        match (self, selection) {
            (Plain::Fixed(values, width), None) => {
                fixed_array(ty, values.slice_with_length(first_row * width, rows * width), rows, nulls)
            }
            (Plain::Fixed(values, width), Some(selection)) => {
                let values = &values.as_slice()[first_row * width..(first_row + rows) * width];
                fixed_array(ty, gather(values, *width, selection), selection.len(), nulls)
            }
            (Plain::Bits(bits), None) => Ok(std::sync::Arc::new(BooleanArray::new(bits.slice(first_row, rows), nulls))),
            (Plain::Bits(bits), Some(selection)) => {
                let bits = BooleanBuffer::collect_bool(selection.len(), |i| bits.value(first_row + selection[i] as usize));
                Ok(std::sync::Arc::new(BooleanArray::new(bits, nulls)))
            }
            (Plain::Text(framing, bytes), selection) => {
                text_array(kind, framing.in_place(bytes, first_row, rows, selection).map_err(damaged)?, nulls)
            }
        }
    }

    /// The framing of strings.
    pub(super) fn framing(&self) -> Option<&Framing> {
        if let Plain::Text(framing, _) = self { Some(framing) } else { None }
    }

    /// Which rows of a block pass a condition on integers, floats or booleans.
    pub(super) fn mask(&self, kind: Kind, condition: &Condition, block: usize, out: &mut [u64; WORDS]) {
        *out = [0; WORDS];
        let (Condition::Int(c) | Condition::Float(c)) = condition else { return };
        match self {
            Plain::Bits(bits) => {
                let rows = (bits.len() - block * PACKED).min(PACKED);
                let (zero, one) = (c.passes(0), c.passes(1));
                for i in 0..rows {
                    let pass = if bits.value(block * PACKED + i) { one } else { zero };
                    out[i / 64] |= u64::from(pass) << (i % 64);
                }
            }
            Plain::Fixed(values, width) => {
                let end = values.len().min((block + 1) * PACKED * width);
                fixed_mask(&values[block * PACKED * width..end], kind, c, out);
            }
            Plain::Text(..) => {}
        }
    }
}

fn fixed_mask(bytes: &[u8], kind: Kind, c: &IntCondition, out: &mut [u64; WORDS]) {
    macro_rules! mask {
        ($ty:ty, $key:expr) => {
            narrow_mask(bytes.as_chunks().0, |raw| $key(<$ty>::from_le_bytes(raw)), c, out)
        };
    }
    match kind {
        Kind::Int { bytes: 1, signed: true } => mask!(i8, i64::from),
        Kind::Int { bytes: 2, signed: true } => mask!(i16, i64::from),
        Kind::Int { bytes: 4, signed: true } => mask!(i32, i64::from),
        Kind::Int { bytes: 8, signed: true } => mask!(i64, i64::from),
        Kind::Int { bytes: 1, signed: false } => mask!(u8, i64::from),
        Kind::Int { bytes: 2, signed: false } => mask!(u16, i64::from),
        Kind::Int { bytes: 4, signed: false } => mask!(u32, i64::from),
        Kind::Float32 => mask!(f32, |v| float_key(f64::from(v))),
        Kind::Float64 => mask!(f64, float_key),
        Kind::Int { bytes: 8, signed: false } => {
            kernel_mask(bytes.as_chunks().0, out, |raw| c.passes(u64::from_le_bytes(raw).into()));
        }
        _ => kernel_mask(bytes.as_chunks().0, out, |raw| c.passes(i128::from_le_bytes(raw))),
    }
}

#[inline]
fn narrow_mask<T: Copy>(values: &[T], key: impl Fn(T) -> i64, c: &IntCondition, out: &mut [u64; WORDS]) {
    match c {
        IntCondition::Range(low, high) => {
            let (Ok(low), Ok(high)) = (i64::try_from((*low).max(i64::MIN.into())), i64::try_from((*high).min(i64::MAX.into())))
            else {
                return;
            };
            if low <= high {
                let width = high.wrapping_sub(low) as u64;
                kernel_mask(values, out, |v| key(v).wrapping_sub(low) as u64 <= width);
            }
        }
        other => kernel_mask(values, out, |v| other.passes(key(v).into())),
    }
}

fn gather(values: &[u8], width: usize, selection: &[u32]) -> Buffer {
    macro_rules! gather {
        ($width:literal, $ty:ty) => {{
            let values = values.as_chunks::<$width>().0;
            Buffer::from_vec(selection.iter().map(|&i| <$ty>::from_le_bytes(values[i as usize])).collect::<Vec<$ty>>())
        }};
    }
    match width {
        1 => gather!(1, i8),
        2 => gather!(2, i16),
        4 => gather!(4, i32),
        8 => gather!(8, i64),
        _ => gather!(16, i128),
    }
}
