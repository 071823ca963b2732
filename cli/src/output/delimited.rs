//! CSV by RFC 4180 and tab-separated text.

use std::fmt::Write as _;
use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::ArrayFormatter;

use super::{format_options, is_null};

/// Header line, then one line a row; NULL is an empty field, an empty string is `""`.
pub(super) fn write_csv(out: &mut dyn Write, schema: &SchemaRef, batches: &[RecordBatch]) -> io::Result<()> {
    write_rows(out, schema, batches, b',', "", &|field| {
        if field.is_empty() || field.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field.to_owned()
        }
    })
}

/// Header line, then one line a row; NULL is `\N`, and `\t`, `\n`, `\r`, `\\` are escaped.
pub(super) fn write_tsv(out: &mut dyn Write, schema: &SchemaRef, batches: &[RecordBatch]) -> io::Result<()> {
    write_rows(out, schema, batches, b'\t', "\\N", &|field| {
        field.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
    })
}

fn write_rows(
    out: &mut dyn Write,
    schema: &SchemaRef,
    batches: &[RecordBatch],
    delimiter: u8,
    null: &str,
    quote: &dyn Fn(&str) -> String,
) -> io::Result<()> {
    let end_line = |line: &mut Vec<u8>| {
        line.pop();
        line.push(b'\n');
    };
    let mut line = Vec::new();
    for field in schema.fields() {
        line.extend_from_slice(quote(field.name()).as_bytes());
        line.push(delimiter);
    }
    end_line(&mut line);
    out.write_all(&line)?;
    let options = format_options();
    let mut text = String::new();
    for batch in batches {
        let columns = batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options));
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
        for row in 0..batch.num_rows() {
            line.clear();
            for (column, array) in columns.iter().zip(batch.columns()) {
                if is_null(array, row) {
                    line.extend_from_slice(null.as_bytes());
                } else {
                    text.clear();
                    write!(text, "{}", column.value(row)).map_err(io::Error::other)?;
                    line.extend_from_slice(quote(&text).as_bytes());
                }
                line.push(delimiter);
            }
            end_line(&mut line);
            out.write_all(&line)?;
        }
    }
    Ok(())
}
