//! Rows by their values: copies of a table in several data directories have the same rows at different places.

use std::collections::HashMap;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::row::{RowConverter, SortField};

use super::Transaction;
use crate::writer::{RowNames, canonical_columns};
use crate::{Error, Result};

impl Transaction {
    /// The addresses of rows with these values in all columns, a row of its own for each.
    ///
    /// # Errors
    /// [`Error::Conflict`] if there are not so many; storage errors.
    pub fn locate(&self, name: &str, batch: &RecordBatch) -> Result<Vec<u64>> {
        let table = self.existing(name)?;
        let columns = canonical_columns(&table.def, batch, RowNames::default())?;
        let converter = RowConverter::new(columns.iter().map(|c| SortField::new(c.data_type().clone())).collect())?;
        let sought = converter.convert_columns(&columns)?;
        let mut wanted: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for row in 0..sought.num_rows() {
            wanted.entry(sought.row(row).data()).or_default().push(row);
        }
        let mut found = vec![None; sought.num_rows()];
        for partition in 0..table.partitions.len() {
            for unit in table.scanned(partition)? {
                let rows = unit.segment.rows();
                let read = |ordinal: usize| unit.segment.values(ordinal, 0, rows, None);
                let values: Vec<ArrayRef> = (0..columns.len()).map(read).collect::<Result<_>>()?;
                let there = converter.convert_columns(&values)?;
                let live = |row: &usize| !unit.deleted.as_ref().is_some_and(|deleted| deleted.contains(*row as u32));
                for row in (0..rows).filter(live) {
                    if let Some(sought) = wanted.get_mut(there.row(row).data()).and_then(Vec::pop) {
                        found[sought] = Some(unit.address + row as u64);
                    }
                }
            }
        }
        let missing = || Error::Conflict(format!("rows of table '{name}' were changed"));
        found.into_iter().map(|address| address.ok_or_else(missing)).collect()
    }
}
