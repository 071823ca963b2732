//! The rows of one partition that are not in a segment yet.
//!
//! Rows that a shard key picks from a batch stay where they are: the buffer keeps the batch and their numbers, and each column is
//! gathered once, when the segment is built.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, NullBufferBuilder, PrimitiveArray, StringViewArray, UInt32Array,
};
use arrow::buffer::{Buffer, ScalarBuffer};
use arrow::compute::{concat, take};
use arrow::datatypes::DataType;

use super::origin::Origin;
use crate::Result;
use crate::native::with_primitive;

/// Some rows of a batch of canonical columns.
pub(crate) struct Rows {
    columns: Arc<[ArrayRef]>,
    /// Their numbers, ascending; all rows if there are none.
    picked: Option<Vec<u32>>,
    /// Where they came from, if an error may have to say so.
    origin: Option<Origin>,
}

impl Rows {
    pub(crate) fn all(columns: Arc<[ArrayRef]>, origin: Option<Origin>) -> Rows {
        Rows { columns, picked: None, origin }
    }

    /// The picked rows. If they are few beside the batch, they are copied, so that they do not keep all of it in memory.
    pub(crate) fn picked(
        columns: &Arc<[ArrayRef]>,
        picked: Vec<u32>,
        partitions: usize,
        origin: Option<&Origin>,
    ) -> Result<Rows> {
        let rows = columns.first().map_or(0, Array::len);
        if picked.len() == rows {
            return Ok(Rows::all(Arc::clone(columns), origin.cloned()));
        }
        let origin = origin.map(|origin| origin.picked(&picked));
        if picked.len() * 2 * partitions >= rows {
            return Ok(Rows { columns: Arc::clone(columns), picked: Some(picked), origin });
        }
        let picked = UInt32Array::from(picked);
        let copied = columns.iter().map(|c| Ok(owned(take(c, &picked, None)?))).collect::<Result<Vec<_>>>()?;
        Ok(Rows::all(copied.into(), origin))
    }

    /// How many they are and where they came from, if that is known.
    pub(crate) fn origin(&self) -> Option<(usize, Origin)> {
        Some((self.len(), self.origin.clone()?))
    }

    fn len(&self) -> usize {
        self.picked.as_ref().map_or_else(|| self.columns.first().map_or(0, Array::len), Vec::len)
    }

    /// Splits off the rows from `at` on.
    fn split_off(&mut self, at: usize) -> Rows {
        let origin = self.origin.as_ref().map(|origin| origin.after(at));
        if let Some(picked) = &mut self.picked {
            return Rows { columns: Arc::clone(&self.columns), picked: Some(picked.split_off(at)), origin };
        }
        let length = self.len();
        let rest = self.columns.iter().map(|c| c.slice(at, length - at)).collect();
        self.columns = self.columns.iter().map(|c| c.slice(0, at)).collect();
        Rows::all(rest, origin)
    }
}

/// Strings without the buffers of the batch that they were taken from.
fn owned(array: ArrayRef) -> ArrayRef {
    if let DataType::Utf8View = array.data_type() { Arc::new(array.as_string_view().gc()) } else { array }
}

/// The buffer.
#[derive(Default)]
pub(crate) struct RowBuffer {
    parts: VecDeque<Rows>,
    rows: usize,
}

