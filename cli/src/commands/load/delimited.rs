//! CSV and its relatives. A bad row is an error that names file, line and column.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use indicatif::ProgressBar;
use stoa_columnstore::TableDef;

use super::{Dialect, Push, advance, match_columns, reader_schema};
use crate::{Error, Result};

/// Rows of a parsed batch.
const BATCH_ROWS: usize = 16 * 1024;
/// Bytes of a header.
const MAX_HEADER: usize = 1 << 20;
/// Lines that `--create` looks at.
const INFER_ROWS: usize = 10_000;

fn open(path: &Path) -> Result<Box<dyn Read>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdin()));
    }
    Ok(Box::new(BufReader::with_capacity(1 << 20, File::open(path).map_err(Error::file(path))?)))
}

/// The columns and types of a file: the narrowest type that fits the first lines.
pub(super) fn infer(path: &Path, dialect: Dialect) -> Result<SchemaRef> {
    if path.as_os_str() == "-" {
        return Err(Error::Invalid(
            "--create cannot infer a table from standard input: it has to read the rows twice; create the table first".into(),
        ));
    }
    let mut file = File::open(path).map_err(Error::file(path))?;
    let format = Format::default().with_header(dialect.header).with_delimiter(dialect.delimiter);
    let (schema, _) = format.infer_schema(&mut file, Some(INFER_ROWS)).map_err(|e| located(path, dialect, &[], &e))?;
    file.rewind().map_err(Error::file(path))?;
    let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    if dialect.trailing_delimiter {
        fields.pop();
    }
    if fields.is_empty() {
        return Err(Error::Load(format!("{}: the file is empty, so that no table can be inferred from it", path.display())));
    }
    Ok(Arc::new(Schema::new(fields)))
}

pub(super) fn read(path: &Path, dialect: Dialect, def: &TableDef, bar: &ProgressBar, push: &mut Push<'_>) -> Result<()> {
    let counter = Arc::new(AtomicU64::new(0));
    let mut input: Box<dyn Read> = Box::new(Counted { inner: open(path)?, bytes: counter.clone() });
    let wanted = reader_schema(def, readable);
    let mut fields: Vec<Arc<Field>> = wanted.fields().iter().cloned().collect();
    let mut columns: Vec<usize> = (0..fields.len()).collect();
    if dialect.header {
        let line = header(&mut input).map_err(Error::file(path))?;
        let names = names_of(&line, dialect).map_err(|e| located(path, dialect, &[], &e))?;
        columns = match_columns(path, def, &names)?;
        // What the table does not have is skipped.
        let mut in_file: Vec<Arc<Field>> = names.iter().map(|name| Arc::new(Field::new(name, DataType::Utf8, true))).collect();
        columns.iter().zip(&fields).for_each(|(at, field)| in_file[*at] = field.clone());
        (fields, input) = (in_file, Box::new(io::Cursor::new(line).chain(input)));
    } else if dialect.trailing_delimiter {
        fields.push(Arc::new(Field::new("", DataType::Utf8, true)));
    }
    let names: Vec<String> = fields.iter().map(|field| field.name().clone()).collect();
    let reader = ReaderBuilder::new(Arc::new(Schema::new(fields)))
        .with_header(dialect.header)
        .with_delimiter(dialect.delimiter)
        .with_batch_size(BATCH_ROWS)
        .with_projection(columns)
        .build(input)
        .map_err(|e| located(path, dialect, &names, &e))?;
    for batch in reader {
        let batch: RecordBatch = batch.map_err(|e| located(path, dialect, &names, &e))?;
        push(&batch)?;
        advance(bar, counter.swap(0, Ordering::Relaxed));
    }
    Ok(())
}

/// The bytes of the first line.
fn header(input: &mut dyn Read) -> io::Result<Vec<u8>> {
    let (mut line, mut byte, mut quoted) = (Vec::new(), [0], false);
    while input.read(&mut byte)? > 0 {
        line.push(byte[0]);
        quoted ^= byte[0] == b'"';
        if byte[0] == b'\n' && !quoted {
            break;
        }
        if line.len() > MAX_HEADER {
            return Err(io::Error::other(format!("the first line has more than {MAX_HEADER} bytes, so that it is no header")));
        }
    }
    Ok(line)
}

/// The names in a header.
fn names_of(line: &[u8], dialect: Dialect) -> std::result::Result<Vec<String>, ArrowError> {
    let (schema, _) =
        Format::default().with_header(true).with_delimiter(dialect.delimiter).infer_schema(io::Cursor::new(line), Some(0))?;
    Ok(schema.fields().iter().map(|field| field.name().trim_start_matches('\u{feff}').to_owned()).collect())
}

/// The types that the CSV reader parses; the writer casts them to the table's. Decimals are parsed by the writer, which rounds them as
/// CAST does.
fn readable(ty: &DataType) -> DataType {
    match ty {
        DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Utf8View | DataType::Binary => DataType::Utf8,
        other => other.clone(),
    }
}

/// The reader's error with the file, and the column's name where it gives a number.
fn located(path: &Path, dialect: Dialect, names: &[String], error: &ArrowError) -> Error {
    let mut text = match error {
        ArrowError::ParseError(what) | ArrowError::CsvError(what) => what.clone(),
        other => other.to_string(),
    };
    if let Some(cut) = text.find(" Row data:") {
        text.truncate(cut);
    }
    if matches!(error, ArrowError::ParseError(_)) {
        text = line_from_one(&text);
    }
    for (i, name) in names.iter().enumerate().rev() {
        for word in ["for", "parsing"] {
            text = text.replace(&format!("{word} column {i} "), &format!("{word} column '{name}' "));
        }
    }
    if dialect.trailing_delimiter && text.contains("incorrect number of fields") {
        text.push_str(" (each line of a .tbl file ends with its delimiter)");
    }
    Error::Load(format!("{}: {text}", path.display()))
}

/// The reader counts lines from zero where a value cannot be parsed, and from one elsewhere: this makes it one.
fn line_from_one(text: &str) -> String {
    const MARK: &str = " at line ";
    let Some(start) = text.rfind(MARK).map(|at| at + MARK.len()) else { return text.to_owned() };
    let end = text[start..].find(|c: char| !c.is_ascii_digit()).map_or(text.len(), |n| start + n);
    match text[start..end].parse::<u64>() {
        Ok(line) => format!("{}{}{}", &text[..start], line.saturating_add(1), &text[end..]),
        Err(_) => text.to_owned(),
    }
}

/// Counts the bytes that pass.
struct Counted {
    inner: Box<dyn Read>,
    bytes: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
