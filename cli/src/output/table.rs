//! Framed, aligned tables for people.

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::ArrayFormatter;
use comfy_table::{Cell, Table};

use super::{format_options, right, text_table};

/// Rows that a table shows before it says how many more there are: a terminal is no place for more, and `--format csv` has no limit.
const MAX_ROWS: usize = 10_000;

/// A table that is filled as rows come, and shown when all have.
pub(super) struct Filling {
    table: Table,
    numeric: Vec<bool>,
    rows: usize,
}

impl Filling {
    pub fn new(schema: &SchemaRef) -> Filling {
        let numeric = schema.fields().iter().map(|f| f.data_type().is_numeric()).collect();
        Filling { table: text_table(schema.fields().iter().map(|f| f.name().as_str())), numeric, rows: 0 }
    }

    pub fn rows(&mut self, batch: &RecordBatch) -> io::Result<()> {
        let options = format_options().with_null("NULL");
        let columns = batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options));
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
        for row in 0..batch.num_rows().min(MAX_ROWS.saturating_sub(self.rows)) {
            self.table.add_row(columns.iter().zip(&self.numeric).map(|(column, numeric)| {
                let value = column.value(row);
                if *numeric { right(value) } else { Cell::new(value) }
            }));
        }
        self.rows += batch.num_rows();
        Ok(())
    }

    pub fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let Filling { table, rows, .. } = self;
        writeln!(out, "{table}")?;
        let plural = if *rows == 1 { "" } else { "s" };
        if *rows > MAX_ROWS {
            writeln!(out, "{rows} row{plural}, the first {MAX_ROWS} shown (--format csv prints all)")
        } else {
            writeln!(out, "{rows} row{plural}")
        }
    }
}
