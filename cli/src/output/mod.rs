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

/// Writes what a statement gave. A word for people is not part of the data and is left to the caller.
///
/// # Errors
/// As [`write`].
pub(crate) fn write_outcome(out: &mut dyn Write, format: Format, outcome: &Outcome) -> io::Result<()> {
    match outcome {
        Outcome::Rows { schema, batches } => write(out, format, schema, batches),
        Outcome::Plan(text) if format == Format::Table => writeln!(out, "{}", text.trim_end()),
        Outcome::Plan(text) => {
            let lines: ArrayRef = Arc::new(StringViewArray::from_iter_values(text.lines()));
            let batch = RecordBatch::try_from_iter([("plan", lines)]).map_err(io::Error::other)?;
            write(out, format, &batch.schema(), &[batch])
        }
        Outcome::Done(_) => Ok(()),
    }
}

/// Writes a result.
///
/// # Errors
/// If the output cannot be written, or a value cannot be shown.
pub fn write(out: &mut dyn Write, format: Format, schema: &SchemaRef, batches: &[RecordBatch]) -> io::Result<()> {
    match format {
        Format::Table => table::write(out, schema, batches),
        Format::Csv => delimited::write_csv(out, schema, batches),
        Format::Tsv => delimited::write_tsv(out, schema, batches),
        Format::Json => json::write(out, schema, batches),
        Format::Arrow => write_arrow(out, schema, batches).map_err(|error| match error {
            arrow::error::ArrowError::IoError(_, source) => source,
            other => io::Error::other(other),
        }),
    }
}

fn write_arrow(out: &mut dyn Write, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<(), arrow::error::ArrowError> {
    let mut writer = StreamWriter::try_new(out, schema)?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.finish()
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
