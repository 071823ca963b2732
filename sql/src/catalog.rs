//! What the binder asks of the catalog.

use arrow::array::ArrayRef;
use stoa_plan::DataType;

use crate::SqlError;

/// The tables and views that a statement may name. Names are found without regard to case.
pub trait Catalog: Send + Sync {
    /// The table of that name.
    fn table(&self, name: &str) -> Option<TableInfo>;
    /// The text of the view of that name.
    fn view(&self, name: &str) -> Option<String>;
    /// The names of all tables and views, for suggestions.
    fn names(&self) -> Vec<String>;
    /// Whether the statement may read a table or view that it names itself; what stands behind a view is the view's business.
    ///
    /// # Errors
    /// If it may not.
    fn may_read(&self, name: &str) -> Result<(), SqlError> {
        let _ = name;
        Ok(())
    }
}

/// A table as the binder sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct TableInfo {
    /// Its name as declared.
    pub name: String,
    /// Its columns, in order.
    pub columns: Vec<TableColumn>,
    /// The columns of its shard key, as ordinals.
    pub shard_key: Vec<u32>,
    /// Whether every leaf has a copy.
    pub reference: bool,
    /// Names its definition, as scans carry it; 0: it never changes.
    pub revision: u64,
}

/// A column of a [`TableInfo`].
#[derive(Clone, Debug, PartialEq)]
pub struct TableColumn {
    /// Its name as declared.
    pub name: String,
    /// Its type.
    pub ty: DataType,
    /// Whether it may hold NULLs.
    pub nullable: bool,
    /// What it holds where an INSERT does not say, one row of its type; `None`: NULL.
    pub default: Option<ArrayRef>,
}
