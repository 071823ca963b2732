//! JSON: an array with one object a row; NULL is `null`, decimals and 64-bit integers are numbers with all their digits.

use std::io::{self, Write};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::ArrayFormatter;

use super::{format_options, is_null};

/// The end of an array.
pub(super) const END: &[u8] = b"\n]\n";

/// Writes an object a row; `first`: none was written before.
pub(super) fn rows(out: &mut dyn Write, batch: &RecordBatch, first: &mut bool) -> io::Result<()> {
    let schema = batch.schema_ref();
    let names: Vec<String> = schema.fields().iter().map(|f| serde_json::to_string(f.name())).collect::<Result<_, _>>()?;
    let options = format_options();
    let columns = batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options));
    let columns = columns.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    for row in 0..batch.num_rows() {
        out.write_all(if std::mem::replace(first, false) { b"\n{" } else { b",\n{" })?;
        for (i, (column, array)) in columns.iter().zip(batch.columns()).enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(out, "{comma}{}:{}", names[i], value(column, array.as_ref(), row)?)?;
        }
        out.write_all(b"}")?;
    }
    Ok(())
}

fn value(column: &ArrayFormatter<'_>, array: &dyn Array, row: usize) -> io::Result<String> {
    if is_null(array, row) {
        return Ok("null".into());
    }
    let text = column.value(row).to_string();
    let ty = array.data_type();
    let plain = match ty {
        DataType::Boolean | DataType::Decimal64(..) | DataType::Decimal128(..) => true,
        // NaN and the infinities have no form in JSON.
        ty if ty.is_floating() => text.parse::<f64>().is_ok_and(f64::is_finite),
        ty => ty.is_integer(),
    };
    if plain { Ok(text) } else { Ok(serde_json::to_string(&text)?) }
}
