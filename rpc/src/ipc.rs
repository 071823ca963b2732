//! Rows on the wire: chunks that each are a whole Arrow IPC stream, so that every one can be read without those before it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;

use crate::{Failure, FailureKind, Result};

/// Bytes that a chunk aims at: big enough that calls cost nothing beside it, small enough that several may wait.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Bytes that a chunk has beside its rows, about.
const ABOUT: usize = 1 << 10;

/// Writes batches as chunks, each handed to `each`.
///
/// # Errors
/// Those of `each`; fatal if a type has no form in Arrow IPC.
pub fn write_chunks(batches: &[RecordBatch], each: &mut dyn FnMut(Vec<u8>) -> Result<()>) -> Result<()> {
    let mut waiting: Vec<RecordBatch> = Vec::new();
    let mut bytes = 0;
    for batch in batches {
        let size = row_bytes(batch).div_ceil(batch.num_rows().max(1)).max(1);
        let step = (CHUNK_BYTES / size).max(1);
        for first in (0..batch.num_rows()).step_by(step) {
            let part = compact(&batch.slice(first, step.min(batch.num_rows() - first)))?;
            bytes += part.num_rows() * size;
            waiting.push(part);
            if bytes >= CHUNK_BYTES {
                each(chunk(&waiting[0].schema(), &waiting)?)?;
                waiting.clear();
                bytes = 0;
            }
        }
    }
    match waiting.first() {
        Some(first) => each(chunk(&first.schema(), &waiting)?),
        None => Ok(()),
    }
}

/// A whole batch as one chunk.
///
/// # Errors
/// As [`chunk`].
pub fn one_chunk(batch: &RecordBatch) -> Result<Vec<u8>> {
    chunk(&batch.schema(), &[compact(batch)?])
}

/// A chunk of these batches; of none, only their columns.
///
/// # Errors
/// Fatal if a type has no form in Arrow IPC.
pub fn chunk(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>> {
    let rows = batches.iter().map(row_bytes).sum::<usize>();
    let mut writer = StreamWriter::try_new(Vec::with_capacity(rows + rows / 8 + ABOUT), schema).map_err(unsendable)?;
    for batch in batches {
        writer.write(batch).map_err(unsendable)?;
    }
    writer.into_inner().map_err(unsendable)
}

#[allow(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn unsendable(error: ArrowError) -> Failure {
    Failure::new(FailureKind::Fatal, format!("rows cannot be sent: {error}"))
}

/// The columns and the batches of a chunk, whose bytes they share. They may come from anyone: all lengths, offsets and text are checked.
///
/// # Errors
/// The sender's fault, if it is no Arrow IPC stream.
pub fn read_chunk(bytes: impl Into<Buffer>) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let refused =
        |why: String| Failure::new(FailureKind::User, format!("rows that came from another process cannot be read: {why}"));
    let bad = |e: ArrowError| refused(e.to_string());
    // The decoder validates lengths and text and allocates nothing that a length in the bytes asks for, but a hostile schema may
    // still make it panic: that is an error like any other.
    let mut rest = bytes.into();
    let read = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let mut decoder = StreamDecoder::new();
        let mut batches = Vec::new();
        while !rest.is_empty() {
            batches.extend(decoder.decode(&mut rest).map_err(bad)?);
        }
        decoder.finish().map_err(bad)?;
        let schema = decoder.schema().ok_or_else(|| bad(ArrowError::IpcError("it names no columns".into())))?;
        Ok((schema, batches))
    }));
    read.unwrap_or_else(|_| Err(refused("they are damaged".into())))
}

/// About how many bytes the rows of a batch take, without what their buffers have besides.
#[must_use]
fn row_bytes(batch: &RecordBatch) -> usize {
    let rows = batch.num_rows();
    let column = |array: &ArrayRef| match array.data_type() {
        DataType::Utf8View => 16 * rows + array.as_string_view().lengths().filter(|l| *l > 12).map(|l| l as usize).sum::<usize>(),
        ty => ty.primitive_width().map_or_else(|| array.get_array_memory_size(), |width| width * rows),
    };
    batch.columns().iter().map(column).sum()
}

/// The batch with strings that hold no more bytes than they need: views may share buffers with much larger columns.
fn compact(batch: &RecordBatch) -> Result<RecordBatch> {
    let column = |array: &ArrayRef| match array.data_type() {
        DataType::Utf8View => Arc::new(array.as_string_view().gc()) as ArrayRef,
        _ => array.clone(),
    };
    let columns = batch.columns().iter().map(column).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options).map_err(unsendable)
}

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryArray, Decimal64Array, Decimal128Array, Int64Array, StringViewArray};

    use super::*;

    fn batch(rows: usize) -> RecordBatch {
        let text: Vec<String> = (0..rows).map(|i| format!("a text that does not fit into a view: {i}")).collect();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("a", Arc::new(Int64Array::from_iter((0..rows as i64).map(|i| (i % 7 > 0).then_some(i))))),
            ("b", Arc::new(StringViewArray::from_iter_values(&text))),
            ("c", Arc::new(Decimal64Array::from_iter_values(0..rows as i64).with_precision_and_scale(12, 2).unwrap())),
            ("d", Arc::new(Decimal128Array::from_iter_values(0..rows as i128).with_precision_and_scale(38, 2).unwrap())),
            ("e", Arc::new(BinaryArray::from_iter_values(text.iter().map(String::as_bytes)))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn rows_come_back_in_chunks() {
        let all = batch(50_000);
        let mut chunks = Vec::new();
        let parts = [all.slice(0, 3), all.slice(3, 49_996), all.slice(49_999, 1)];
        write_chunks(&parts, &mut |chunk| {
            chunks.push(chunk);
            Ok(())
        })
        .unwrap();
        assert!(chunks.len() > 4 && chunks.iter().all(|c| c.len() < 2 * CHUNK_BYTES), "{} chunks", chunks.len());
        let back: Vec<RecordBatch> = chunks.into_iter().flat_map(|c| read_chunk(c).unwrap().1).collect();
        assert_eq!(arrow::compute::concat_batches(&all.schema(), &back).unwrap(), all);
        let (schema, none) = read_chunk(chunk(&all.schema(), &[]).unwrap()).unwrap();
        assert_eq!((schema, none.len()), (all.schema(), 0));
    }

    #[test]
    fn damaged_chunks_are_errors() {
        let small = batch(3);
        let bytes = chunk(&small.schema(), &[small]).unwrap();
        for cut in 0..bytes.len() {
            let _ = read_chunk(&bytes[..cut]);
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let _ = read_chunk(damaged);
            }
        }
        assert!(read_chunk(&b"none"[..]).is_err());
    }
}
