//! Changes of a table's definition that leave its segments as they are.
//!
//! Columns have numbers that are never used again. A segment knows the numbers of the columns in its file, the definition those of the
//! table's columns: the ordinals of one lead to the other. A column that a file lacks has its initial value in all of its rows. So
//! ADD, DROP and RENAME write no row, and a column that comes back under an old name does not bring old values with it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, new_null_array};
use arrow::buffer::Buffer;
use arrow::datatypes::DataType;

use crate::definition::{ColumnDef, TableDef};
use crate::encoding::{EncodedColumn, Encoding, encode_as};
use crate::writer::{RowNames, canonical_column};
use crate::{Error, Result};

/// A change of a table's definition.
#[derive(Clone, Debug)]
pub enum AlterTable {
    /// A new column, the last one.
    AddColumn {
        /// The column.
        column: ColumnDef,
        /// One row: the value of the column in the rows that are there. `None`: NULL.
        default: Option<ArrayRef>,
    },
    /// A column goes, by its name.
    DropColumn(String),
    /// A column gets another name.
    RenameColumn {
        /// Its name.
        from: String,
        /// Its name from now on.
        to: String,
    },
    /// The table gets another name.
    RenameTable(String),
}

/// Which columns of the stored rows a table's columns are. The default is that of a table whose columns were never others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// By ordinal. Empty: ordinals are the numbers.
    pub(crate) columns: Vec<StoredColumn>,
    /// The number of the next column that is added; 0 if `columns` is empty.
    pub(crate) next: u32,
    /// Goes up with every change of the definition.
    pub(crate) version: u64,
}

/// A column of the stored rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredColumn {
    pub(crate) number: u32,
    /// Its value in rows that lack it, as the blob of [`Encoding::Constant`], which is the same for any number of rows. `None`: NULL.
    pub(crate) initial: Option<Arc<[u8]>>,
}

impl TableDef {
    /// The definition after a change.
    ///
    /// # Errors
    /// [`Error::Invalid`] that says why the change cannot be made.
    pub fn altered(&self, change: &AlterTable) -> Result<TableDef> {
        let mut def = self.clone();
        match change {
            AlterTable::AddColumn { column, default } => def.add_column(column, default.as_ref())?,
            AlterTable::DropColumn(name) => def.drop_column(name)?,
            AlterTable::RenameColumn { from, to } => {
                let ordinal = self.existing(from)?;
                def.columns[ordinal].name.clone_from(to);
            }
            AlterTable::RenameTable(name) => def.name.clone_from(name),
        }
        def.layout.version += 1;
        def.check()?;
        Ok(def)
    }

