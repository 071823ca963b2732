//! CSV by RFC 4180 and tab-separated text.

use std::fmt::Write as _;
use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::ArrayFormatter;

use super::{format_options, is_null};

/// A form of text with a header line and one line a row.
#[derive(Clone, Copy)]
pub(super) struct Delimited {
    delimiter: u8,
    null: &'static str,
    quote: fn(&str) -> String,
}

/// NULL is an empty field, an empty string is `""`.
pub(super) const CSV: Delimited = Delimited { delimiter: b',', null: "", quote: quote_csv };

/// NULL is `\N`, and `\t`, `\n`, `\r`, `\\` are escaped.
pub(super) const TSV: Delimited = Delimited { delimiter: b'\t', null: "\\N", quote: quote_tsv };

fn quote_csv(field: &str) -> String {
    if field.is_empty() || field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

fn quote_tsv(field: &str) -> String {
    field.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

impl Delimited {
    /// Writes the header line.
    pub fn header(self, out: &mut dyn Write, schema: &SchemaRef) -> io::Result<()> {
        let mut line = Vec::new();
        for field in schema.fields() {
            line.extend_from_slice((self.quote)(field.name()).as_bytes());
            line.push(self.delimiter);
        }
        self.end(&mut line);
        out.write_all(&line)
    }

    /// Writes a line a row.
    pub fn rows(self, out: &mut dyn Write, batch: &RecordBatch) -> io::Result<()> {
        let options = format_options();
        let (mut line, mut text) = (Vec::new(), String::new());
        let columns = batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options));
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
        for row in 0..batch.num_rows() {
            line.clear();
            for (column, array) in columns.iter().zip(batch.columns()) {
                if is_null(array, row) {
                    line.extend_from_slice(self.null.as_bytes());
                } else {
                    text.clear();
                    write!(text, "{}", column.value(row)).map_err(io::Error::other)?;
                    line.extend_from_slice((self.quote)(&text).as_bytes());
                }
                line.push(self.delimiter);
            }
            self.end(&mut line);
            out.write_all(&line)?;
        }
        Ok(())
    }

    fn end(self, line: &mut Vec<u8>) {
        line.pop();
        line.push(b'\n');
    }
}
