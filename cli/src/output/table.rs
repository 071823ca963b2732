//! Framed, aligned tables for people.

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::ArrayFormatter;
use comfy_table::Cell;

use super::{format_options, right, text_table};

/// Rows that a table shows before it says how many more there are: a terminal is no place for more, and `--format csv` has no limit.
const MAX_ROWS: usize = 10_000;

pub(super) fn write(out: &mut dyn Write, schema: &SchemaRef, batches: &[RecordBatch]) -> io::Result<()> {
    let mut table = text_table(schema.fields().iter().map(|f| f.name().as_str()));
    let numeric: Vec<bool> = schema.fields().iter().map(|f| f.data_type().is_numeric()).collect();
    let options = format_options().with_null("NULL");
    let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let mut left = MAX_ROWS;
    for batch in batches {
        let columns = batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options));
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
        for row in 0..batch.num_rows().min(left) {
            table.add_row(columns.iter().zip(&numeric).map(|(column, numeric)| {
                let value = column.value(row);
                if *numeric { right(value) } else { Cell::new(value) }
            }));
        }
        left = left.saturating_sub(batch.num_rows());
    }
    writeln!(out, "{table}")?;
    let plural = if total == 1 { "" } else { "s" };
    if total > MAX_ROWS {
        writeln!(out, "{total} row{plural}, the first {MAX_ROWS} shown (--format csv prints all)")
    } else {
        writeln!(out, "{total} row{plural}")
    }
}
