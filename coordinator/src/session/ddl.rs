//! Statements that change or show the catalog.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringViewArray};
use stoa_columnstore::{AlterTable, BitmapIndex, ColumnDef, TableDef, UniqueKey};
use stoa_exec::CancelToken;
use stoa_plan::{DataType, Literal};
use stoa_sql::{Alter, CreateTable, Optimize, QueryText, Statement};

use super::{Outcome, Session, View};
use crate::store::existing;
use crate::{Error, Result, Store};

pub(super) fn create_table(session: &Session, create: &CreateTable) -> Result<String> {
    if create.if_not_exists && session.store.table(&create.name).is_some() {
        return Ok(format!("table {} is there already", create.name));
    }
    session.store.create_table(table_def(create)?)?;
    Ok(format!("table {} created", create.name))
}

/// The definition that a CREATE TABLE statement makes.
pub fn definition(sql: &str) -> Result<TableDef> {
    match stoa_sql::parse(sql)?.as_slice() {
        [Statement::CreateTable(create)] => table_def(create),
        _ => Err(Error::Invalid("expected exactly one CREATE TABLE".into())),
    }
}

/// The definition that storage keeps.
pub(super) fn table_def(create: &CreateTable) -> Result<TableDef> {
    let columns = create.columns.iter().map(column_def);
    // As in SingleStore, a primary key without a shard key is the shard key.
    let shard_key = if create.shard_key.is_empty() { &create.primary_key } else { &create.shard_key };
    let mut unique_keys = Vec::new();
    if !create.primary_key.is_empty() {
        unique_keys.push(UniqueKey { name: "PRIMARY".into(), columns: create.ordinals("PRIMARY KEY", &create.primary_key)? });
    }
    for key in &create.unique_keys {
        unique_keys.push(UniqueKey { name: key.join("_"), columns: create.ordinals("UNIQUE KEY", key)? });
    }
    let def = TableDef {
        name: create.name.clone(),
        columns: columns.collect(),
        shard_key: if create.reference { vec![] } else { create.ordinals("SHARD KEY", shard_key)? },
        sort_key: create.ordinals("SORT KEY", &create.sort_key)?,
        unique_keys,
        reference: create.reference,
        partitions: 0,
        layout: Default::default(),
    };
    let mut defaults = create.columns.iter().enumerate().filter(|(_, column)| column.default.is_some());
    defaults.try_fold(def, |def, (i, column)| match default_value(column)? {
        Some(value) => Ok(def.with_default(i, &value)?),
        None => Ok(def),
    })
}

/// The default of a column as storage keeps it.
fn default_value(column: &stoa_sql::ColumnDef) -> Result<Option<ArrayRef>> {
    let Some(value) = &column.default else { return Ok(None) };
    let value = stoa_exec::literal(&Literal { ty: column.ty, value: value.clone() })?;
    Ok(Some(arrow::compute::cast(&value, &column.ty.to_arrow()).map_err(stoa_exec::Error::from)?))
}

fn column_def(c: &stoa_sql::ColumnDef) -> ColumnDef {
    ColumnDef {
        name: c.name.clone(),
        ty: c.ty.to_arrow(),
        nullable: c.nullable,
        bitmap_index: match c.bitmap_index {
            stoa_sql::BitmapIndex::Auto => BitmapIndex::Auto,
            stoa_sql::BitmapIndex::Declared => BitmapIndex::Declared,
            stoa_sql::BitmapIndex::None => BitmapIndex::None,
        },
        sql_type: c.sql_type.clone(),
    }
}

pub(super) fn drop_tables(session: &Session, names: &[String], if_exists: bool) -> Result<String> {
    for name in names {
        session.store.drop_table(name, if_exists)?;
    }
    Ok(format!("table {} dropped", names.join(", ")))
}

/// A view is bound once before it is kept, so that its errors show now.
pub(super) fn create_view(session: &Session, name: &str, query: &QueryText, or_replace: bool) -> Result<String> {
    stoa_sql::bind_query(query, &View(&*session.store))?;
    session.store.create_view(name, query.sql(), or_replace)?;
    Ok(format!("view {name} created"))
}

pub(super) fn drop_views(session: &Session, names: &[String], if_exists: bool) -> Result<String> {
    for name in names {
        session.store.drop_view(name, if_exists)?;
    }
    Ok(format!("view {} dropped", names.join(", ")))
}

pub(super) fn show_tables(session: &Session) -> Result<Outcome> {
    let mut rows = Vec::new();
    for table in session.store.tables() {
        let kind = if table.reference { "REFERENCE" } else { "SHARDED" };
        let count = session.store.statistics(&table.name).map_or(0, |s| s.rows);
        rows.push([table.name.clone(), kind.into(), count.to_string(), session.store.bytes(&table.name).to_string()]);
    }
    for (name, _) in session.store.views() {
        rows.push([name, "VIEW".into(), String::new(), String::new()]);
    }
    rows.sort();
    text_table(&["Table", "Type", "Rows", "Bytes"], &rows)
}

