//! Checking and casting of incoming rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};

use crate::definition::{ColumnDef, TableDef};
use crate::{Error, Result};

/// The columns of a batch in the table's types. `rows_before` is for messages.
pub(crate) fn canonical_columns(def: &TableDef, batch: &RecordBatch, rows_before: u64) -> Result<Vec<ArrayRef>> {
    if batch.num_columns() != def.columns.len() {
        let (given, wanted) = (batch.num_columns(), def.columns.len());
        return Err(Error::Invalid(format!("table '{}' has {wanted} columns, but {given} were given", def.name)));
    }
    def.columns.iter().zip(batch.columns()).map(|(column, array)| canonical_column(def, column, array, rows_before)).collect()
}

fn canonical_column(def: &TableDef, column: &ColumnDef, array: &ArrayRef, rows_before: u64) -> Result<ArrayRef> {
    let array = if *array.data_type() == column.ty {
        Arc::clone(array)
    } else {
        let options = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(array, &column.ty, &options)
            .map_err(|e| Error::Invalid(format!("table '{}', column '{}': {e}", def.name, column.name)))?
    };
    if !column.nullable && array.null_count() > 0 {
        let row = (0..array.len()).find(|i| array.is_null(*i)).unwrap_or(0);
        let row = rows_before + row as u64 + 1;
        return Err(Error::Invalid(format!(
            "table '{}', column '{}', row {row}: NULL in a NOT NULL column",
            def.name, column.name
        )));
    }
    if let Some(limit) = column.max_length()
        && let Some((row, length)) = too_long(&array, limit)
    {
        let row = rows_before + row as u64 + 1;
        return Err(Error::Invalid(format!(
            "table '{}', column '{}', row {row}: a value of length {length} does not fit {}",
            def.name, column.name, column.sql_type
        )));
    }
    Ok(array)
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
