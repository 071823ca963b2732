//! Building a segment file from rows in memory.

use std::io::{self, Write};
use std::path::Path;

use arrow::array::ArrayRef;
use arrow::buffer::{Buffer, MutableBuffer};
use rayon::prelude::*;

use crate::bitmap_index::{AUTO_ROWS, AUTO_VALUES, DECLARED_VALUES, build as build_index, estimate_bytes};
use crate::definition::{BitmapIndex, ColumnDef};
use crate::disk::{Disk, DiskFile};
use crate::encoding::{Encoded, Encoding, encode, encode_as};
use crate::segment::file::{Blob, SegmentWriter, Written};
use crate::segment::footer::{ColumnFooter, encode_footer};
use crate::summary::{Summary, summarize};
use crate::zone::encode_blocks;
use crate::{BLOCK_ROWS, Result};

/// A segment file that is written but may not be on disk yet.
pub(crate) struct BuiltSegment {
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) written: Written,
}

struct BuiltColumn {
    footer: ColumnFooter,
    data: Vec<u8>,
    block_zones: Vec<u8>,
    bitmap_index: Vec<u8>,
}

/// Encodes the columns (of equal length and canonical types), in parallel, and writes the file.
pub(crate) fn build_segment(
    disk: &dyn Disk,
    path: &Path,
    definitions: &[ColumnDef],
    columns: &[ArrayRef],
) -> Result<BuiltSegment> {
    let built: Vec<Result<BuiltColumn>> = definitions
        .par_iter()
        .zip(columns)
        .with_max_len(1)
        .map(|(definition, column)| build_column(definition, column))
        .collect();
    let (buffered, written) = write_columns(SegmentWriter::create(disk, path)?, built, columns)?;
    let file = buffered.into_inner().map_err(|e| crate::segment::io_error(path)(e.into_error()))?;
    Ok(BuiltSegment { file: file.0, written })
}

/// Makes a segment of a few rows in memory: values as they are, zone maps, no index. `path` is what errors name.
pub(crate) fn build_in_memory(path: &Path, definitions: &[ColumnDef], columns: &[ArrayRef]) -> Result<(Buffer, Written)> {
    let built = definitions.iter().zip(columns).map(|(_, column)| build_plain_column(column)).collect();
    let image = Image(MutableBuffer::new(1 << 12));
    let (Image(bytes), written) = write_columns(SegmentWriter::new(path, image)?, built, columns)?;
    Ok((bytes.into(), written))
}

/// Bytes in memory, aligned as those of a file are.
struct Image(MutableBuffer);

impl Write for Image {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_columns<W: Write>(
    mut writer: SegmentWriter<W>,
    built: Vec<Result<BuiltColumn>>,
    columns: &[ArrayRef],
) -> Result<(W, Written)> {
    let rows = columns.first().map_or(0, |c| c.len());
    let mut footers = Vec::with_capacity(built.len());
    for column in built {
        let mut column = column?;
        column.footer.data = writer.blob(&column.data)?;
        column.footer.block_zones = writer.blob(&column.block_zones)?;
        column.footer.bitmap_index = writer.blob(&column.bitmap_index)?;
        footers.push(column.footer);
    }
    writer.finish(&encode_footer(rows, &footers))
}

fn build_plain_column(column: &ArrayRef) -> Result<BuiltColumn> {
    let summary = summarize(column, 0);
    let encoded = match encode_as(Encoding::Plain, column)? {
        Some(plain) => plain,
        None => encode(column)?,
    };
    Ok(built(column, summary, encoded, Vec::new()))
}

fn build_column(definition: &ColumnDef, column: &ArrayRef) -> Result<BuiltColumn> {
    let rows = column.len();
    let most_codes = match definition.bitmap_index {
        BitmapIndex::Declared => DECLARED_VALUES,
        BitmapIndex::Auto if rows >= AUTO_ROWS => AUTO_VALUES,
        BitmapIndex::Auto | BitmapIndex::None => 0,
    };
    let summary = summarize(column, most_codes);
    let Encoded { encoding, bytes: data } = encode(column)?;
    let bitmap_index = match &summary.codes {
        // Of its own accord, the writer adds an index only where it is small beside the column.
        Some(codes) if definition.bitmap_index == BitmapIndex::Declared || estimate_bytes(codes) * 2 <= data.len() => {
            build_index(column, codes)?.unwrap_or_default()
        }
        _ => Vec::new(),
    };
    Ok(built(column, summary, Encoded { encoding, bytes: data }, bitmap_index))
}

fn built(column: &ArrayRef, summary: Summary, encoded: Encoded, bitmap_index: Vec<u8>) -> BuiltColumn {
    let block_zones = if column.len() > BLOCK_ROWS { encode_blocks(&summary.blocks, &summary.space) } else { Vec::new() };
    let footer = ColumnFooter {
        ty: column.data_type().clone(),
        encoding: encoded.encoding,
        data: Blob::default(),
        block_zones: Blob::default(),
        bitmap_index: Blob::default(),
        distinct: summary.sketch.estimate(),
        sketch: summary.sketch,
        zone: summary.zone,
        raw_bytes: summary.raw_bytes,
    };
    BuiltColumn { footer, data: encoded.bytes, block_zones, bitmap_index }
}
