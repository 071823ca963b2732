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
use crate::table::{Scanned, Stored, Table};
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
    /// checksums, the values, and the zone maps, indexes and unique keys against the values; and of the rows in memory the unique keys.
    /// Rows must be in their partition; `part` is the ordinal of the partition that the whole directory is, and how many there are.
    /// `progress` gets the segments that are done and all.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Version`], [`Error::Io`]: what keeps one from looking. Damage is no error.
    pub fn of(root: &Path, part: Option<(u32, u32)>, progress: &dyn Fn(u64, u64)) -> Result<CheckReport> {
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
            Ok(catalog) => report.look_at(&catalog, part, progress),
            Err(Error::Corrupt { path, what }) => report.damages.push(Damage { path, what }),
            Err(other) => return Err(other),
        }
        Ok(report)
    }

    fn look_at(&mut self, catalog: &Catalog, part: Option<(u32, u32)>, progress: &dyn Fn(u64, u64)) {
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
            self.look_at_keys(table, part, &catalog.files.root);
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
    fn look_at_keys(&mut self, table: &Arc<Table>, part: Option<(u32, u32)>, root: &Path) {
        for number in 0..table.partitions.len() {
            let units = match table.scanned(number) {
                Ok(units) => units,
                Err(error) => {
                    self.found(root, error, &format!("table '{}', rows in the log: ", table.name()));
                    continue;
                }
            };
            let whole = table.partitions.len() as u32;
            // A directory that is a partition has one of each table; a copy of a REFERENCE table is whole.
            let place = if whole > 1 { Some((number as u32, whole)) } else { part.filter(|_| !table.def.reference) };
            let segments = table.partitions[number].segments.len();
            for (i, Scanned { segment, deleted, .. }) in units.into_iter().enumerate() {
                let stored = Stored { segment, deleted };
                let shard = place.map_or(Ok(()), |place| look_at_shard(table, place, &stored));
                let Err(error) = shard.and_then(|()| look_at_unique(table, number, &stored)) else { continue };
                if i < segments {
                    self.found(stored.segment.path(), error, "");
                } else {
                    self.found(root, error, &format!("table '{}', partition {number}, rows in the log: ", table.name()));
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

/// Whether rows are where they belong: in a partition of so many.
fn look_at_shard(table: &Table, (ordinal, partitions): (u32, u32), stored: &Stored) -> Result<()> {
    if table.def.shard_key.is_empty() {
        return Ok(());
    }
    let keys = stored.segment.whole(&table.def.shard_key)?;
    for (row, hash) in (0u32..).zip(crate::shard_hashes(&keys)) {
        let home = crate::partition_of(hash, partitions as usize);
        if home != ordinal as usize && !stored.is_deleted(row) {
            let what = format!("row {row} belongs to partition {home} of {partitions}, and is in partition {ordinal}");
            return Err(Error::Invalid(what));
        }
    }
    Ok(())
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
