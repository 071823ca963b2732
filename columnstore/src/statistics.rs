//! What the optimizer knows of a table: figures of the segments' footers, merged.

use std::cmp::Ordering;

use crate::native::float_order;
use crate::sketch::Sketch;
use crate::table::Table;
use crate::types::{Domain, domain};
use crate::{Datum, Result};

/// Figures of a table.
#[derive(Clone, Debug, Default)]
pub struct TableStatistics {
    /// Rows.
    pub rows: u64,
    /// By ordinal.
    pub columns: Vec<ColumnStatistics>,
}

/// Figures of a column.
#[derive(Clone, Debug, Default)]
pub struct ColumnStatistics {
    /// A lower bound of the values; `None` if there are none or it is not known.
    pub min: Option<Datum>,
    /// An upper bound.
    pub max: Option<Datum>,
    /// Whether both bounds are values that occur. Always, except for strings longer than 256 bytes and damaged segments.
    pub exact: bool,
    /// NULLs.
    pub nulls: u64,
    /// Estimate of the distinct values that are not NULL.
    pub distinct: u64,
    /// Mean length of the strings that are not NULL, in bytes; 0 for other types.
    pub average_length: f64,
    /// Size of the values before encoding.
    pub raw_bytes: u64,
    /// Size on disk, zone maps and index included.
    pub encoded_bytes: u64,
}

/// Order of two values of one column.
pub(crate) fn compare(a: &Datum, b: &Datum) -> Ordering {
    match (a, b) {
        (Datum::Int(a), Datum::Int(b)) => a.cmp(b),
        (Datum::Float(a), Datum::Float(b)) => float_order(*a).cmp(&float_order(*b)),
        (Datum::Bytes(a), Datum::Bytes(b)) => a.cmp(b),
        _ => Ordering::Equal,
    }
}

/// Merges the footers. A segment whose footer cannot be read makes bounds unknown; the query that reads it says what is wrong.
pub(crate) fn table_statistics(table: &Table) -> TableStatistics {
    let columns = (0..table.def.columns.len()).map(|ordinal| {
        column_statistics(table, ordinal).unwrap_or_else(|_| ColumnStatistics { distinct: table.rows(), ..Default::default() })
    });
    TableStatistics { rows: table.rows(), columns: columns.collect() }
}

fn column_statistics(table: &Table, ordinal: usize) -> Result<ColumnStatistics> {
    let mut merged = ColumnStatistics { exact: true, ..Default::default() };
    let mut sketch = Sketch::default();
    let (mut low_known, mut high_known) = (true, true);
    let units = (0..table.partitions.len()).map(|p| table.scanned(p)).collect::<Result<Vec<_>>>()?;
    for segment in units.iter().flatten().map(|unit| &unit.segment) {
        let zone = segment.zone(ordinal)?;
        if !zone.is_all_null() {
            low_known &= zone.min.is_some();
            high_known &= zone.max.is_some();
            merged.exact &= zone.exact;
        }
        merged.min = extreme(merged.min.take(), zone.min.clone(), Ordering::Less);
        merged.max = extreme(merged.max.take(), zone.max.clone(), Ordering::Greater);
        merged.nulls += zone.nulls;
        sketch.merge(segment.sketch(ordinal)?);
        let (raw, encoded) = segment.sizes(ordinal)?;
        merged.raw_bytes += raw;
        merged.encoded_bytes += encoded;
    }
    merged.min = merged.min.filter(|_| low_known);
    merged.max = merged.max.filter(|_| high_known);
    // Deleted NULLs count still.
    let values = table.rows().saturating_sub(merged.nulls);
    merged.distinct = sketch.estimate().min(values);
    if domain(&table.def.columns[ordinal].ty) == Domain::Bytes && values > 0 {
        merged.average_length = merged.raw_bytes as f64 / values as f64;
    }
    Ok(merged)
}

fn extreme(a: Option<Datum>, b: Option<Datum>, better: Ordering) -> Option<Datum> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if compare(&b, &a) == better { b } else { a }),
        (a, b) => a.or(b),
    }
}
