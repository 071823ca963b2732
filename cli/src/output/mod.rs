//! Results as text or Arrow, in the formats of `stoa sql --format`.

mod delimited;
mod json;
mod table;

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::StreamWriter;
use arrow::util::display::FormatOptions;

use crate::args::Format;

/// How values look in every textual format.
pub(crate) fn format_options() -> FormatOptions<'static> {
    FormatOptions::new().with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f")).with_display_error(true)
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
        Format::Arrow => write_arrow(out, schema, batches).map_err(io::Error::other),
    }
}

fn write_arrow(out: &mut dyn Write, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<(), arrow::error::ArrowError> {
    let mut writer = StreamWriter::try_new(out, schema)?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.finish()
}
