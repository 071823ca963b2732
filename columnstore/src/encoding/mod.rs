//! Encodings of a column of a segment: one blob of bytes that filters and reads itself in its encoded form.

mod condition;

use std::io::Cursor;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use crate::{Error, Predicate, Result};
use condition::{Condition, Kind};

/// How a blob holds its column. The discriminant is the tag on disk.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Values as they are in memory.
    Plain = 0,
    /// One value for every row.
    Constant = 1,
    /// Values and the rows at which their runs end.
    RunLength = 2,
    /// Distinct values and bit-packed codes.
    Dictionary = 3,
    /// Frame of reference: per block a base and bit-packed differences to it.
    BitPacked = 4,
    /// Ascending integers: per block a first value and bit-packed steps.
    Delta = 5,
    /// Floats that are decimals, as scaled integers, and exceptions.
    ScaledFloat = 6,
    /// Strings compressed with one symbol table.
    Fsst = 7,
    /// Strings, each block compressed with LZ4.
    Lz4 = 8,
    /// Strings, each block compressed with zstd.
    Zstd = 9,
}

impl Encoding {
    /// Every encoding, in the order of their tags.
    pub const ALL: [Encoding; 10] = [
        Encoding::Plain,
        Encoding::Constant,
        Encoding::RunLength,
        Encoding::Dictionary,
        Encoding::BitPacked,
        Encoding::Delta,
        Encoding::ScaledFloat,
        Encoding::Fsst,
        Encoding::Lz4,
        Encoding::Zstd,
    ];

    /// The encoding of a tag on disk.
    #[must_use]
    pub fn from_tag(tag: u8) -> Option<Encoding> {
        Encoding::ALL.get(usize::from(tag)).copied()
    }

    /// The tag on disk.
    #[must_use]
    pub fn tag(self) -> u8 {
        self as u8
    }

    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Plain => "plain",
            Encoding::Constant => "constant",
            Encoding::RunLength => "run-length",
            Encoding::Dictionary => "dictionary",
            Encoding::BitPacked => "bit-packed",
            Encoding::Delta => "delta",
            Encoding::ScaledFloat => "scaled-float",
            Encoding::Fsst => "fsst",
            Encoding::Lz4 => "lz4",
            Encoding::Zstd => "zstd",
        }
    }
}

/// An encoded column.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// How.
    pub encoding: Encoding,
    /// The blob.
    pub bytes: Vec<u8>,
}

/// Encodes a column of a canonical type with the encoding that fits it best.
///
/// # Errors
/// [`Error::Invalid`] if the type is not canonical, or there are no rows or more than 2^20.
pub fn encode(array: &ArrayRef) -> Result<Encoded> {
    if Kind::of(array.data_type()).is_none() {
        return Err(Error::Invalid(format!("a column cannot be of type {}", array.data_type())));
    }
    let schema = Arc::new(Schema::new(vec![Field::new("v", array.data_type().clone(), true)]));
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    writer.write(&RecordBatch::try_new(schema.clone(), vec![array.clone()])?)?;
    Ok(Encoded { encoding: Encoding::Plain, bytes: writer.into_inner()? })
}

/// A predicate made ready for one column of one segment: everything that need not be done per block is done.
#[derive(Clone, Debug)]
pub struct PreparedPredicate {
    condition: Condition,
}

/// Reads one encoded column.
#[derive(Debug)]
pub struct EncodedColumn {
    encoding: Encoding,
    kind: Kind,
    values: ArrayRef,
    dictionary: OnceLock<ArrayRef>,
}

impl EncodedColumn {
    /// Opens a blob. Checks every length and offset once, so that later reads stay within bounds.
    ///
    /// # Errors
    /// What is wrong with the blob.
    pub fn open(encoding: Encoding, ty: &DataType, rows: usize, bytes: Buffer) -> std::result::Result<Self, String> {
        let kind = Kind::of(ty).ok_or_else(|| format!("a column cannot be of type {ty}"))?;
        let mut reader = StreamReader::try_new(Cursor::new(bytes.as_slice()), None).map_err(|e| e.to_string())?;
        let batch = reader.next().ok_or("no values")?.map_err(|e| e.to_string())?;
        let values = batch.columns().first().ok_or("no values")?.clone();
        if values.len() != rows || values.data_type() != ty {
            return Err(format!("{} rows of {} instead of {rows} of {ty}", values.len(), values.data_type()));
        }
        Ok(EncodedColumn { encoding, kind, values, dictionary: OnceLock::new() })
    }

    /// The encoding.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Rows that are NULL.
    #[must_use]
    pub fn null_count(&self) -> usize {
        self.values.null_count()
    }

    /// For people, e.g. `dictionary(7)`.
    #[must_use]
    pub fn describe(&self) -> String {
        self.encoding.name().to_string()
    }

    /// The distinct values if the column has a dictionary: decoded once, shared by pointer.
    #[must_use]
    pub fn dictionary(&self) -> Option<ArrayRef> {
        self.dictionary.get().cloned()
    }

    /// Makes a predicate ready for this column: once per segment, not once per block.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the predicate's constants do not fit the column's type; what a function returns.
    pub fn prepare(&self, predicate: &Predicate) -> Result<PreparedPredicate> {
        Ok(PreparedPredicate { condition: Condition::compile(predicate, self.kind)? })
    }