    /// The version of the definition: higher than those before it.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.layout.version
    }

    /// The same as a later version.
    #[must_use]
    pub fn with_version(mut self, version: u64) -> TableDef {
        self.layout.version = self.layout.version.max(version);
        self
    }

    /// What plans and rows name the definition by that they are of: its version, and never 0.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.layout.version.saturating_add(1)
    }

    /// Refuses what was made for another definition of the table; a revision of 0 is of any.
    ///
    /// # Errors
    /// [`Error::Altered`].
    pub fn check_revision(&self, revision: u64) -> Result<()> {
        if revision == 0 || revision == self.revision() { Ok(()) } else { Err(Error::Altered(self.name.clone())) }
    }

    /// A later definition of this table, with as many partitions.
    ///
    /// # Errors
    /// [`Error::Invalid`] if rows of this one cannot be read through it.
    pub(crate) fn redefined(&self, later: &TableDef) -> Result<TableDef> {
        let def = TableDef { partitions: self.partitions, ..later.clone() };
        def.check()?;
        let (before, after) = (self.column_numbers(), def.column_numbers());
        let same = |(number, column): (&u32, &ColumnDef)| {
            before.iter().position(|n| n == number).is_none_or(|at| self.columns[at].ty == column.ty)
        };
        if self.reference != def.reference || !after.iter().zip(&def.columns).all(same) {
            return Err(self.invalid("it cannot become a table of other types"));
        }
        Ok(def)
    }

    /// The same with a default for a column, one row: its value in rows that do not say.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it does not fit the column.
    pub fn with_default(mut self, ordinal: usize, value: &ArrayRef) -> Result<TableDef> {
        let Some(column) = self.columns.get(ordinal) else {
            return Err(self.invalid(&format!("there is no column {ordinal}")));
        };
        let value = self.checked_default(column, value)?;
        if value.is_valid(0) {
            self.number_columns();
            self.layout.columns[ordinal].initial = Some(constant_blob(&value)?.into());
        }
        Ok(self)
    }

    /// The default of a column, one row; `None`: NULL.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it cannot be read.
    pub fn default_value(&self, ordinal: usize) -> Result<Option<ArrayRef>> {
        let stored = self.layout.columns.get(ordinal).filter(|stored| stored.initial.is_some());
        stored.map(|_| self.initial_value(ordinal)).transpose()
    }

    /// The value, one row, that a column has in rows from before it was there.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no such column.
    pub fn initial_value(&self, ordinal: usize) -> Result<ArrayRef> {
        self.initial_values(ordinal, 1)
    }

    /// The numbers of the columns.
    pub(crate) fn column_numbers(&self) -> Vec<u32> {
        if self.layout.columns.is_empty() {
            return (0..self.columns.len() as u32).collect();
        }
        self.layout.columns.iter().map(|column| column.number).collect()
    }

    /// The constant blob of a column in rows that lack it.
    pub(crate) fn initial_blob(&self, ordinal: usize) -> Result<Buffer> {
        if let Some(StoredColumn { initial: Some(blob), .. }) = self.layout.columns.get(ordinal) {
            return Ok(Buffer::from_slice_ref(&**blob));
        }
        let column = self.columns.get(ordinal);
        let column = column.ok_or_else(|| Error::Invalid(format!("table '{}' has no column {ordinal}", self.name)))?;
        Ok(constant_blob(&new_null_array(&column.ty, 1))?.into())
    }

    /// A column of rows that lack it, of its canonical type.
    pub(crate) fn initial_values(&self, ordinal: usize, rows: usize) -> Result<ArrayRef> {
        let (blob, ty) = (self.initial_blob(ordinal)?, &self.columns[ordinal].ty);
        let read = read_constant(ty, rows, blob).map_err(|what| self.invalid(&what))?;
        if read.data_type() == ty { Ok(read) } else { Ok(arrow::compute::cast(&read, ty)?) }
    }

    /// Columns of rows of an earlier definition, which has the numbers `stored`, as those of this one.
    pub(crate) fn columns_of(&self, stored: &[u32], columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let rows = columns.first().map_or(0, Array::len);
        let column = |(ordinal, number): (usize, &u32)| match stored.iter().position(|n| n == number) {
            Some(at) => Ok(Arc::clone(&columns[at])),
            None => self.initial_values(ordinal, rows),
        };
        self.column_numbers().iter().enumerate().map(column).collect()
    }

    /// Refuses a layout that is not one of these columns.
    pub(crate) fn check_layout(&self) -> std::result::Result<(), String> {
        let Layout { columns, next, .. } = &self.layout;
        if columns.is_empty() && *next == 0 {
            return Ok(());
        }
        let fits = |(i, column): (usize, &StoredColumn)| {
            column.number < *next && columns[..i].iter().all(|before| before.number != column.number)
        };
        if columns.len() != self.columns.len() || !columns.iter().enumerate().all(fits) {
            return Err("the numbers of its columns are wrong".into());
        }
        for (stored, column) in columns.iter().zip(&self.columns) {
            let Some(blob) = &stored.initial else { continue };
            let value = read_constant(&column.ty, 1, Buffer::from_slice_ref(&**blob));
            value.map_err(|what| format!("the initial value of column '{}' cannot be read ({what})", column.name))?;
        }
        Ok(())
    }

    fn add_column(&mut self, column: &ColumnDef, default: Option<&ArrayRef>) -> Result<()> {
        let initial = match default {
            Some(value) => {
                let value = self.checked_default(column, value)?;
                if value.is_null(0) { None } else { Some(constant_blob(&value)?.into()) }
            }
            None => None,
        };
        if initial.is_none() && !column.nullable {
            return Err(self.invalid(&format!("column '{}' is NOT NULL and needs a DEFAULT other than NULL", column.name)));
        }
        self.number_columns();
        self.layout.columns.push(StoredColumn { number: self.layout.next, initial });
        self.layout.next += 1;
        self.columns.push(column.clone());
        Ok(())
    }

    /// One row of the column's type that fits its declaration.
    fn checked_default(&self, column: &ColumnDef, value: &ArrayRef) -> Result<ArrayRef> {
        if value.len() != 1 {
            return Err(self.invalid(&format!("the DEFAULT of column '{}' has {} values", column.name, value.len())));
        }
        let nullable = ColumnDef { nullable: true, ..column.clone() };
        canonical_column(self, &nullable, value, RowNames { unit: "DEFAULT", first: 1 })
    }

    fn drop_column(&mut self, name: &str) -> Result<()> {
        let ordinal = self.existing(name)?;
        let unique = self.unique_keys.iter().map(|key| (format!("unique key '{}'", key.name), &key.columns));
        let keys = [("SHARD KEY".to_owned(), &self.shard_key), ("SORT KEY".to_owned(), &self.sort_key)];
        for (what, key) in keys.into_iter().chain(unique) {
            if key.contains(&(ordinal as u32)) {
                return Err(self.invalid(&format!("column '{name}' cannot be dropped: it is part of the {what}")));
            }
        }
        if self.columns.len() == 1 {
            return Err(self.invalid(&format!("column '{name}' cannot be dropped: it is the last one")));
        }
        self.number_columns();
        self.columns.remove(ordinal);
        self.layout.columns.remove(ordinal);
        let unique = self.unique_keys.iter_mut().map(|key| &mut key.columns);
        for column in [&mut self.shard_key, &mut self.sort_key].into_iter().chain(unique).flatten() {
            *column -= u32::from(*column as usize > ordinal);
        }
        Ok(())
    }

    /// Writes out the numbers of a table that was not altered yet.
    fn number_columns(&mut self) {
        if self.layout.columns.is_empty() {
            let count = self.columns.len() as u32;
            let columns = (0..count).map(|number| StoredColumn { number, initial: None }).collect();
            self.layout = Layout { columns, next: count, ..self.layout };
        }
    }

    fn existing(&self, column: &str) -> Result<usize> {
        self.ordinal(column).ok_or_else(|| self.invalid(&format!("there is no column '{column}'")))
    }

    fn invalid(&self, what: &str) -> Error {
        Error::Invalid(format!("table '{}': {what}", self.name))
    }
}

/// The blob of a column that has the value of this one row everywhere.
fn constant_blob(value: &ArrayRef) -> Result<Vec<u8>> {
    let encoded = encode_as(Encoding::Constant, value)?;
    Ok(encoded.ok_or_else(|| Error::Invalid("internal error: one row is no constant".into()))?.bytes)
}

fn read_constant(ty: &DataType, rows: usize, blob: Buffer) -> std::result::Result<ArrayRef, String> {
    EncodedColumn::open(Encoding::Constant, ty, rows, blob)?.read(0, rows, None).map_err(|e| e.to_string())
}
