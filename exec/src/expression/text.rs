//! Strings: substring and concatenation.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray, StringViewBuilder, make_view};
use arrow::buffer::NullBuffer;
use stoa_plan::DataType;

use super::node::Compiled;
use super::value::Evaluated;
use crate::{Batch, Error, Result};

/// `substring(input, start, length)` with constants, in characters from 1.
#[derive(Debug)]
pub(crate) struct Substring {
    pub(crate) input: Compiled,
    pub(crate) start: i64,
    pub(crate) length: Option<i64>,
}

impl Substring {
    pub(crate) fn evaluate(&self, batch: &Batch) -> Result<Evaluated> {
        let value = self.input.flat(batch)?;
        let array = crate::batch::canonical(value.array(), DataType::Utf8)?;
        let strings = array.as_string_view();
        let skip = usize::try_from(self.start.saturating_sub(1).max(0)).unwrap_or(usize::MAX);
        let end =
            self.length.map(|n| usize::try_from(self.start.saturating_sub(1).saturating_add(n).max(0)).unwrap_or(usize::MAX));
        let data: Vec<&[u8]> = strings.data_buffers().iter().map(arrow::buffer::Buffer::as_slice).collect();
        let mut views = Vec::with_capacity(strings.len());
        for view in strings.views() {
            let len = *view as u32 as usize;
            let inline = view.to_le_bytes();
            let (index, offset) = ((view >> 64) as u32, (view >> 96) as u32);
            let bytes =
                if len <= 12 { &inline[4..4 + len] } else { &data[index as usize][offset as usize..offset as usize + len] };
            let (from, to) = cut(bytes, skip, end);
            views.push(make_view(&bytes[from..to], index, offset + from as u32));
        }
        let result = StringViewArray::try_new(views.into(), strings.data_buffers().to_vec(), strings.nulls().cloned())?;
        Ok(value.with(Arc::new(result)))
    }
}

/// The bytes of the characters `skip..end`.
fn cut(bytes: &[u8], skip: usize, end: Option<usize>) -> (usize, usize) {
    let end = end.unwrap_or(usize::MAX).max(skip);
    if bytes.is_ascii() {
        return (skip.min(bytes.len()), end.min(bytes.len()));
    }
    let place = |n: usize| {
        let mut starts = bytes.iter().enumerate().filter(|(_, b)| **b & 0xC0 != 0x80).map(|(i, _)| i);
        starts.nth(n).unwrap_or(bytes.len())
    };
    (place(skip), place(end))
}

/// `left || right`: NULL if either is.
#[derive(Debug)]
pub(crate) struct Concat {
    pub(crate) left: Compiled,
    pub(crate) right: Compiled,
}

impl Concat {
    pub(crate) fn evaluate(&self, batch: &Batch) -> Result<Evaluated> {
        let (left, right) = (self.left.flat(batch)?, self.right.flat(batch)?);
        let scalar = left.is_scalar() && right.is_scalar();
        let rows = if scalar { 1 } else { batch.rows };
        let text = |value: &Evaluated| -> Result<ArrayRef> {
            let array = super::cast::cast_array(value.array(), &DataType::Utf8.to_arrow(), false)?;
            value.with(array).into_array(rows)
        };
        let (l, r) = (text(&left)?, text(&right)?);
        let (l, r) = (l.as_string_view_opt(), r.as_string_view_opt());
        let Some((l, r)) = l.zip(r) else { return Err(Error::Internal("|| of no strings".into())) };
        let nulls = NullBuffer::union(l.nulls(), r.nulls());
        let mut builder = StringViewBuilder::with_capacity(rows);
        let mut joined = String::new();
        for row in 0..rows {
            if nulls.as_ref().is_some_and(|n| n.is_null(row)) {
                builder.append_null();
                continue;
            }
            joined.clear();
            joined.push_str(l.value(row));
            joined.push_str(r.value(row));
            builder.append_value(&joined);
        }
        let array: ArrayRef = Arc::new(builder.finish());
        Ok(if scalar { Evaluated::Scalar(array) } else { Evaluated::Array(array) })
    }
}
