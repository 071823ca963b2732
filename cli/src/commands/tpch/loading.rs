//! Generates and loads the tables that the data directory lacks.

use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use rayon::prelude::*;
use stoa_datasets::tpch::{TABLES, Table};

use crate::connection::Connection;
use crate::progress;
use crate::{Error, Result};

/// How long generating and loading took; `None` where everything was there.
#[derive(Default)]
pub struct LoadTimes {
    /// Time in the generator.
    pub generate: Duration,
    /// Time in the engine: rows in memory to segments on disk, committed.
    pub load: Duration,
    /// Whether any table was loaded.
    pub loaded: bool,
}

/// Loads the tables that are not there yet.
///
/// # Errors
/// If a table of this name holds other data, or loading fails.
pub fn load_missing(connection: &Connection, scale: f64) -> Result<LoadTimes> {
    let mut times = LoadTimes::default();
    check_orders(connection, scale)?;
    for table in &TABLES {
        if rows(connection, table.name)?.unwrap_or(0) == 0 {
            load_table(connection, table, scale, &mut times)?;
        }
    }
    Ok(times)
}

/// The rows of a table, if it is there.
fn rows(connection: &Connection, table: &str) -> Result<Option<u64>> {
    if let Connection::Embedded(engine) = connection {
        return Ok(engine.database().table(table).map(|table| table.rows()));
    }
    if !connection.has_table(table)? {
        return Ok(None);
    }
    let (counted, _) = connection.query(&format!("SELECT count(*) AS n FROM {table}"))?;
    let count = counted.first().map(|batch| batch.column(0).as_primitive::<Int64Type>().value(0));
    Ok(Some(count.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)))
}

/// The number of orders tells the scale; all tables of a directory must be of one.
fn check_orders(connection: &Connection, scale: f64) -> Result<()> {
    for table in &TABLES {
        let Some(found) = rows(connection, table.name)? else { continue };
        let expected = table.rows(scale);
        if found != 0 && found.abs_diff(expected) > expected / 100 {
            return Err(Error::Invalid(format!(
                "table '{}' in the data directory has {found} rows, not the {expected} of scale {scale}: \
                 give another --data or drop the table",
                table.name
            )));
        }
    }
    Ok(())
}

/// Generates a few parts at a time in parallel and loads them in order, so that memory stays bounded and both are timed apart.
fn load_table(connection: &Connection, table: &Table, scale: f64, times: &mut LoadTimes) -> Result<()> {
    if !connection.has_table(table.name)? {
        connection.execute(table.create)?;
    }
    let bar = progress::bar(table.rows(scale), table.name, "rows");
    let start = Instant::now();
    let mut writer = connection.rows(table.name)?;
    times.load += start.elapsed();
    let parts = table.parts(scale);
    let at_once = 2 * connection.pool().current_num_threads() as i32;
    let mut first = 1;
    while first <= parts {
        let last = parts.min(first + at_once - 1);
        let start = Instant::now();
        let chunk: Vec<Vec<RecordBatch>> = connection
            .pool()
            .install(|| {
                (first..=last)
                    .into_par_iter()
                    .map(|part| table.generate(scale, part, parts).collect())
                    .collect::<std::result::Result<_, ArrowError>>()
            })
            .map_err(|e| Error::Invalid(format!("cannot generate {}: {e}", table.name)))?;
        times.generate += start.elapsed();
        let start = Instant::now();
        for batch in chunk.into_iter().flatten() {
            writer.push(&batch)?;
            bar.inc(batch.num_rows() as u64);
        }
        times.load += start.elapsed();
        first = last + 1;
    }
    let start = Instant::now();
    writer.finish()?;
    times.load += start.elapsed();
    times.loaded = true;
    bar.finish_and_clear();
    Ok(())
}
