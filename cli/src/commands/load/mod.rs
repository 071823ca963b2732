//! `stoa load`: CSV, `.tbl` and Parquet files into a table. All rows of all files, or none.

mod delimited;
mod parquet;

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType as ArrowType, Schema, SchemaRef};
use indicatif::ProgressBar;
use stoa_columnstore::{RowNames, TableDef};
use stoa_coordinator::Rows;
use stoa_plan::DataType;
use stoa_rpc::FailureKind;

use crate::args::LoadArgs;
use crate::connection::Connection;
use crate::engine::{definition, sql_type_name};
use crate::{Error, Result, progress};

/// The kinds of file, told by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Parquet,
    Delimited(Dialect),
}

/// How a delimited file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dialect {
    delimiter: u8,
    header: bool,
    /// Each line ends with a delimiter, as the TPC-H tools write them.
    trailing_delimiter: bool,
}

/// Runs the command.
///
/// # Errors
/// If a file cannot be read, a row does not fit, or the table is missing. Nothing of the load stays then.
pub fn run(args: &LoadArgs) -> Result<()> {
    let connection = Connection::open(&args.engine)?;
    let (rows, seconds) = load(&connection, args)?;
    writeln!(std::io::stdout(), "{rows} rows loaded into {} in {seconds:.2} s", args.table)?;
    Ok(())
}

fn load(connection: &Connection, args: &LoadArgs) -> Result<(u64, f64)> {
    let start = Instant::now();
    let bytes = args.files.iter().filter_map(|f| std::fs::metadata(f).ok()).map(|m| m.len()).sum();
    let bar = if bytes > 0 { progress::bar(bytes, &args.table, "bytes") } else { progress::spinner(&args.table) };
    let mut writer = writer(connection, args)?;
    let def = writer.table().clone();
    for file in &args.files {
        let kind = kind(file, args);
        let name = file.display().to_string();
        match kind {
            Kind::Parquet => writer.number_rows(&name, RowNames::ROWS, 1),
            Kind::Delimited(dialect) => writer.number_rows(&name, RowNames::LINES, 1 + u64::from(dialect.header)),
        }
        let mut push = |batch: &RecordBatch| writer.push(batch).map_err(|e| in_file(&e, file));
        match kind {
            Kind::Parquet => parquet::read(connection.pool(), file, &def, &bar, &mut push)?,
            Kind::Delimited(dialect) => delimited::read(file, dialect, &def, &bar, &mut push)?,
        }
    }
    let rows = writer.finish()?;
    bar.finish_and_clear();
    Ok((rows, start.elapsed().as_secs_f64()))
}

/// An error of rows of a file. A cluster says itself of which file they are whose rows do not fit: it may be one before.
fn in_file(error: &stoa_coordinator::Error, file: &Path) -> Error {
    match error {
        stoa_coordinator::Error::Node(failure) if failure.kind == FailureKind::User => Error::Load(failure.message.clone()),
        error => Error::Load(format!("{}: {error}", file.display())),
    }
}

/// Takes rows for the table; with `--create` for one that is there once the load is done.
fn writer(connection: &Connection, args: &LoadArgs) -> Result<Box<dyn Rows>> {
    if args.create {
        return connection.create_table_rows(inferred(args)?);
    }
    if !connection.has_table(&args.table)? {
        let what = "create it first, or give --create to infer it from the file";
        return Err(Error::Invalid(format!("there is no table '{}': {what}", args.table)));
    }
    connection.rows(&args.table)
}

fn kind(file: &Path, args: &LoadArgs) -> Kind {
    let extension = file.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    match extension.as_str() {
        "parquet" => Kind::Parquet,
        "tbl" => {
            Kind::Delimited(Dialect { delimiter: args.delimiter.unwrap_or(b'|'), header: args.header, trailing_delimiter: true })
        }
        "tsv" => Kind::Delimited(Dialect {
            delimiter: args.delimiter.unwrap_or(b'\t'),
            header: args.header,
            trailing_delimiter: false,
        }),
        _ => {
            Kind::Delimited(Dialect { delimiter: args.delimiter.unwrap_or(b','), header: args.header, trailing_delimiter: false })
        }
    }
}

/// The table that the first file describes.
fn inferred(args: &LoadArgs) -> Result<TableDef> {
    let file = &args.files[0];
    let schema = match kind(file, args) {
        Kind::Parquet => parquet::schema(file)?,
        Kind::Delimited(dialect) => delimited::infer(file, dialect)?,
    };
    let mut columns = Vec::new();
    for field in schema.fields() {
        let ty = DataType::from_arrow(field.data_type()).ok_or_else(|| {
            Error::Load(format!(
                "{}: column '{}' has the type {}, which Stoa does not have",
                file.display(),
                field.name(),
                field.data_type()
            ))
        })?;
        let ty = if ty == DataType::Null { DataType::Utf8 } else { ty };
        let null = if field.is_nullable() { "" } else { " NOT NULL" };
        columns.push(format!("`{}` {}{null}", field.name().replace('`', "``"), sql_type_name(ty)));
    }
    Ok(definition(&format!("CREATE TABLE `{}` ({})", args.table.replace('`', "``"), columns.join(", ")))?)
}

/// The Arrow schema of a table's rows, in the types that the readers produce.
fn reader_schema(def: &TableDef, convert: impl Fn(&ArrowType) -> ArrowType) -> SchemaRef {
    let fields = def.columns.iter().map(|c| arrow::datatypes::Field::new(&c.name, convert(&c.ty), true));
    std::sync::Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// For each column of the table, its position among the columns that a file names: by name, or by position where the table has none of the
/// names.
fn match_columns(path: &Path, def: &TableDef, names: &[String]) -> Result<Vec<usize>> {
    let find = |wanted: &str| names.iter().position(|name| name.eq_ignore_ascii_case(wanted));
    if def.columns.iter().all(|c| find(&c.name).is_none()) && def.columns.len() == names.len() {
        return Ok((0..def.columns.len()).collect());
    }
    let missing = |name: &str| {
        Error::Load(format!("{}: there is no column '{name}' in the file, as table '{}' has it", path.display(), def.name))
    };
    def.columns.iter().map(|c| find(&c.name).ok_or_else(|| missing(&c.name))).collect()
}

/// What a reader calls for every batch.
type Push<'a> = dyn FnMut(&RecordBatch) -> Result<()> + 'a;

/// Moves the bar to the bytes read of the current file.
fn advance(bar: &ProgressBar, bytes: u64) {
    bar.inc(bytes);
}
