//! Taking, filtering and concatenating columns in whatever encoding they are, without giving the encoding up.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, DictionaryArray, RecordBatch, StringViewArray, UInt32Array, make_view,
    new_empty_array, new_null_array,
};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType as Arrow, UInt32Type};
use stoa_plan::DataType;

use crate::batch::canonical;
use crate::selected::Kept;
use crate::{Batch, Error, Layout, Result};

/// The rows of `column` at `indices`; a NULL index gives NULL. Indices must be in range.
pub(crate) fn gather(column: &ArrayRef, indices: &UInt32Array) -> Result<ArrayRef> {
    Ok(take(column, indices, None)?)
}

/// The rows of a batch at `indices`.
pub(crate) fn gather_batch(batch: &Batch, indices: &UInt32Array) -> Result<Batch> {
    let columns = batch.columns.iter().map(|c| gather(c, indices)).collect::<Result<_>>()?;
    Ok(Batch { columns, rows: indices.len() })
}

/// The rows of a batch for which `keep` is true; `keep` has no NULLs.
pub(crate) fn filter_batch(batch: &Batch, keep: &BooleanArray) -> Result<Batch> {
    let kept = Kept::new(keep);
    if kept.count == 0 {
        let columns = batch.columns.iter().map(|c| new_empty_array(c.data_type())).collect();
        return Ok(Batch { columns, rows: 0 });
    }
    let columns = batch.columns.iter().map(|c| kept.column(c)).collect::<Result<_>>()?;
    Ok(Batch { columns, rows: kept.count })
}

/// One batch of all rows, in order. Columns of one dictionary stay dictionary codes; other mixtures become canonical.
pub(crate) fn concat_batches(batches: &[Batch], layout: &Layout) -> Result<Batch> {
    if let [only] = batches {
        return Ok(only.clone());
    }
    let columns =
        (0..layout.columns.len()).map(|i| concat_column(batches, i, layout.columns[i].field.ty)).collect::<Result<_>>()?;
    Ok(Batch { columns, rows: batches.iter().map(|b| b.rows).sum() })
}

/// Column `position` of all batches, in order.
pub(crate) fn concat_column(batches: &[Batch], position: usize, ty: DataType) -> Result<ArrayRef> {
    let mut arrays = Vec::with_capacity(batches.len());
    for batch in batches {
        let array = batch.columns.get(position).ok_or_else(|| Error::Internal("a batch lacks a column".into()))?;
        if !array.is_empty() {
            arrays.push(array.clone());
        }
    }
    concat_arrays(&arrays, ty)
}

/// All values of `arrays`, forms of one logical type, in order.
pub(crate) fn concat_arrays(arrays: &[ArrayRef], ty: DataType) -> Result<ArrayRef> {
    match arrays {
        [] => return Ok(new_empty_array(&ty.to_arrow())),
        [only] => return Ok(only.clone()),
        _ => {}
    }
    let first = arrays[0].data_type();
    let same = arrays.iter().all(|a| a.data_type() == first);
    if same && let Some(joined) = concat_codes(arrays)? {
        return Ok(joined);
    }
    if same && !matches!(first, Arrow::Dictionary(..) | Arrow::Utf8View) {
        let all: Vec<&dyn Array> = arrays.iter().map(|a| &**a).collect();
        return Ok(concat(&all)?);
    }
    let flat = arrays.iter().map(|a| canonical(a, ty)).collect::<Result<Vec<_>>>()?;
    if flat[0].data_type() == &Arrow::Utf8View {
        return Ok(concat_views(&flat));
    }
    let all: Vec<&dyn Array> = flat.iter().map(|a| &**a).collect();
    Ok(concat(&all)?)
}

/// Dictionary columns that share their values: concatenates the codes. `None` for anything else.
fn concat_codes(arrays: &[ArrayRef]) -> Result<Option<ArrayRef>> {
    let dictionaries: Vec<&DictionaryArray<UInt32Type>> = arrays.iter().filter_map(|a| a.as_dictionary_opt()).collect();
    let Some(first) = dictionaries.first() else { return Ok(None) };
    if dictionaries.len() != arrays.len() || !dictionaries.iter().all(|d| Arc::ptr_eq(d.values(), first.values())) {
        return Ok(None);
    }
    let keys: Vec<&dyn Array> = dictionaries.iter().map(|d| d.keys() as &dyn Array).collect();
    let keys = concat(&keys)?;
    let keys = keys.as_primitive::<UInt32Type>().clone();
    Ok(Some(Arc::new(DictionaryArray::try_new(keys, first.values().clone())?)))
}

