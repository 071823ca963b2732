//! Statistics of tables to Cap'n Proto bytes and back; `schema/capnp/statistics.capnp` is the format.

use capnp::serialize;
use stoa_schema::limits::{self, MAX_COLUMNS, MAX_LIST, MAX_PLAN_BYTES};
use stoa_schema::statistics_capnp as wire;

use super::values::{decode_literal, decode_name, encode_literal, encode_name};
use super::{CodecError, budget};
use crate::{ColumnStatistics, DataType, Literal, TableStatistics, Value};

/// A table's statistics and its size.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableSummary {
    /// Its name.
    pub name: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// What the optimizer asks for.
    pub statistics: TableStatistics,
}

/// The message of tables' statistics.
///
/// # Errors
/// [`CodecError::TooLarge`] past the limits of `schema/src/limits.rs`.
pub fn encode_statistics(tables: &[TableSummary]) -> Result<Vec<u8>, CodecError> {
    let mut message = capnp::message::Builder::new_default();
    let root = message.init_root::<wire::statistics::Builder<'_>>();
    let count = budget::length("tables", tables.len(), MAX_LIST)?;
    let mut list = root.init_tables(count);
    for (i, table) in (0..count).zip(tables) {
        let mut to = list.reborrow().get(i);
        to.set_name(encode_name(&table.name)?);
        to.set_rows(table.statistics.rows);
        to.set_bytes(table.bytes);
        to.set_partitions(u32::try_from(table.statistics.partitions).unwrap_or(u32::MAX));
        let count = budget::length("columns", table.statistics.columns.len(), MAX_COLUMNS)?;
        let mut columns = to.init_columns(count);
        for (i, column) in (0..count).zip(&table.statistics.columns) {
            encode_column(column, columns.reborrow().get(i));
        }
    }
    let bytes = serialize::write_message_to_words(&message);
    budget::length("bytes", bytes.len(), MAX_PLAN_BYTES)?;
    Ok(bytes)
}

fn encode_column(column: &ColumnStatistics, mut to: wire::column::Builder<'_>) {
    if let Some(min) = &column.min {
        encode_literal(&bare(min), to.reborrow().init_min());
    }
    if let Some(max) = &column.max {
        encode_literal(&bare(max), to.reborrow().init_max());
    }
    to.set_distinct(column.distinct.unwrap_or(-1.0));
    to.set_nulls(column.nulls);
    to.set_average_length(column.average_length.unwrap_or(-1.0));
}

/// A value as a literal of the widest type of its kind; the reader knows the column's own.
fn bare(value: &Value) -> Literal {
    let ty = match value {
        Value::Null => DataType::Null,
        Value::Bool(_) => DataType::Bool,
        Value::Int(_) => DataType::Int64,
        Value::UInt(_) => DataType::UInt64,
        Value::Float(_) => DataType::Float64,
        Value::Decimal(_) => DataType::Decimal { precision: 38, scale: 0 },
        Value::Str(_) => DataType::Utf8,
        Value::Bytes(_) => DataType::Binary,
        Value::Interval { .. } => DataType::Interval,
    };
    Literal { ty, value: value.clone() }
}

/// The statistics of a message.
///
/// # Errors
/// Whatever is wrong with the message, see [`CodecError`].
pub fn decode_statistics(bytes: &[u8]) -> Result<Vec<TableSummary>, CodecError> {
    budget::length("bytes", bytes.len(), MAX_PLAN_BYTES)?;
    let mut rest = bytes;
    let message = serialize::read_message(&mut rest, limits::plan_reader_options(bytes.len()))?;
    let root = message.get_root::<wire::statistics::Reader<'_>>()?;
    let mut tables = Vec::new();
    for table in root.get_tables()? {
        let columns = table.get_columns()?.iter().map(decode_column).collect::<Result<Vec<_>, CodecError>>()?;
        tables.push(TableSummary {
            name: decode_name(table.get_name()?)?,
            bytes: table.get_bytes(),
            statistics: TableStatistics { rows: table.get_rows(), columns, partitions: table.get_partitions() as usize },
        });
    }
    Ok(tables)
}

fn decode_column(from: wire::column::Reader<'_>) -> Result<ColumnStatistics, CodecError> {
    let known = |v: f64| (v >= 0.0).then_some(v);
    let min = if from.has_min() { Some(decode_literal(from.get_min()?)?.value) } else { None };
    let max = if from.has_max() { Some(decode_literal(from.get_max()?)?.value) } else { None };
    Ok(ColumnStatistics {
        min,
        max,
        distinct: known(from.get_distinct()),
        nulls: from.get_nulls(),
        average_length: known(from.get_average_length()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_come_back() {
        let column = ColumnStatistics {
            min: Some(Value::Int(-3)),
            max: Some(Value::Decimal(1 << 80)),
            distinct: Some(7.0),
            nulls: 2,
            average_length: None,
        };
        let statistics = TableStatistics { rows: 10, columns: vec![column, ColumnStatistics::default()], partitions: 3 };
        let tables = [TableSummary { name: "t".into(), bytes: 99, statistics }];
        let bytes = encode_statistics(&tables).unwrap();
        assert_eq!(format!("{:?}", decode_statistics(&bytes).unwrap()), format!("{tables:?}"));
        for cut in 0..bytes.len() {
            assert!(decode_statistics(&bytes[..cut]).is_err());
        }
    }
}
