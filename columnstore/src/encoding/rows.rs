//! Rows as the log and the manifest have them: every column as it is, for what is written at once and read once at most.
//!
//! ```text
//! rows   = count:u32 { nulls values }              for each column of the table
//! values = little-endian values                    integers, decimals, dates, floats
//!        | bit per row, LSB first                  booleans
//!        | [length:u32; count] bytes               strings, binary
//! ```

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::buffer::{BooleanBuffer, Buffer};
use arrow::datatypes::DataType;

use super::condition::Kind;
use super::layout::Reader;
use super::nulls::Nulls;
use super::plain::{aligned, width, write_bits};
use super::text::Slices;
use super::values::{damaged, fixed_array, strings, text_array};
use crate::native::with_primitive;
use crate::{Error, Result};

/// Writes rows of canonical columns.
pub(crate) fn write_rows(columns: &[ArrayRef]) -> Result<Vec<u8>> {
    let rows = columns.first().map_or(0, Array::len);
    let count = u32::try_from(rows).map_err(|_| Error::Invalid(format!("{rows} rows are too many for one commit")))?;
    let mut out = Vec::with_capacity(64 + rows * columns.len() * 8);
    out.extend(count.to_le_bytes());
    for column in columns {
        Nulls::write(column.nulls(), &mut out);
        with_primitive!(column, values => out.extend_from_slice(values.values().inner().as_slice()), _ => {
            write_others(column, &mut out)?;
        });
    }
    Ok(out)
}

fn write_others(column: &ArrayRef, out: &mut Vec<u8>) -> Result<()> {
    if let Some(booleans) = column.as_boolean_opt() {
        write_bits(booleans.values(), out);
        return Ok(());
    }
    let Some(values) = strings(column) else {
        return Err(Error::Invalid(format!("a column cannot be of type {}", column.data_type())));
    };
    for value in &values {
        let length = u32::try_from(value.len()).map_err(|_| Error::Invalid("a value of more than 4 GiB".into()))?;
        out.extend(length.to_le_bytes());
    }
    values.iter().for_each(|value| out.extend_from_slice(value));
    Ok(())
}

/// Reads rows of columns of these types.
pub(crate) fn read_rows<'a>(types: impl Iterator<Item = &'a DataType>, bytes: &[u8]) -> Result<Vec<ArrayRef>> {
    let mut reader = Reader::new(Buffer::from_slice_ref(bytes));
    let rows = reader.u32().map_err(damaged)? as usize;
    let columns = types.map(|ty| read_column(ty, rows, &mut reader)).collect::<Result<_>>()?;
    match reader.rest().len() {
        0 => Ok(columns),
        more => Err(damaged(format!("{more} bytes more than its rows take"))),
    }
}

fn read_column(ty: &DataType, rows: usize, reader: &mut Reader) -> Result<ArrayRef> {
    let kind = Kind::of(ty).ok_or_else(|| damaged(format!("type {ty}")))?;
    let nulls = Nulls::open(reader, rows).map_err(damaged)?;
    let nulls = if rows == 0 { None } else { nulls.read(0, rows, None) };
    if let Some(width) = width(kind) {
        let values = reader.take(rows.checked_mul(width).ok_or_else(|| damaged("too many rows"))?).map_err(damaged)?;
        return fixed_array(ty, aligned(values, width), rows, nulls);
    }
    if kind == Kind::Bool {
        let bits = reader.take(rows.div_ceil(8)).map_err(damaged)?;
        return Ok(std::sync::Arc::new(BooleanArray::new(BooleanBuffer::new(bits, 0, rows), nulls)));
    }
    let lengths = reader.u32s(rows).map_err(damaged)?;
    let mut end = 0u32;
    let mut places = Vec::with_capacity(rows);
    for length in lengths {
        places.push((end, length));
        end = end.checked_add(length).ok_or_else(|| damaged("more than 4 GiB of strings"))?;
    }
    let bytes = reader.take(end as usize).map_err(damaged)?;
    text_array(kind, Slices { buffer: Buffer::from_slice_ref(bytes.as_slice()), places }, nulls)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BinaryArray, Decimal128Array, Int16Array, Int64Array, StringViewArray};

    use super::*;

    fn columns() -> Vec<ArrayRef> {
        vec![
            Arc::new(Int64Array::from(vec![1, -2, i64::MAX])),
            Arc::new(Int16Array::from(vec![None, Some(7), Some(-7)])),
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
            Arc::new(StringViewArray::from(vec![Some("naïve"), Some("longer than twelve bytes"), None])),
            Arc::new(BinaryArray::from(vec![Some(&[0u8, 255][..]), Some(&[]), None])),
            Arc::new(Decimal128Array::from(vec![1 << 100, -1, 0]).with_precision_and_scale(38, 4).expect("fits")),
        ]
    }

    fn read(columns: &[ArrayRef], bytes: &[u8]) -> Result<Vec<ArrayRef>> {
        read_rows(columns.iter().map(Array::data_type), bytes)
    }

    #[test]
    fn what_is_written_is_read() {
        let all = columns();
        for (from, rows) in [(0, 3), (1, 2), (2, 1), (0, 0)] {
            let part: Vec<ArrayRef> = all.iter().map(|column| column.slice(from, rows)).collect();
            assert_eq!(read(&part, &write_rows(&part).expect("written")).expect("read"), part);
        }
        let one: [ArrayRef; 1] = [Arc::new(Int64Array::from(vec![5]))];
        assert_eq!(write_rows(&one).expect("written"), [1, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn damaged_bytes_are_an_error_or_other_rows() {
        let all = columns();
        let bytes = write_rows(&all).expect("written");
        for end in 0..bytes.len() {
            assert!(read(&all, &bytes[..end]).is_err(), "cut at {end}");
        }
        assert!(read(&all, &[&bytes[..], &[0]].concat()).is_err());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                if let Ok(columns) = read(&all, &damaged) {
                    assert!(columns.iter().all(|column| column.len() == 3));
                }
            }
        }
    }
}
