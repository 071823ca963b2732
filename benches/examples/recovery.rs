//! How long a data directory takes to open after `kill -9`, by how much log there is and how large its tables are.
//!
//! `cargo run --release -p stoa-bench --example recovery -- SCRATCH [MIB [ROWS]]`: SCRATCH is a folder that is not there yet. For a small
//! table and one of so many rows (40 million), a process of its own loads the table, then inserts rows into another one until the log has
//! so many MiB (1024), and is killed. Rows move to segments meanwhile, as always, but a log is cut once rows are half a minute old or
//! it has 256 MiB: here only by age, and the writer is fast enough for it to get so long.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::DataType;
use stoa_columnstore::{BitmapIndex, ColumnDef, Database, Durability, Error, Options, Result, RowNames, TableDef, UniqueKey};

/// That of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const THREADS: usize = 4;
/// Rows of the tables that are only there.
const TABLES: (i64, i64) = (10_000, 40_000_000);
/// A writer that nobody kills ends after so long.
const MOST: Duration = Duration::from_secs(600);
/// Rows of a batch of a load.
const BATCH: i64 = 1 << 16;
/// Rows of a commit, 300 bytes each.
const ROWS: i64 = 256;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<i64>().ok());
    let scratch = arguments.first().ok_or_else(|| Error::Invalid("name a folder that is not there yet".into()))?;
    match (arguments.get(1).map(String::as_str), number(2), number(3)) {
        (Some("write"), Some(rows), Some(mib)) => write(Path::new(scratch), rows, mib as u64),
        _ => measure(Path::new(scratch), number(1).unwrap_or(1024), [TABLES.0, number(2).unwrap_or(TABLES.1)]),
    }
}

fn measure(scratch: &Path, mib: i64, tables: [i64; 2]) -> Result<()> {
    std::fs::create_dir(scratch).map_err(failed(scratch))?;
    for rows in tables {
        let directory = scratch.join(rows.to_string());
        let program = std::env::current_exe().map_err(failed(scratch))?;
        let arguments = ["write".to_owned(), rows.to_string(), mib.to_string()];
        let child = Command::new(program).arg(&directory).args(arguments).stdin(Stdio::null()).spawn();
        let mut child = child.map_err(failed(scratch))?;
        while size(&directory.join("log")) < (mib as u64) << 20 {
            if let Some(status) = child.try_wait().map_err(failed(scratch))? {
                return Err(Error::Invalid(format!("the writer ended early: {status}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        child.kill().and_then(|()| child.wait()).map_err(failed(scratch))?;
        let (log, segments) = (size(&directory.join("log")) >> 20, size(&directory.join("tables")) >> 20);
        let began = Instant::now();
        let database = Database::open(&directory, Options::default())?;
        let took = began.elapsed().as_secs_f64();
        let found = |name: &str| database.table(name).map_or(0, |table| table.rows());
        println!(
            "{log} MiB of log of {} commits beside a table of {} rows, {segments} MiB of segments: open after {took:.2} s, {} rows in memory",
            database.lsn(),
            found("large"),
            database.table("inserts").map_or(0, |table| table.rows_in_memory()),
        );
    }
    Ok(())
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Io { path: path.to_path_buf(), source }
}

/// Bytes of the files below a folder.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        metadata => metadata.map_or(0, |metadata| metadata.len()),
    };
    entries.map(of).sum()
}

/// Loads the table and writes the log until it is killed. Commits do not wait for the disk, which would take minutes.
fn write(directory: &Path, rows: i64, mib: u64) -> Result<()> {
    let options = Options { durability: Durability::Async, checkpoint_bytes: mib << 22, ..Options::default() };
    let database = Database::open(directory, options)?;
    let key = UniqueKey { name: "PRIMARY".into(), columns: vec![0] };
    database.create_table(table("large", DataType::Int64))?;
    database.create_table(TableDef { shard_key: vec![0], unique_keys: vec![key], ..table("inserts", DataType::Utf8View) })?;
    let mut writer = database.writer("large")?;
    for first in (0..rows).step_by(BATCH as usize) {
        let ids: Vec<i64> = (first..rows.min(first + BATCH)).collect();
        // Numbers that do not compress: the table takes room.
        let values = Int64Array::from_iter_values(ids.iter().map(|id| id.wrapping_mul(0x1E37_79B9_7F4A_7C15)));
        writer.push(&batch(Int64Array::from(ids), Arc::new(values))?)?;
    }
    writer.finish()?;
    database.checkpoint()?;
    let next = AtomicI64::new(0);
    let began = Instant::now();
    let insert = || -> Result<()> {
        while began.elapsed() < MOST {
            let first = next.fetch_add(ROWS, Ordering::Relaxed);
            let values = StringViewArray::from_iter_values((first..first + ROWS).map(|id| format!("{id:0300}")));
            let rows = batch(Int64Array::from_iter_values(first..first + ROWS), Arc::new(values))?;
            let mut transaction = database.begin();
            transaction.insert("inserts", &rows, RowNames::default())?;
            transaction.commit()?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(insert)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
    })
}

fn table(name: &str, ty: DataType) -> TableDef {
    let column = |name: &str, ty: DataType| ColumnDef {
        name: name.into(),
        sql_type: ty.to_string(),
        ty,
        nullable: false,
        bitmap_index: BitmapIndex::None,
    };
    TableDef { name: name.into(), columns: vec![column("id", DataType::Int64), column("value", ty)], ..TableDef::default() }
}

fn batch(ids: Int64Array, values: ArrayRef) -> Result<RecordBatch> {
    let columns: [(&str, ArrayRef); 2] = [("id", Arc::new(ids)), ("value", values)];
    Ok(RecordBatch::try_from_iter(columns)?)
}
