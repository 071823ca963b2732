//! INSERT and CREATE TABLE AS: the rows of a query into a table, all or none.

use stoa_exec::{CancelToken, Progress};
use stoa_plan::{DataType, Field, Query};
use stoa_sql::{ColumnDef, CreateTable, Insert, QueryText};

use super::change::{self, Source};
use super::{Session, View, ddl};
use crate::{Error, Result, Rows};

pub(super) fn insert(session: &Session, insert: &Insert, cancel: &CancelToken) -> Result<String> {
    let view = View(&*session.store);
    let source = match stoa_sql::literal_rows(insert, &view) {
        Some(rows) => Source::Rows([rows]),
        None => Source::Query(session.physical(stoa_sql::bind_insert(insert, &view)?)?),
    };
    change::insert(session, insert, &source, cancel)
}

pub(super) fn create_table_as(session: &Session, table: &CreateTable, query: &QueryText, cancel: &CancelToken) -> Result<String> {
    if table.if_not_exists && session.store.table(&table.name).is_some() {
        return Ok(format!("table {} is there already", table.name));
    }
    let query = stoa_sql::bind_query(query, &View(&*session.store))?;
    let mut table = table.clone();
    table.columns = columns(&table, &query.output)?;
    let rows = session.store.create_table_rows(ddl::table_def(&table)?)?;
    let rows = write(session, rows, query, cancel)?;
    Ok(format!("table {} created, {rows} rows inserted", table.name))
}

/// Runs the query and commits its rows; an error leaves the table as it was.
fn write(session: &Session, mut rows: Box<dyn Rows>, query: Query, cancel: &CancelToken) -> Result<u64> {
    let result = session.store.execute(&session.physical(query)?, cancel, &Progress::default())?;
    for batch in &result.batches {
        cancel.check()?;
        rows.push(batch)?;
    }
    rows.finish()
}

/// The columns of the new table: as declared, with names or types taken from the query where they are not.
fn columns(table: &CreateTable, output: &[Field]) -> Result<Vec<ColumnDef>> {
    if !table.columns.is_empty() && table.columns.len() != output.len() {
        return Err(Error::Invalid(format!(
            "table '{}' has {} columns, but the query gives {}",
            table.name,
            table.columns.len(),
            output.len()
        )));
    }
    let column = |(i, field): (usize, &Field)| {
        let ty = if field.ty == DataType::Null { DataType::Utf8 } else { field.ty };
        let inferred = ColumnDef {
            name: field.name.clone(),
            ty,
            sql_type: ddl::sql_type_name(ty),
            nullable: field.nullable,
            bitmap_index: stoa_sql::BitmapIndex::Auto,
        };
        match table.columns.get(i) {
            None => inferred,
            Some(declared) if declared.ty == DataType::Null => ColumnDef { name: declared.name.clone(), ..inferred },
            Some(declared) => declared.clone(),
        }
    };
    Ok(output.iter().enumerate().map(column).collect())
}
