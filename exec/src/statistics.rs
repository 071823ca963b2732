//! What storage knows of a table, in the terms of the optimizer.

use arrow::datatypes::DataType as ArrowType;
use stoa_columnstore::{Datum, Table};
use stoa_plan::{ColumnStatistics, TableStatistics, Value};

/// The statistics of a table.
#[must_use]
pub fn table_statistics(table: &Table) -> TableStatistics {
    let columns = table.statistics().columns.iter().zip(&table.def.columns);
    TableStatistics {
        rows: table.rows(),
        columns: columns.map(|(found, def)| column_statistics(found, &def.ty)).collect(),
        partitions: table.partitions.len(),
    }
}

fn column_statistics(found: &stoa_columnstore::ColumnStatistics, ty: &ArrowType) -> ColumnStatistics {
    ColumnStatistics {
        min: found.min.clone().and_then(|d| value(d, ty)),
        max: found.max.clone().and_then(|d| value(d, ty)),
        distinct: Some(found.distinct as f64),
        nulls: found.nulls,
        average_length: Some(found.average_length),
    }
}

/// A stored datum as a plan value. A bound cut inside a character has none.
fn value(datum: Datum, ty: &ArrowType) -> Option<Value> {
    Some(match (datum, ty) {
        (Datum::Int(v), ArrowType::Boolean) => Value::Bool(v != 0),
        (Datum::Int(v), ArrowType::Decimal64(..) | ArrowType::Decimal128(..)) => Value::Decimal(v),
        (Datum::Int(v), ArrowType::UInt8 | ArrowType::UInt16 | ArrowType::UInt32 | ArrowType::UInt64) => {
            Value::UInt(u64::try_from(v).ok()?)
        }
        (Datum::Int(v), _) => Value::Int(i64::try_from(v).ok()?),
        (Datum::Float(v), _) => Value::Float(v),
        (Datum::Bytes(v), ArrowType::Utf8View) => Value::Str(String::from_utf8(v).ok()?),
        (Datum::Bytes(v), _) => Value::Bytes(v),
    })
}
