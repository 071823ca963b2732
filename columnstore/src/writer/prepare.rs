//! Checking and casting of incoming rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use crate::definition::{ColumnDef, TableDef};
use crate::{Error, Result};

/// How messages name the rows of a batch.
#[derive(Clone, Copy, Debug)]
pub struct RowNames {
    /// What a row is called where it came from.
    pub unit: &'static str,
    /// The number of the batch's first row.
    pub first: u64,
}

impl RowNames {
    /// The unit of rows that are called so.
    pub const ROWS: &str = "row";
    /// The unit of lines of a text.
    pub const LINES: &str = "line";
}

impl Default for RowNames {
    /// Rows, counted from 1.
    fn default() -> RowNames {
        RowNames { unit: RowNames::ROWS, first: 1 }
    }
}

/// How messages number the rows of a batch.
#[derive(Clone, Copy, Debug)]
pub enum RowNumbers<'a> {
    /// One after the other.
    From(RowNames),
    /// Each row has its own.
    Each(&'a [u32]),
}

impl From<RowNames> for RowNumbers<'_> {
    fn from(names: RowNames) -> Self {
        RowNumbers::From(names)
    }
}

impl<'a> From<&'a [u32]> for RowNumbers<'a> {
    fn from(numbers: &'a [u32]) -> Self {
        RowNumbers::Each(numbers)
    }
}

impl RowNumbers<'_> {
    /// What the rows are called, and the number of the first one.
    pub(crate) fn names(&self) -> RowNames {
        match self {
            RowNumbers::From(names) => *names,
            RowNumbers::Each(numbers) => {
                let names = RowNames::default();
                RowNames { first: numbers.first().map_or(names.first, |number| u64::from(*number)), ..names }
            }
        }
    }

    /// The number of a row.
    pub(crate) fn of(&self, row: usize) -> u64 {
        match self {
            RowNumbers::From(names) => names.first.saturating_add(row as u64),
            RowNumbers::Each(numbers) => numbers.get(row).map_or(0, |number| u64::from(*number)),
        }
    }
}

/// A batch in the table's types, as it would be stored. Who spreads rows over several writers does this first, so that errors name the
/// row as it came.
///
/// # Errors
/// As [`crate::TableWriter::push`].
pub fn conform(def: &TableDef, batch: &RecordBatch, names: RowNames) -> Result<RecordBatch> {
    let columns = canonical_columns(def, batch, names)?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(def.schema(), columns, &options).map_err(|e| Error::Invalid(e.to_string()))
}

/// The columns of a batch in the table's types.
pub(crate) fn canonical_columns(def: &TableDef, batch: &RecordBatch, names: RowNames) -> Result<Vec<ArrayRef>> {
    if batch.num_columns() != def.columns.len() {
        let (given, wanted) = (batch.num_columns(), def.columns.len());
        return Err(Error::Invalid(format!("table '{}' has {wanted} columns, but {given} were given", def.name)));
    }
    def.columns.iter().zip(batch.columns()).map(|(column, array)| canonical_column(def, column, array, names)).collect()
}

/// A column in its table's type.
pub(crate) fn canonical_column(def: &TableDef, column: &ColumnDef, array: &ArrayRef, names: RowNames) -> Result<ArrayRef> {
    let refused = |row: usize, what: &dyn std::fmt::Display| {
        let (unit, number) = (names.unit, names.first.saturating_add(row as u64));
        Error::Invalid(format!("table '{}', column '{}', {unit} {number}: {what}", def.name, column.name))
    };
    let array = if *array.data_type() == column.ty {
        Arc::clone(array)
    } else {
        cast(array, &column.ty).map_err(|e| match first_refused(array, &column.ty) {
            Some((row, e)) => refused(row, &e),
            None => Error::Invalid(format!("table '{}', column '{}': {e}", def.name, column.name)),
        })?
    };
    if !column.nullable && array.null_count() > 0 {
        let row = (0..array.len()).find(|i| array.is_null(*i)).unwrap_or(0);
        return Err(refused(row, &"NULL in a NOT NULL column"));
    }
    if let Some(limit) = column.max_length()
        && let Some((row, length)) = too_long(&array, limit)
    {
        return Err(refused(row, &format_args!("a value of length {length} does not fit {}", column.sql_type)));
    }
    Ok(array)
}

fn cast(array: &ArrayRef, ty: &DataType) -> std::result::Result<ArrayRef, ArrowError> {
    cast_with_options(array, ty, &CastOptions { safe: false, ..CastOptions::default() })
}

/// The first row that cannot be cast, by bisection, and why; `None` if no row can, for the type's sake.
fn first_refused(array: &ArrayRef, ty: &DataType) -> Option<(usize, ArrowError)> {
    if cast(&array.slice(0, 0), ty).is_err() {
        return None;
    }
    // Rows before `fits` can be cast, some row before `end` cannot.
    let (mut fits, mut end) = (0, array.len());
    while end - fits > 1 {
        let middle = fits + (end - fits) / 2;
        if cast(&array.slice(fits, middle - fits), ty).is_ok() { fits = middle } else { end = middle }
    }
    let row = array.slice(fits, end - fits);
    cast(&row, ty).err().map(|error| (fits, error))
}

/// The first value longer than `limit`, and its length: characters of a string, bytes of a binary value.
fn too_long(array: &ArrayRef, limit: usize) -> Option<(usize, usize)> {
    if let Some(strings) = array.as_string_view_opt() {
        // No string has more characters than bytes, so that few are counted.
        let mut long = strings.lengths().enumerate().filter(|(row, bytes)| *bytes as usize > limit && strings.is_valid(*row));
        return long.find_map(|(row, _)| Some((row, strings.value(row).chars().count())).filter(|(_, n)| *n > limit));
    }
    let bytes = array.as_binary_opt::<i32>()?;
    (0..bytes.len()).filter(|row| bytes.is_valid(*row)).map(|row| (row, bytes.value(row).len())).find(|(_, n)| *n > limit)
}