impl RowBuffer {
    pub(crate) fn push(&mut self, rows: Rows) {
        if rows.len() > 0 {
            self.rows += rows.len();
            self.parts.push_back(rows);
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Takes the first `rows` rows, or all if there are fewer.
    pub(crate) fn take(&mut self, rows: usize) -> Vec<Rows> {
        let (mut taken, mut missing) = (Vec::new(), rows.min(self.rows));
        self.rows -= missing;
        while missing > 0 {
            let Some(mut part) = self.parts.pop_front() else { break };
            if part.len() > missing {
                self.parts.push_front(part.split_off(missing));
            }
            missing -= part.len();
            taken.push(part);
        }
        taken
    }
}

/// One column of all rows as one array.
pub(crate) fn gather(parts: &[Rows], ordinal: usize) -> Result<ArrayRef> {
    let arrays: Vec<&ArrayRef> = parts.iter().map(|p| &p.columns[ordinal]).collect();
    if let [Rows { picked: None, .. }] = parts {
        return Ok(Arc::clone(arrays[0]));
    }
    let Some(first) = arrays.first() else { return Ok(arrow::array::new_empty_array(&DataType::Null)) };
    let ty = first.data_type();
    if *ty == DataType::Utf8View {
        return Ok(Arc::new(gather_strings(parts, ordinal)));
    }
    with_primitive!(first, typed => Ok(Arc::new(gather_primitive(parts, ordinal, typed))), _ => {
        let taken = parts.iter().map(|part| match &part.picked {
            None => Ok(Arc::clone(&part.columns[ordinal])),
            Some(picked) => take(&part.columns[ordinal], &UInt32Array::from(picked.clone()), None),
        });
        let taken = taken.collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(concat(&taken.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>())?)
    })
}

/// `like` is only there for the type.
fn gather_primitive<T: ArrowPrimitiveType>(parts: &[Rows], ordinal: usize, like: &PrimitiveArray<T>) -> PrimitiveArray<T> {
    let mut values: Vec<T::Native> = Vec::with_capacity(parts.iter().map(Rows::len).sum());
    for part in parts {
        let from = part.columns[ordinal].as_primitive::<T>().values();
        match &part.picked {
            None => values.extend_from_slice(from),
            Some(picked) => values.extend(picked.iter().map(|row| from[*row as usize])),
        }
    }
    PrimitiveArray::new(values.into(), gather_nulls(parts, ordinal)).with_data_type(like.data_type().clone())
}

fn gather_strings(parts: &[Rows], ordinal: usize) -> StringViewArray {
    let mut views: Vec<u128> = Vec::with_capacity(parts.iter().map(Rows::len).sum());
    let mut buffers: Vec<Buffer> = Vec::new();
    for part in parts {
        let array = part.columns[ordinal].as_string_view();
        // Bits 0..32 of a view are the length; of a string longer than 12 bytes, bits 64..96 are the number of its buffer.
        let shift = (buffers.len() as u128) << 64;
        let moved = |view: &u128| if *view as u32 > 12 { view.wrapping_add(shift) } else { *view };
        match &part.picked {
            None => views.extend(array.views().iter().map(moved)),
            Some(picked) => views.extend(picked.iter().map(|row| moved(&array.views()[*row as usize]))),
        }
        buffers.extend(array.data_buffers().iter().cloned());
    }
    let nulls = gather_nulls(parts, ordinal);
    if let Some(nulls) = &nulls {
        // What stands for NULL may be anything; here it is the empty string.
        views.iter_mut().zip(nulls).filter(|(_, valid)| !valid).for_each(|(view, _)| *view = 0);
    }
    // SAFETY: each view is of a valid array, with its buffer's new number. Numbers do not overflow: all buffers are in memory, and
    // even of one byte each there cannot be 2^32 of them with a segment's rows.
    unsafe { StringViewArray::new_unchecked(ScalarBuffer::from(views), buffers, nulls) }
}

fn gather_nulls(parts: &[Rows], ordinal: usize) -> Option<arrow::buffer::NullBuffer> {
    let mut nulls = NullBufferBuilder::new(parts.iter().map(Rows::len).sum());
    for part in parts {
        match (part.columns[ordinal].nulls(), &part.picked) {
            (None, _) => nulls.append_n_non_nulls(part.len()),
            (Some(valid), None) => nulls.append_buffer(valid),
            (Some(valid), Some(picked)) => picked.iter().for_each(|row| nulls.append(valid.is_valid(*row as usize))),
        }
    }
    nulls.finish()
}
