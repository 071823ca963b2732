//! Building a segment file from rows in memory.

use std::fs::File;
use std::path::Path;

use arrow::array::ArrayRef;
use rayon::prelude::*;

use crate::bitmap_index::{AUTO_ROWS, AUTO_VALUES, DECLARED_VALUES, build as build_index, estimate_bytes};
use crate::definition::{BitmapIndex, ColumnDef};
use crate::encoding::{Encoded, encode};
use crate::segment::file::{Blob, SegmentWriter, Written};
use crate::segment::footer::{ColumnFooter, encode_footer};
use crate::summary::summarize;
use crate::zone::encode_blocks;
use crate::{BLOCK_ROWS, Result};

/// A segment file that is written but may not be on disk yet.
pub(crate) struct BuiltSegment {
    pub(crate) file: File,
    pub(crate) written: Written,
}

struct BuiltColumn {
    footer: ColumnFooter,
    data: Vec<u8>,
    block_zones: Vec<u8>,
    bitmap_index: Vec<u8>,
}

/// Encodes the columns (of equal length and canonical types), in parallel, and writes the file.
pub(crate) fn build_segment(path: &Path, definitions: &[ColumnDef], columns: &[ArrayRef]) -> Result<BuiltSegment> {
    let rows = columns.first().map_or(0, |c| c.len());
    let built: Vec<Result<BuiltColumn>> = definitions
        .par_iter()
        .zip(columns)
        .with_max_len(1)
        .map(|(definition, column)| build_column(definition, column))
        .collect();
    let mut writer = SegmentWriter::create(path)?;
    let mut footers = Vec::with_capacity(built.len());
    for column in built {
        let mut column = column?;
        column.footer.data = writer.blob(&column.data)?;
        column.footer.block_zones = writer.blob(&column.block_zones)?;
        column.footer.bitmap_index = writer.blob(&column.bitmap_index)?;
        footers.push(column.footer);
    }
    let (file, written) = writer.finish(&encode_footer(rows, &footers))?;
    Ok(BuiltSegment { file, written })
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
    let block_zones = if rows > BLOCK_ROWS { encode_blocks(&summary.blocks, &summary.space) } else { Vec::new() };
    let footer = ColumnFooter {
        ty: definition.ty.clone(),
        encoding,
        data: Blob::default(),
        block_zones: Blob::default(),
        bitmap_index: Blob::default(),
        distinct: summary.sketch.estimate(),
        sketch: summary.sketch,
        zone: summary.zone,
        raw_bytes: summary.raw_bytes,
    };
    Ok(BuiltColumn { footer, data, block_zones, bitmap_index })
}
