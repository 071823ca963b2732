//! `stoa inspect`: what is on disk.

use std::io::Write as _;

use arrow::array::temporal_conversions;
use arrow::datatypes::{DataType as ArrowType, Decimal128Type, DecimalType};
use comfy_table::Cell;
use stoa_columnstore::{ColumnInfo, Datum, Segment, Table};

use crate::args::InspectArgs;
use crate::engine::Engine;
use crate::output::{right, text_table};
use crate::{Error, Result};

/// Runs the command.
///
/// # Errors
/// If the table is missing or a segment is damaged.
pub fn run(args: &InspectArgs) -> Result<()> {
    if !args.engine.connect.is_empty() {
        let way_out = "leave out --connect and STOA_CONNECT, and name a directory with --data";
        return Err(Error::Invalid(format!("inspect looks into a data directory, not at a cluster: {way_out}")));
    }
    let engine = Engine::open(&args.engine)?;
    match &args.table {
        None => overview(&engine),
        Some(name) => {
            let table = engine.database().table(name).ok_or_else(|| stoa_columnstore::Error::NoSuchTable(name.clone()))?;
            for number in 0..table.partitions.len() {
                for scanned in table.scanned(number)? {
                    show_segment(&table, number, &scanned.segment)?;
                }
            }
            Ok(())
        }
    }
}

/// A line a column of every table: sizes summed over the segments.
fn overview(engine: &Engine) -> Result<()> {
    let mut text = text_table([
        "table",
        "column",
        "type",
        "rows",
        "segments",
        "bytes",
        "raw bytes",
        "ratio",
        "encodings",
        "min",
        "max",
        "index",
    ]);
    let mut total = 0;
    for table in engine.database().tables() {
        let mut segments = Vec::new();
        for number in 0..table.partitions.len() {
            segments.extend(table.scanned(number)?.into_iter().map(|scanned| scanned.segment));
        }
        let statistics = table.statistics();
        for (i, (column, statistics)) in table.def.columns.iter().zip(&statistics.columns).enumerate() {
            let mut sum = Sum::default();
            for segment in &segments {
                sum.add(segment, i)?;
            }
            total += sum.bytes;
            text.add_row([
                Cell::new(&table.def.name),
                Cell::new(&column.name),
                Cell::new(&column.sql_type),
                right(table.rows()),
                right(segments.len()),
                right(sum.bytes),
                right(sum.raw_bytes),
                right(ratio(sum.bytes, sum.raw_bytes)),
                Cell::new(sum.encodings.join(", ")),
                Cell::new(show(statistics.min.as_ref(), &column.ty)),
                Cell::new(show(statistics.max.as_ref(), &column.ty)),
                Cell::new(sum.index),
            ]);
        }
    }
    writeln!(std::io::stdout(), "{text}\n{total} bytes of columns, {} bytes on disk", engine.bytes_on_disk())?;
    Ok(())
}

/// What the segments of a column add up to.
#[derive(Default)]
struct Sum {
    bytes: u64,
    raw_bytes: u64,
    encodings: Vec<String>,
    index: String,
}

impl Sum {
    fn add(&mut self, segment: &Segment, column: usize) -> Result<()> {
        let info = segment.column_info(column)?;
        self.bytes += info.bytes;
        self.raw_bytes += info.raw_bytes;
        let scheme = info.encoding.split(['(', ' ']).next().unwrap_or_default();
        if !self.encodings.iter().any(|e| e == scheme) {
            self.encodings.push(scheme.to_owned());
        }
        if info.bitmap_index.is_some() {
            self.index = index(&info);
        }
        Ok(())
    }
}

fn show_segment(table: &Table, partition: usize, segment: &Segment) -> Result<()> {
    writeln!(
        std::io::stdout(),
        "partition {partition}, segment {} of {} rows: {}",
        segment.id(),
        segment.rows(),
        segment.path().display()
    )?;
    let mut text = text_table(["column", "type", "encoding", "bytes", "raw bytes", "ratio", "nulls", "min", "max", "index"]);
    for (i, column) in table.def.columns.iter().enumerate() {
        let info = segment.column_info(i)?;
        text.add_row([
            Cell::new(&column.name),
            Cell::new(&column.sql_type),
            Cell::new(&info.encoding),
            right(info.bytes),
            right(info.raw_bytes),
            right(ratio(info.bytes, info.raw_bytes)),
            right(info.zone.nulls),
            Cell::new(show(info.zone.min.as_ref(), &column.ty)),
            Cell::new(show(info.zone.max.as_ref(), &column.ty)),
            Cell::new(index(&info)),
        ]);
    }
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

/// What a segment has of a bitmap index on a column.
fn index(info: &ColumnInfo) -> String {
    info.bitmap_index.map_or_else(String::new, |(values, bytes)| format!("bitmap of {values} values, {bytes} bytes"))
}

/// How many times smaller the encoded bytes are.
fn ratio(bytes: u64, raw: u64) -> String {
    if bytes == 0 { "-".to_owned() } else { format!("{:.1}", raw as f64 / bytes as f64) }
}

/// A bound of a column as SQL would print it, long strings cut.
fn show(bound: Option<&Datum>, ty: &ArrowType) -> String {
    const WIDTH: usize = 24;
    let Some(bound) = bound else { return String::new() };
    let text = match (bound, ty) {
        (Datum::Int(v), ArrowType::Boolean) => (*v != 0).to_string(),
        (Datum::Int(v), ArrowType::Decimal64(precision, scale) | ArrowType::Decimal128(precision, scale)) => {
            Decimal128Type::format_decimal(*v, *precision, *scale)
        }
        (Datum::Int(v), ArrowType::Date32) => i32::try_from(*v)
            .ok()
            .and_then(temporal_conversions::date32_to_datetime)
            .map_or_else(|| v.to_string(), |d| d.date().to_string()),
        (Datum::Int(v), ArrowType::Timestamp(..)) => i64::try_from(*v)
            .ok()
            .and_then(temporal_conversions::timestamp_us_to_datetime)
            .map_or_else(|| v.to_string(), |d| d.to_string()),
        (Datum::Int(v), _) => v.to_string(),
        (Datum::Float(v), _) => v.to_string(),
        (Datum::Bytes(v), ArrowType::Utf8View) => String::from_utf8_lossy(v).into_owned(),
        (Datum::Bytes(v), _) => v.iter().map(|b| format!("{b:02x}")).collect(),
    };
    match text.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