pub(super) fn describe(session: &Session, name: &str) -> Result<Outcome> {
    let mut rows = Vec::new();
    let store: &dyn Store = &*session.store;
    if let Some(view) = stoa_sql::Catalog::view(&View(store), name) {
        for statement in stoa_sql::parse(&view)? {
            let stoa_sql::Statement::Query(query) = statement else { continue };
            for field in stoa_sql::bind_query(&query, &View(store))?.output {
                rows.push([field.name, sql_type_name(field.ty), yes_no(field.nullable), String::new()]);
            }
        }
        return text_table(&["Field", "Type", "Null", "Key"], &rows);
    }
    let table = existing(store, name)?;
    for (i, column) in table.columns.iter().enumerate() {
        let in_key = |key: &[u32], word: &'static str| if key.contains(&(i as u32)) { Some(word) } else { None };
        let unique =
            table.unique_keys.iter().map(|key| in_key(&key.columns, if key.name == "PRIMARY" { "PRIMARY" } else { "UNIQUE" }));
        let keys = [in_key(&table.shard_key, "SHARD"), in_key(&table.sort_key, "SORT")].into_iter().chain(unique);
        let keys: Vec<&str> = keys.flatten().collect();
        rows.push([column.name.clone(), column.sql_type.clone(), yes_no(column.nullable), keys.join(", ")]);
    }
    text_table(&["Field", "Type", "Null", "Key"], &rows)
}

pub(super) fn alter_table(session: &Session, alter: &Alter) -> Result<String> {
    existing(&*session.store, &alter.table)?;
    let change = match &alter.change {
        stoa_sql::AlterTable::AddColumn(column) => {
            AlterTable::AddColumn { default: default_value(column)?, column: column_def(column) }
        }
        stoa_sql::AlterTable::DropColumn(name) => AlterTable::DropColumn(name.clone()),
        stoa_sql::AlterTable::RenameColumn { from, to } => AlterTable::RenameColumn { from: from.clone(), to: to.clone() },
        stoa_sql::AlterTable::RenameTable(name) => AlterTable::RenameTable(name.clone()),
    };
    session.store.alter_table(&alter.table, change)?;
    Ok(format!("table {} altered", alter.table))
}

pub(super) fn truncate(session: &Session, table: &str, cancel: &CancelToken) -> Result<String> {
    session.store.truncate(table, cancel)?;
    Ok(format!("table {table} is empty"))
}

pub(super) fn optimize(session: &Session, table: &str, how: Optimize) -> Result<String> {
    session.store.optimize(table, how)?;
    Ok(format!("table {table} optimized"))
}

/// As SingleStore names the columns, as far as they mean something here.
pub(super) fn show_merge_status(session: &Session, table: Option<&str>) -> Result<Outcome> {
    if let Some(table) = table {
        existing(&*session.store, table)?;
    }
    let mut rows = Vec::new();
    for status in session.store.merge_status()? {
        if table.is_none_or(|table| status.table.eq_ignore_ascii_case(table)) {
            let numbers = [status.segments, status.to_merge, status.rows_in_memory, status.deleted_rows].map(|n| n.to_string());
            let [segments, to_merge, in_memory, deleted] = numbers;
            let state = status.state.map_or("", |state| state.name()).to_owned();
            let error = status.error.unwrap_or_default();
            rows.push([status.table, status.partition.to_string(), segments, to_merge, in_memory, deleted, state, error]);
        }
    }
    let columns = ["Table", "Partition", "Segments", "Segments To Merge", "Rows In Memory", "Deleted Rows", "State", "Error"];
    text_table(&columns, &rows)
}

fn yes_no(yes: bool) -> String {
    if yes { "YES" } else { "NO" }.to_owned()
}

/// A result of text columns.
pub(crate) fn text_table<const N: usize>(names: &[&str; N], rows: &[[String; N]]) -> Result<Outcome> {
    let column = |i: usize| Arc::new(StringViewArray::from_iter_values(rows.iter().map(|r| &r[i]))) as ArrayRef;
    let batch =
        RecordBatch::try_from_iter(names.iter().enumerate().map(|(i, n)| (*n, column(i)))).map_err(stoa_exec::Error::from)?;
    Ok(Outcome::Rows { schema: batch.schema(), batches: vec![batch] })
}

/// A type as SQL writes it.
#[must_use]
pub fn sql_type_name(ty: DataType) -> String {
    match ty {
        DataType::Bool => "BOOL",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INT",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INT UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float32 => "FLOAT",
        DataType::Float64 => "DOUBLE",
        DataType::Decimal { precision, scale } => return format!("DECIMAL({precision},{scale})"),
        DataType::Date => "DATE",
        DataType::Timestamp => "TIMESTAMP",
        DataType::Interval => "INTERVAL",
        DataType::Null | DataType::Utf8 => "TEXT",
        DataType::Binary => "BLOB",
    }
    .to_owned()
}
