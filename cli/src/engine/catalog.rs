//! The data directory as the front end, the optimizer and the executor see it.

use std::sync::Arc;

use arrow::datatypes::DataType as ArrowType;
use stoa_columnstore::{Database, Datum, Table};
use stoa_plan::{ColumnStatistics, DataType, StatisticsSource, TableStatistics, Value};
use stoa_sql::{Catalog, TableColumn, TableInfo};

/// The catalog, statistics and storage of one data directory.
pub(super) struct View<'a>(pub(super) &'a Arc<Database>);

impl Catalog for View<'_> {
    fn table(&self, name: &str) -> Option<TableInfo> {
        let table = self.0.table(name)?;
        let columns = table.def.columns.iter().map(|c| TableColumn {
            name: c.name.clone(),
            // The catalog only ever stores types that came from this mapping.
            ty: DataType::from_arrow(&c.ty).unwrap_or(DataType::Null),
            nullable: c.nullable,
        });
        Some(TableInfo {
            name: table.def.name.clone(),
            columns: columns.collect(),
            shard_key: table.def.shard_key.clone(),
            reference: table.def.reference,
        })
    }

    fn view(&self, name: &str) -> Option<String> {
        self.0.views().into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, sql)| sql)
    }

    fn names(&self) -> Vec<String> {
        let tables = self.0.tables().into_iter().map(|t| t.def.name.clone());
        let mut names: Vec<String> = tables.chain(self.0.views().into_iter().map(|(name, _)| name)).collect();
        names.sort();
        names
    }
}

impl StatisticsSource for View<'_> {
    fn table(&self, name: &str) -> Option<TableStatistics> {
        let table = self.0.table(name)?;
        Some(TableStatistics {
            rows: table.rows(),
            columns: table
                .statistics()
                .columns
                .iter()
                .zip(&table.def.columns)
                .map(|(s, c)| column_statistics(s, &c.ty))
                .collect(),
            partitions: table.partitions.len(),
        })
    }
}

impl stoa_exec::Storage for View<'_> {
    fn table(&self, name: &str) -> stoa_exec::Result<Arc<Table>> {
        self.0.table(name).ok_or_else(|| stoa_columnstore::Error::NoSuchTable(name.to_owned()).into())
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