    /// `mask` &= the predicate over rows `first_row..first_row + rows`; see [`EncodedColumn::filter_prepared`].
    ///
    /// # Errors
    /// As [`EncodedColumn::prepare`].
    pub fn filter(&self, predicate: &Predicate, first_row: usize, rows: usize, mask: &mut [u64]) -> Result<()> {
        self.filter_prepared(&self.prepare(predicate)?, first_row, rows, mask)
    }

    /// `mask` &= the predicate over rows `first_row..first_row + rows`, where `first_row` is a multiple of
    /// [`crate::BLOCK_ROWS`] and the mask has `rows.div_ceil(64)` words. Blocks whose mask is all zero are skipped.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the rows are not the column's; what a function returns.
    pub fn filter_prepared(&self, prepared: &PreparedPredicate, first_row: usize, rows: usize, mask: &mut [u64]) -> Result<()> {
        self.check_range(first_row, rows)?;
        let selection: Vec<u32> =
            (0..rows as u32).filter(|&i| mask.get(i as usize / 64).is_some_and(|w| w >> (i % 64) & 1 == 1)).collect();
        let values = self.read(first_row, rows, Some(&selection))?;
        let passes = scalar(&prepared.condition, &values)?;
        for (&row, pass) in selection.iter().zip(passes) {
            if !pass {
                mask[row as usize / 64] &= !(1 << (row % 64));
            }
        }
        Ok(())
    }

    /// Rows `first_row..first_row + rows`, or only those of `selection` (ascending, relative to `first_row`). Strings with a
    /// dictionary come back as `Dictionary(UInt32, Utf8View)` over [`EncodedColumn::dictionary`], all else in the column's type.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the rows are not the column's, or the blob is damaged in a way that only reading shows.
    pub fn read(&self, first_row: usize, rows: usize, selection: Option<&[u32]>) -> Result<ArrayRef> {
        self.check_range(first_row, rows)?;
        let values = self.values.slice(first_row, rows);
        match selection {
            None => Ok(values),
            Some(selection) => Ok(arrow::compute::take(&values, &UInt32Array::from(selection.to_vec()), None)?),
        }
    }

    fn check_range(&self, first_row: usize, rows: usize) -> Result<()> {
        if first_row.checked_add(rows).is_some_and(|end| end <= self.values.len()) {
            return Ok(());
        }
        Err(Error::Invalid(format!("rows {first_row}+{rows} of a column of {} rows", self.values.len())))
    }
}

/// Evaluates a condition value by value.
fn scalar(condition: &Condition, values: &ArrayRef) -> Result<Vec<bool>> {
    let valid = |i: usize| values.is_valid(i);
    Ok(match condition {
        Condition::IsNull => (0..values.len()).map(|i| !valid(i)).collect(),
        Condition::IsNotNull => (0..values.len()).map(valid).collect(),
        Condition::Function(function) => (function.function)(values)?.iter().map(|b| b == Some(true)).collect(),
        Condition::Int(c) => {
            let ints = condition_ints(values)?;
            (0..values.len()).map(|i| valid(i) && c.passes(ints[i])).collect()
        }
        Condition::Float(c) => {
            let floats = arrow::compute::cast(values, &DataType::Float64)?;
            let floats = arrow::array::AsArray::as_primitive::<arrow::datatypes::Float64Type>(&floats);
            (0..values.len()).map(|i| valid(i) && c.passes(i128::from(condition::float_key(floats.value(i))))).collect()
        }
        Condition::Bytes(c) => {
            let bytes = arrow::compute::cast(values, &DataType::BinaryView)?;
            let bytes = arrow::array::AsArray::as_binary_view(&bytes);
            (0..values.len()).map(|i| valid(i) && c.passes(bytes.value(i))).collect()
        }
    })
}

fn condition_ints(values: &ArrayRef) -> Result<Vec<i128>> {
    let ty = values.data_type();
    let data = values.to_data();
    Ok(match ty {
        DataType::Boolean => arrow::array::AsArray::as_boolean(values).values().iter().map(i128::from).collect(),
        DataType::Int8 => data.buffer::<i8>(0)[..values.len()].iter().map(|&v| i128::from(v)).collect(),
        DataType::Int16 => data.buffer::<i16>(0)[..values.len()].iter().map(|&v| i128::from(v)).collect(),
        DataType::Int32 | DataType::Date32 => data.buffer::<i32>(0)[..values.len()].iter().map(|&v| i128::from(v)).collect(),
        DataType::UInt8 => data.buffer::<u8>(0)[..values.len()].iter().map(|&v| i128::from(v)).collect(),
        DataType::UInt16 => data.buffer::<u16>(0)[..values.len()].iter().map(|&v| i128::from(v)).collect(),
        DataType::UInt32 => data.buffer::<u32>(0)[..values.len()].iter().map(|&v| i128::from(v)).collect(),
        DataType::UInt64 => data.buffer::<u64>(0)[..values.len()].iter().map(|&v| i128::from(v)).collect(),
        DataType::Decimal128(..) => data.buffer::<i128>(0)[..values.len()].to_vec(),
        _ => data.buffer::<i64>(0)[..values.len()].iter().map(|&v| i128::from(v)).collect(),
    })
}
