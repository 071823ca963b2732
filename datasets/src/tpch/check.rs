//! Compares a result with its answer: decimals and everything else exactly, floats to 1e-9 relative.

use std::fmt;

use arrow::array::{Array, RecordBatch, cast::AsArray};
use arrow::datatypes::{DataType, Decimal64Type, Decimal128Type, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// The first difference between a result and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch(String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mismatch {}

/// Compares rows with an answer of the form that [`super::answer`] gives.
///
/// # Errors
/// The first difference, with row (from 1) and column.
pub fn check(answer: &str, batches: &[RecordBatch]) -> Result<(), Mismatch> {
    let mut lines = answer.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split('|').collect();
    let mut expected = lines;
    let mut row_number = 0;
    for batch in batches {
        if batch.num_columns() != header.len() {
            return Err(Mismatch(format!("{} columns instead of {}", batch.num_columns(), header.len())));
        }
        for row in 0..batch.num_rows() {
            row_number += 1;
            let line = expected.next().ok_or_else(|| Mismatch(format!("more than the {} rows expected", row_number - 1)))?;
            check_row(&header, line, batch, row).map_err(|what| Mismatch(format!("row {row_number}, {what}")))?;
        }
    }
    let missing = expected.count();
    if missing > 0 { Err(Mismatch(format!("{row_number} rows, {missing} fewer than expected"))) } else { Ok(()) }
}

fn check_row(header: &[&str], line: &str, batch: &RecordBatch, row: usize) -> Result<(), String> {
    let fields: Vec<&str> = line.split('|').collect();
    if fields.len() != header.len() {
        return Err(format!("the answer has {} fields instead of {}", fields.len(), header.len()));
    }
    for ((field, name), column) in fields.iter().zip(header).zip(batch.columns()) {
        let found = format_value(column.as_ref(), row).map_err(|e| format!("column {name}: {e}"))?;
        if !same(field, &found, column.as_ref(), row) {
            return Err(format!("column {name}: {found} instead of {field}"));
        }
    }
    Ok(())
}

fn format_value(column: &dyn Array, row: usize) -> Result<String, String> {
    let formatter = ArrayFormatter::try_new(column, &FormatOptions::default()).map_err(|e| e.to_string())?;
    Ok(formatter.value(row).to_string())
}

fn same(expected: &str, found: &str, column: &dyn Array, row: usize) -> bool {
    if column.is_null(row) {
        return expected.is_empty() || expected == "\"\"";
    }
    match column.data_type() {
        DataType::Float64 => close(expected, column.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal64(_, scale) => {
            decimal(expected, *scale) == Some(i128::from(column.as_primitive::<Decimal64Type>().value(row)))
        }
        DataType::Decimal128(_, scale) => decimal(expected, *scale) == Some(column.as_primitive::<Decimal128Type>().value(row)),
        _ => expected == found,
    }
}

fn close(expected: &str, found: f64) -> bool {
    let Ok(expected) = expected.parse::<f64>() else { return false };
    (expected - found).abs() <= 1e-9 * expected.abs().max(found.abs())
}

/// The unscaled value of decimal digits at `scale`; `None` if they have no exact value there.
fn decimal(text: &str, scale: i8) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let scale = usize::try_from(scale).ok()?;
    let kept = &fraction[..fraction.len().min(scale)];
    if fraction[kept.len()..].bytes().any(|b| b != b'0') {
        return None;
    }
    format!("{whole}{kept}{}", "0".repeat(scale - kept.len())).parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Decimal64Array, Float64Array, StringViewArray};

    use super::*;

    fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
        RecordBatch::try_from_iter(columns.into_iter().enumerate().map(|(i, c)| (format!("c{i}"), c))).unwrap()
    }

    #[test]
    fn accepts_equal_rows_and_names_the_first_difference() {
        let prices = Decimal64Array::from(vec![Some(1250), None]).with_precision_and_scale(15, 2).unwrap();
        let rows = batch(vec![
            Arc::new(StringViewArray::from(vec!["a", "b"])),
            Arc::new(prices),
            Arc::new(Float64Array::from(vec![0.1 + 0.2, 2.0])),
        ]);
        assert_eq!(check("n|p|f\na|12.5|0.3\nb||2\n", std::slice::from_ref(&rows)), Ok(()));
        let wrong = check("n|p|f\na|12.51|0.3\nb||2\n", std::slice::from_ref(&rows)).unwrap_err();
        assert_eq!(wrong.to_string(), "row 1, column p: 12.50 instead of 12.51");
        let wrong = check("n|p|f\na|12.5|0.300001\nb||2\n", std::slice::from_ref(&rows)).unwrap_err();
        assert!(wrong.to_string().starts_with("row 1, column f"));
        assert!(check("n|p|f\na|12.5|0.3\n", std::slice::from_ref(&rows)).unwrap_err().to_string().starts_with("more than"));
        assert!(check("n|p|f\na|12.5|0.3\nb||2\nc||\n", &[rows]).unwrap_err().to_string().starts_with("2 rows, 1 fewer"));
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(decimal("1.5", 2), Some(150));
        assert_eq!(decimal("-0.05", 2), Some(-5));
        assert_eq!(decimal("1.500", 1), Some(15));
        assert_eq!(decimal("1.55", 1), None);
        assert_eq!(decimal("x", 1), None);
    }
}
