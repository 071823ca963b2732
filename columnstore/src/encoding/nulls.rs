//! Which rows are NULL: the first section of every blob that a column has.
//!
//! ```text
//! nulls = form:u8 body          form 0: no row is NULL, no body
//!                               form 1: bit per row, 1 = not NULL, LSB first, ceil(rows/8) bytes
//!                               form 2: length:u32, a Roaring bitmap (portable format) of the rows that are NULL
//!                               form 3: every row is NULL, no body
//! ```
//! The writer takes the smaller of forms 1 and 2. Values of NULL rows are present in the payload, as whatever compresses best.

use arrow::buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer};
use roaring::RoaringBitmap;

use super::layout::Reader;

/// The NULL rows of a column.
#[derive(Debug)]
pub(super) enum Nulls {
    /// No row.
    None,
    /// Every row.
    All,
    /// The rows whose bit is 0.
    Some(NullBuffer),
}

impl Nulls {
    /// Writes the section.
    pub(super) fn write(nulls: Option<&NullBuffer>, out: &mut Vec<u8>) {
        let Some(nulls) = nulls.filter(|n| n.null_count() > 0) else { return out.push(0) };
        if nulls.null_count() == nulls.len() {
            return out.push(3);
        }
        let roaring: RoaringBitmap = (0..nulls.len() as u32).filter(|&row| nulls.is_null(row as usize)).collect();
        if roaring.serialized_size() + 4 < nulls.len() / 8 {
            out.push(2);
            out.extend((roaring.serialized_size() as u32).to_le_bytes());
            // Writing to memory does not fail.
            let _ = roaring.serialize_into(&mut *out);
            return;
        }
        out.push(1);
        let mut bits = vec![0u8; nulls.len().div_ceil(8)];
        for row in nulls.valid_indices() {
            bits[row / 8] |= 1 << (row % 8);
        }
        out.extend(bits);
    }

    /// Reads the section.
    pub(super) fn open(reader: &mut Reader, rows: usize) -> Result<Nulls, String> {
        match reader.u8()? {
            0 => Ok(Nulls::None),
            1 => {
                let bits = reader.take(rows.div_ceil(8))?;
                Ok(Nulls::Some(NullBuffer::new(BooleanBuffer::new(bits, 0, rows))))
            }
            2 => {
                let length = reader.u32()? as usize;
                let bytes = reader.take(length)?;
                let nulls = RoaringBitmap::deserialize_from(bytes.as_slice()).map_err(|e| format!("NULL bitmap: {e}"))?;
                if nulls.max().is_some_and(|row| row as usize >= rows) {
                    return Err("NULL bitmap: a row past the end".into());
                }
                let mut bits = MutableBuffer::from_len_zeroed(rows.div_ceil(8));
                bits.as_slice_mut().fill(0xFF);
                for row in nulls {
                    bits.as_slice_mut()[row as usize / 8] &= !(1 << (row % 8));
                }
                Ok(Nulls::Some(NullBuffer::new(BooleanBuffer::new(bits.into(), 0, rows))))
            }
            3 => Ok(Nulls::All),
            form => Err(format!("unknown form {form} of NULLs")),
        }
    }

    /// NULL rows of a column of `rows`.
    pub(super) fn count(&self, rows: usize) -> usize {
        match self {
            Nulls::None => 0,
            Nulls::All => rows,
            Nulls::Some(nulls) => nulls.null_count(),
        }
    }

    /// The rows of a range, or of a selection in it.
    pub(super) fn read(&self, first_row: usize, rows: usize, selection: Option<&[u32]>) -> Option<NullBuffer> {
        let count = selection.map_or(rows, <[u32]>::len);
        match self {
            Nulls::None => None,
            Nulls::All => Some(NullBuffer::new_null(count)),
            Nulls::Some(nulls) => {
                let read = match selection {
                    None => nulls.slice(first_row, rows),
                    Some(selection) => {
                        NullBuffer::new(BooleanBuffer::collect_bool(count, |i| nulls.is_valid(first_row + selection[i] as usize)))
                    }
                };
                (read.null_count() > 0).then_some(read)
            }
        }
    }

    /// Clears the bits of NULL rows (`valid`), or of those that are not NULL. `first_row` is a multiple of 8.
    pub(super) fn retain(&self, valid: bool, first_row: usize, rows: usize, mask: &mut [u64]) {
        match self {
            Nulls::None if valid => {}
            Nulls::All if !valid => {}
            Nulls::None | Nulls::All => mask.fill(0),
            Nulls::Some(nulls) => {
                let bits: &Buffer = nulls.buffer();
                let first = (nulls.offset() + first_row) / 8;
                let bytes = bits.as_slice().get(first..).unwrap_or_default();
                let flip = if valid { 0 } else { u64::MAX };
                for (i, word) in mask.iter_mut().take(rows.div_ceil(64)).enumerate() {
                    *word &= word_at(bytes, i * 8) ^ flip;
                }
            }
        }
    }
}

/// Eight bytes as a word; bytes past the end are 0.
fn word_at(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    let tail = bytes.get(at..).unwrap_or_default();
    let n = tail.len().min(8);
    raw[..n].copy_from_slice(&tail[..n]);
    u64::from_le_bytes(raw)
}
