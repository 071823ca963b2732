//! Results as text or Arrow, in the formats of `stoa sql --format`.

mod delimited;
mod json;
mod table;

use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::ipc::writer::StreamWriter;
use arrow::util::display::FormatOptions;
use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::args::Format;
use crate::engine::Outcome;

/// How values look in every textual format.
pub(crate) fn format_options() -> FormatOptions<'static> {
    FormatOptions::new().with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f")).with_display_error(true)
}

/// Writes what statements give, rows as they come; a table is shown when it is complete. A word for people is not part of the data and is
/// left to the caller.
pub(crate) struct Printer {
    format: Format,
    /// The rows of a statement, to which more may come.
    open: Option<Open>,
}

/// A result of which a part is written.
enum Open {
    Table(Box<table::Filling>),
    Delimited(delimited::Delimited),
    Json { first: bool },
    Arrow(Box<StreamWriter<Vec<u8>>>),
}

impl Printer {
    /// Nothing is written yet.
    pub fn new(format: Format) -> Printer {
        Printer { format, open: None }
    }

    /// Writes an outcome.
    ///
    /// # Errors
    /// If the output cannot be written, or a value cannot be shown.
    pub fn outcome(&mut self, out: &mut dyn Write, outcome: &Outcome) -> io::Result<()> {
        match outcome {
            Outcome::Rows { schema, batches } => {
                self.finish(out)?;
                self.open = Some(begin(out, self.format, schema)?);
                self.more(out, batches)
            }
            Outcome::More(batches) => self.more(out, batches),
            Outcome::Plan(text) if self.format == Format::Table => {
                self.finish(out)?;
                writeln!(out, "{}", text.trim_end())
            }
            Outcome::Plan(text) => {
                self.finish(out)?;
                let lines: ArrayRef = Arc::new(StringViewArray::from_iter_values(text.lines()));
                let batch = RecordBatch::try_from_iter([("plan", lines)]).map_err(io::Error::other)?;
                write(out, self.format, &batch.schema(), &[batch])
            }
            Outcome::Done(_) => self.finish(out),
        }
    }

    fn more(&mut self, out: &mut dyn Write, batches: &[RecordBatch]) -> io::Result<()> {
        self.open.as_mut().map_or(Ok(()), |open| batches.iter().try_for_each(|batch| rows(out, open, batch)))
    }

    /// No more rows will come.
    ///
    /// # Errors
    /// As [`Printer::outcome`].
    pub fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.open.take().map_or(Ok(()), |open| end(out, open))
    }
}

/// Writes a result.
///
/// # Errors
/// If the output cannot be written, or a value cannot be shown.
pub fn write(out: &mut dyn Write, format: Format, schema: &SchemaRef, batches: &[RecordBatch]) -> io::Result<()> {
    let mut open = begin(out, format, schema)?;
    batches.iter().try_for_each(|batch| rows(out, &mut open, batch))?;
    end(out, open)
}

fn begin(out: &mut dyn Write, format: Format, schema: &SchemaRef) -> io::Result<Open> {
    let delimited = match format {
        Format::Table => return Ok(Open::Table(Box::new(table::Filling::new(schema)))),
        Format::Json => {
            out.write_all(b"[")?;
            return Ok(Open::Json { first: true });
        }
        Format::Arrow => {
            let mut writer = StreamWriter::try_new(Vec::new(), schema).map_err(io::Error::other)?;
            flush(out, &mut writer)?;
            return Ok(Open::Arrow(Box::new(writer)));
        }
        Format::Csv => delimited::CSV,
        Format::Tsv => delimited::TSV,
    };
    delimited.header(out, schema)?;
    Ok(Open::Delimited(delimited))
}

fn rows(out: &mut dyn Write, open: &mut Open, batch: &RecordBatch) -> io::Result<()> {
    match open {
        Open::Table(table) => table.rows(batch),
        Open::Delimited(delimited) => delimited.rows(out, batch),
        Open::Json { first } => json::rows(out, batch, first),
        Open::Arrow(writer) => {
            writer.write(batch).map_err(io::Error::other)?;
            flush(out, writer)
        }
    }
}

fn end(out: &mut dyn Write, open: Open) -> io::Result<()> {
    match open {
        Open::Table(table) => table.show(out),
        Open::Delimited(_) => Ok(()),
        Open::Json { .. } => out.write_all(json::END),
        Open::Arrow(mut writer) => {
            writer.finish().map_err(io::Error::other)?;
            flush(out, &mut writer)
        }
    }
}

/// Hands on what a writer has written.
fn flush(out: &mut dyn Write, writer: &mut StreamWriter<Vec<u8>>) -> io::Result<()> {
    out.write_all(writer.get_ref())?;
    writer.get_mut().clear();
    Ok(())
}

/// A framed table for people.
pub(crate) fn text_table<'a>(header: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(header);
    table
}

/// A cell of a number.
pub(crate) fn right(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// Whether a value is NULL, also where the whole column is of the type of NULL.
fn is_null(array: &dyn Array, row: usize) -> bool {
    array.is_null(row) || *array.data_type() == DataType::Null
}
