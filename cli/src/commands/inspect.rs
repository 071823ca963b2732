//! `stoa inspect`: what is on disk.

use comfy_table::{Cell, CellAlignment, Table as TextTable, presets};
use stoa_columnstore::{Segment, Table};

use crate::args::InspectArgs;
use crate::engine::Engine;
use crate::{Error, Result};

/// Runs the command.
///
/// # Errors
/// If the table is missing or a segment is damaged.
pub fn run(args: &InspectArgs) -> Result<()> {
    let engine = Engine::open(&args.engine)?;
    match &args.table {
        None => overview(&engine),
        Some(name) => {
            let table = engine.database().table(name).ok_or_else(|| stoa_columnstore::Error::NoSuchTable(name.clone()))?;
            for (number, partition) in table.partitions.iter().enumerate() {
                for segment in &partition.segments {
                    show_segment(&table, number, segment)?;
                }
            }
            Ok(())
        }
    }
}

fn text_table(header: &[&str]) -> TextTable {
    let mut table = TextTable::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(header);
    table
}

fn right(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// A line a column of every table: sizes summed over the segments.
fn overview(engine: &Engine) -> Result<()> {
    let mut text = text_table(&["table", "column", "type", "rows", "segments", "bytes", "raw bytes", "ratio", "encodings", "min", "max", "index"]);
    let mut total = 0;
    for table in engine.database().tables() {
        let segments: Vec<_> = table.partitions.iter().flat_map(|p| &p.segments).collect();
        for (i, column) in table.def.columns.iter().enumerate() {
            let mut sum = Sum::default();
            for segment in &segments {
                sum.add(segment, i)?;
            }
            total += sum.bytes;
            let statistics = table.column_statistics(i);
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
    println!("{text}\n{total} bytes of columns, {} bytes on disk", engine.bytes_on_disk());
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
        let encoding = info.encoding.to_string();
        if !self.encodings.contains(&encoding) {
            self.encodings.push(encoding);
        }
        if let Some(index) = &info.index {
            self.index.clone_from(index);
        }
        Ok(())
    }
}

fn show_segment(table: &Table, partition: usize, segment: &Segment) -> Result<()> {
    println!("partition {partition}, segment {} of {} rows: {}", segment.id(), segment.rows(), segment.path().display());
    let mut text = text_table(&["column", "type", "encoding", "bytes", "raw bytes", "ratio", "nulls", "min", "max", "index"]);
    for (i, column) in table.def.columns.iter().enumerate() {
        let info = segment.column_info(i)?;
        text.add_row([
            Cell::new(&column.name),
            Cell::new(&column.sql_type),
            Cell::new(&info.description),
            right(info.bytes),
            right(info.raw_bytes),
            right(ratio(info.bytes, info.raw_bytes)),
            right(info.nulls),
            Cell::new(show(info.min.as_ref(), &column.ty)),
            Cell::new(show(info.max.as_ref(), &column.ty)),
            Cell::new(info.index.as_deref().unwrap_or_default()),
        ]);
    }
    println!("{text}");
    Ok(())
}
