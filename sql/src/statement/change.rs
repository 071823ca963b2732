//! The statements that change the rows or the shape of a table.

use super::{ColumnDef, QueryText};

/// `INSERT INTO table [(columns)] VALUES ... | query`, for [`crate::bind_insert`].
#[derive(Clone, Debug, PartialEq)]
pub struct Insert {
    /// The table.
    pub table: String,
    /// What becomes of a row whose key is in the table already.
    pub on_duplicate: OnDuplicate,
    /// The columns that `ON DUPLICATE KEY UPDATE` assigns; as in [`Update::assigned`].
    pub assigned: Vec<String>,
    /// The whole statement.
    pub(crate) source: QueryText,
}

/// What becomes of a row whose key is in the table already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnDuplicate {
    /// It is an error.
    #[default]
    Refuse,
    /// `REPLACE INTO`: it takes the place of the row that is there.
    Replace,
    /// `ON DUPLICATE KEY UPDATE`: the row that is there is changed, by [`crate::bind_duplicate_update`].
    Update,
}

/// `UPDATE table [AS alias] SET column = expression, ... [WHERE condition]`, for [`crate::bind_update`].
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The table.
    pub table: String,
    /// The columns that are assigned, each once, in lower case unless they were quoted: the table's may differ in case.
    pub assigned: Vec<String>,
    /// The whole statement.
    pub(crate) source: QueryText,
}

/// `DELETE FROM table [AS alias] [WHERE condition]`, for [`crate::bind_delete`].
#[derive(Clone, Debug, PartialEq)]
pub struct Delete {
    /// The table.
    pub table: String,
    /// The whole statement.
    pub(crate) source: QueryText,
}

/// `ALTER TABLE`.
#[derive(Clone, Debug, PartialEq)]
pub struct Alter {
    /// The table.
    pub table: String,
    /// What is changed.
    pub change: AlterTable,
}

/// A change of a table's definition.
#[derive(Clone, Debug, PartialEq)]
pub enum AlterTable {
    /// `ADD [COLUMN]`: it comes last, and holds its default in the rows that are there.
    AddColumn(ColumnDef),
    /// `DROP [COLUMN]`.
    DropColumn(String),
    /// `RENAME COLUMN a TO b`, `CHANGE a b`.
    RenameColumn {
        /// Its name.
        from: String,
        /// Its new name.
        to: String,
    },
    /// `RENAME [TO | AS]`.
    RenameTable(String),
}

/// What `OPTIMIZE TABLE` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Optimize {
    /// Nothing behind the table: sorted runs are merged as far as it pays.
    Merge,
    /// `FULL`: all rows become one sorted run.
    Full,
    /// `FLUSH`: rows in memory become segments.
    Flush,
}
