//! Statistics of tables, as the segments know them, for the optimizer and for narrow arithmetic.

use crate::Value;

/// Where the optimizer asks for statistics.
pub trait StatisticsSource: Send + Sync {
    /// The statistics of a table, or `None` if there is no such table or nothing is known.
    fn table(&self, name: &str) -> Option<TableStatistics>;
}

/// Statistics of one table over all partitions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableStatistics {
    /// Live rows.
    pub rows: u64,
    /// One entry per column, in table order.
    pub columns: Vec<ColumnStatistics>,
    /// Number of partitions.
    pub partitions: usize,
}

/// Statistics of one column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ColumnStatistics {
    /// Exact lower bound of the non-NULL values, if known. It holds for every row: arithmetic is narrowed on its strength.
    pub min: Option<Value>,
    /// Exact upper bound of the non-NULL values, if known.
    pub max: Option<Value>,
    /// Estimated number of distinct non-NULL values.
    pub distinct: Option<f64>,
    /// Exact number of NULLs.
    pub nulls: u64,
    /// Average length in bytes of strings.
    pub average_length: Option<f64>,
}
