//! Looking at everything that a data directory holds: `stoa check`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::Array;

use super::catalog::{Catalog, Files};
use super::{folder, recover};
use crate::disk::LocalDisk;
use crate::predicate::Predicate;
use crate::segment::{Column, FilterCounters, Segment};
use crate::statistics::compare;
use crate::summary::summarize;
use crate::table::{Stored, Table};
use crate::{Datum, Error, Result};

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Tables.
    pub tables: u64,
    /// Segments.
    pub segments: u64,
    /// Rows of the tables, those in memory too.
    pub rows: u64,
    /// Bytes of the segments.
    pub bytes: u64,
    /// The LSN of the last commit.
    pub lsn: u64,
    /// What is damaged.
    pub damages: Vec<Damage>,
}

impl CheckReport {
    /// Looks at every byte of a data directory that nobody has open, without changing any: manifest and log, and of every segment the
    /// checksums, the values, and the zone maps, indexes and unique keys against the values. `progress` gets the segments that are done and all.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Version`], [`Error::Io`]: what keeps one from looking. Damage is no error.
    pub fn of(root: &Path, progress: &dyn Fn(u64, u64)) -> Result<CheckReport> {
        if !root.is_dir() {
            return Err(Error::Invalid(format!("{} is not a folder", root.display())));
        }
        folder::check_before_lock(&LocalDisk, root)?;
        let _lock = folder::take_lock(root)?;
        let files = Arc::new(Files { disk: Arc::new(LocalDisk), root: root.to_path_buf() });
        let mut report = CheckReport::default();
        let read = Catalog::load(&files).and_then(|(mut catalog, first_log)| {
            recover(&mut catalog, first_log, &mut |_, _| Ok(()))?;
            Ok(catalog)
        });
        match read {
            Ok(catalog) => report.look_at(&catalog, progress),
            Err(Error::Corrupt { path, what }) => report.damages.push(Damage { path, what }),
            Err(other) => return Err(other),
        }
        Ok(report)
    }

    fn look_at(&mut self, catalog: &Catalog, progress: &dyn Fn(u64, u64)) {
        (self.tables, self.lsn) = (catalog.tables.len() as u64, catalog.sequence);
        let all = catalog.segments().count() as u64;
        for table in catalog.tables.values() {
            for stored in table.partitions.iter().flat_map(|part| &part.segments) {
                progress(self.segments, all);
                self.segments += 1;
                self.bytes += stored.segment.bytes_on_disk();
                self.look_at_segment(table, stored);
            }
            self.rows += table.rows();
            self.look_at_keys(table);
        }
        progress(all, all);
    }

    fn look_at_segment(&mut self, table: &Table, stored: &Stored) {
        let segment = &stored.segment;
        for ordinal in 0..table.def.columns.len() {
            if let Err(error) = look_at_column(segment, ordinal) {
                let name = &table.def.columns[ordinal].name;
                self.found(segment.path(), error, &format!("column '{name}': "));
            }
        }
    }

    /// No two rows share a unique key, and every row is in the partition that its shard key says.
    fn look_at_keys(&mut self, table: &Arc<Table>) {
        for (number, part) in table.partitions.iter().enumerate() {
            for stored in &part.segments {
                let shard = look_at_shard(table, number, &stored.segment);
                let keys = shard.and_then(|()| look_at_unique(table, number, stored));
                if let Err(error) = keys {
                    self.found(stored.segment.path(), error, "");
                }
            }
        }
    }

    fn found(&mut self, path: &Path, error: Error, what: &str) {
        let damage = match error {
            Error::Corrupt { path, what } => Damage { path, what },
            other => Damage { path: path.to_path_buf(), what: format!("{what}{other}") },
        };
        if !self.damages.contains(&damage) {
            self.damages.push(damage);
        }
    }
}

fn look_at_column(segment: &Segment, ordinal: usize) -> Result<()> {
    let column: &Column = segment.column(ordinal)?;
    let values = segment.values(ordinal, 0, segment.rows(), None)?;
    let wrong = |what: &str| Err(Error::Invalid(format!("{what} differs from the values")));
    let (stated, found) = (segment.zone(ordinal)?, summarize(&values, 0).zone);
    if values.len() != segment.rows() || stated.nulls != values.null_count() as u64 {
        return wrong("the number of rows or NULLs");
    }
    if !same(&stated.min, &found.min) || !same(&stated.max, &found.max) {
        return wrong("the zone map");
    }
    if let Some(index) = column.bitmap_index() {
        index.check(&values)?;
    }
    // Each block's own least and greatest value must pass its zone map, whatever way the filter goes.
    for first in (0..segment.rows()).step_by(crate::BLOCK_ROWS) {
        let rows = crate::BLOCK_ROWS.min(segment.rows() - first);
        let zone = summarize(&values.slice(first, rows), 0).zone;
        for bound in [&zone.min, &zone.max].into_iter().flatten() {
            if zone.exact && !finds(column, first, rows, bound)? {
                return wrong("a block's zone map or index");
            }
        }
    }
    Ok(())
}

/// Whether two bounds are the same; NaN is itself here.
fn same(a: &Option<Datum>, b: &Option<Datum>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => compare(a, b).is_eq(),
        (a, b) => a.is_none() && b.is_none(),
    }
}

/// Whether a filter for a value finds a row of a block.
fn finds(column: &Column, first: usize, rows: usize, value: &Datum) -> Result<bool> {
    let bound = || Some((value.clone(), true));
    let filter = column.prepare(&Predicate::Range { low: bound(), high: bound() });
    let mut mask = vec![u64::MAX; rows.div_ceil(64)];
    if !rows.is_multiple_of(64)
        && let Some(last) = mask.last_mut()
    {
        *last = (1 << (rows % 64)) - 1;
    }
    column.filter_prepared(&filter, first, rows, &mut mask, &mut FilterCounters::default())?;
    Ok(mask.iter().any(|word| *word != 0))
}

fn look_at_shard(table: &Table, partition: usize, segment: &Segment) -> Result<()> {
    // A table of one partition may be a part of one that is spread over several directories.
    if table.def.shard_key.is_empty() || table.partitions.len() == 1 {
        return Ok(());
    }
    let keys = segment.whole(&table.def.shard_key)?;
    let partitions = table.partitions.len();
    let stray = crate::shard_hashes(&keys).into_iter().position(|hash| crate::partition_of(hash, partitions) != partition);
    match stray {
        Some(row) => Err(Error::Invalid(format!("row {row} belongs to another partition"))),
        None => Ok(()),
    }
}

fn look_at_unique(table: &Arc<Table>, partition: usize, stored: &Stored) -> Result<()> {
    for (number, key) in table.def.unique_keys.iter().enumerate() {
        let sought = crate::keys::SoughtKeys::of_key(stored.segment.whole(&key.columns)?);
        let mut seen = std::collections::HashMap::new();
        for (row, place) in sought.find(&table.def, number, &table.partitions[partition])? {
            if !stored.is_deleted(row as u32) && seen.insert(row, place).is_some_and(|other| other != place) {
                return Err(Error::Invalid(format!("row {row}: another row has the same {} {}", key.name, sought.text(row))));
            }
        }
    }
    Ok(())
}
