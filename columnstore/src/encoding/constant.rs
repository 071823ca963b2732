//! One value for every row; with every row NULL, the value does not matter.
//!
//! ```text
//! constant = entries:child of one row
//! ```

use arrow::array::{Array, ArrayRef};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;

use super::condition::Kind;
use super::layout::{self, Reader};
use super::{dictionary, entries, estimate};
use crate::Result;

/// A column of one value.
#[derive(Debug)]
pub(super) struct Constant {
    entries: ArrayRef,
}

/// Writes the payload; `row` is one that has the value.
pub(super) fn write(array: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Result<()> {
    let entries = estimate::encode_entries(&array.slice(row, 1))?;
    layout::child(out, entries.encoding, 1, &entries.bytes)
}

impl Constant {
    /// Reads and checks the payload.
    pub(super) fn open(reader: &mut Reader, ty: &DataType) -> std::result::Result<Self, String> {
        let (entries, _) = entries::open(reader, ty)?;
        if entries.len() == 1 { Ok(Constant { entries }) } else { Err("not one value".into()) }
    }

    /// The value.
    pub(super) fn entries(&self) -> &ArrayRef {
        &self.entries
    }

    /// Reads rows.
    pub(super) fn read(&self, kind: Kind, rows: usize, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let codes = vec![0; rows];
        if kind == Kind::Utf8 {
            return Ok(dictionary::dictionary_array(codes, &self.entries, nulls));
        }
        entries::gather(&self.entries, kind, &codes, nulls)
    }
}