/// String views of several arrays; buffers that they share are listed once.
fn concat_views(arrays: &[ArrayRef]) -> ArrayRef {
    let total = arrays.iter().map(Array::len).sum();
    let mut views: Vec<u128> = Vec::with_capacity(total);
    let mut buffers: Vec<Buffer> = Vec::new();
    let mut numbers: HashMap<(usize, usize), u32> = HashMap::new();
    for array in arrays {
        let array = array.as_string_view();
        let map: Vec<u32> = array
            .data_buffers()
            .iter()
            .map(|buffer| {
                *numbers.entry((buffer.as_ptr() as usize, buffer.len())).or_insert_with(|| {
                    buffers.push(buffer.clone());
                    (buffers.len() - 1) as u32
                })
            })
            .collect();
        if map.iter().enumerate().all(|(i, n)| i == *n as usize) {
            views.extend_from_slice(array.views());
        } else {
            views.extend(array.views().iter().map(|view| renumber(*view, &map)));
        }
    }
    let nulls = concat_nulls(arrays, total);
    // SAFETY: every view is a valid view of one of the inputs, and its buffer number was mapped to the same buffer in `buffers`;
    // NULL slots may hold any view that passed the same mapping.
    Arc::new(unsafe { StringViewArray::new_unchecked(ScalarBuffer::from(views), buffers, nulls) })
}

/// A view with its buffer number looked up in `map`; inline views are as they are.
fn renumber(view: u128, map: &[u32]) -> u128 {
    if view as u32 <= 12 {
        return view;
    }
    let old = (view >> 64) as u32;
    match map.get(old as usize) {
        Some(new) => (view & !(u128::from(u32::MAX) << 64)) | (u128::from(*new) << 64),
        None => make_view(b"", 0, 0),
    }
}

/// The validity of all arrays in order; `None` if none has NULLs.
pub(crate) fn concat_nulls(arrays: &[ArrayRef], total: usize) -> Option<NullBuffer> {
    if arrays.iter().all(|a| a.null_count() == 0) {
        return None;
    }
    let mut builder = arrow::array::BooleanBufferBuilder::new(total);
    for array in arrays {
        match array.nulls() {
            Some(nulls) => builder.append_buffer(nulls.inner()),
            None => builder.append_n(array.len(), true),
        }
    }
    Some(NullBuffer::new(builder.finish()))
}

/// `rows` NULLs in every column of a layout.
pub(crate) fn null_columns<'a>(types: impl Iterator<Item = &'a DataType>, rows: usize) -> Vec<ArrayRef> {
    types.map(|ty| new_null_array(&ty.to_arrow(), rows)).collect()
}

/// Bytes that batches hold, shared buffers counted once.
pub(crate) fn distinct_bytes(batch: &Batch) -> usize {
    batch.columns.iter().map(own_bytes).sum()
}

/// Bytes of the rows of a batch, whatever else is in the buffers that hold them.
#[must_use]
pub fn row_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(own_bytes).sum()
}

/// Bytes of an array's own rows, without the dictionary or string buffers that it shares with storage.
fn own_bytes(column: &ArrayRef) -> usize {
    let rows = column.len();
    let values = match column.data_type() {
        Arrow::Dictionary(..) => rows * 4,
        Arrow::Utf8View => rows * 16 + column.as_string_view().views().iter().map(|v| long_bytes(*v)).sum::<usize>(),
        Arrow::Boolean => rows / 8,
        other => match other.primitive_width() {
            Some(width) => rows * width,
            None => column.get_array_memory_size(),
        },
    };
    values + if column.nulls().is_some() { rows / 8 } else { 0 }
}

/// Bytes of a string that its view does not hold inline.
fn long_bytes(view: u128) -> usize {
    if view as u32 <= 12 { 0 } else { view as u32 as usize }
}
