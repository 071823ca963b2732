//! A column that a segment's file lacks, because it came to the table later: its initial value in every row.

use super::column::Column;
use super::file::Blob;
use super::footer::ColumnFooter;
use crate::definition::TableDef;
use crate::encoding::Encoding;
use crate::summary::{Summary, summarize};
use crate::{Error, Result};

/// The column, and what a footer would say of it.
pub(super) struct InitialColumn {
    pub(super) footer: ColumnFooter,
    pub(super) column: Column,
}

impl InitialColumn {
    /// The column at an ordinal of a table, for a segment of so many rows. Its cost does not depend on them.
    pub(super) fn new(def: &TableDef, ordinal: usize, rows: usize) -> Result<InitialColumn> {
        let (value, blob) = (def.initial_value(ordinal)?, def.initial_blob(ordinal)?);
        let Summary { mut zone, sketch, raw_bytes, .. } = summarize(&value, 0);
        (zone.nulls, zone.rows) = (zone.nulls * rows as u64, rows as u64);
        let footer = ColumnFooter {
            ty: def.columns[ordinal].ty.clone(),
            encoding: Encoding::Constant,
            data: Blob { length: blob.len() as u64, ..Blob::default() },
            block_zones: Blob::default(),
            bitmap_index: Blob::default(),
            zone,
            distinct: sketch.estimate(),
            sketch,
            raw_bytes: raw_bytes * rows as u64,
        };
        let column = Column::without_blocks(&footer, rows, blob).map_err(Error::Invalid)?;
        Ok(InitialColumn { footer, column })
    }
}
