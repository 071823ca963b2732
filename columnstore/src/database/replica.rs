//! A replica takes the records of its master's log, as they are, into a log of its own.

use std::path::PathBuf;
use std::sync::Arc;

use super::catalog::Files;
use super::commit::{Head, added_segments};
use super::replication::{LogRecord, Position, Role};
use super::{Catalog, Database};
use crate::log::{Change, Entry, decode_changes};
use crate::segment::{Segment, corrupt, io_error};
use crate::{Error, Result};

/// The files of the segments that changes bring, with their lengths.
pub(super) fn added_paths(files: &Files, changes: &[Change]) -> Vec<(PathBuf, u64)> {
    let mut paths = Vec::new();
    for change in changes {
        let (table, partition, segments): (u64, usize, &[Entry]) = match change {
            Change::Attach { table, partition, segments } | Change::Rewrite { table, partition, segments, .. } => {
                (*table, *partition, segments)
            }
            Change::Prepare { changes, .. } => {
                paths.extend(added_paths(files, changes));
                continue;
            }
            _ => continue,
        };
        paths.extend(segments.iter().map(|e| (files.segment_path(table, partition, e.id), e.written.length)));
    }
    paths
}

/// The segments that are not in use any more after a change, of the state before it.
pub(super) fn gone(before: &Catalog, change: &Change) -> Vec<Arc<Segment>> {
    let of_table = |id: &u64| before.table_of(*id).map(|table| table.segments().cloned().collect()).unwrap_or_default();
    match change {
        Change::DropTable(id) | Change::TruncateTable(id) => of_table(id),
        Change::Rewrite { table, removed, .. } => {
            let mut segments: Vec<Arc<Segment>> = of_table(table);
            segments.retain(|segment| removed.contains(&segment.id()));
            segments
        }
        Change::Resolve { transaction, commit } => {
            let prepared = before.prepared.get(transaction).map(|prepared| &prepared.changes[..]).unwrap_or_default();
            if *commit {
                prepared.iter().flat_map(|change| gone(before, change)).collect()
            } else {
                added_segments(prepared).cloned().collect()
            }
        }
        _ => vec![],
    }
}

impl Database {
    /// Takes records from the master, whose segment files are here; they are on disk, unless rows need not be
    /// ([`crate::Durability::Async`]), and shown when this returns. Where the log ends
    /// then.
    ///
    /// # Errors
    /// [`Error::NotMaster`] if this copy is no replica; [`Error::Invalid`] if a record does not follow the last one or is of an earlier
    /// term; [`Error::Corrupt`] if it cannot be applied or a segment is not here; [`Error::Io`]. None of them counts then.
    pub fn replicate(self: &Arc<Self>, records: &[LogRecord]) -> Result<Position> {
        let mut head = self.head.lock();
        if !matches!(head.role, Role::Replica) {
            return Err(Error::NotMaster("it is no replica".into()));
        }
        self.heal_now(&mut head)?;
        let mut removed = Vec::new();
        let taken = records.iter().try_for_each(|record| self.take(&mut head, record, &mut removed));
        if let Err(error) = taken {
            // Some may be in the log: it begins anew from what is shown.
            self.syncing.lock().failed = Some(error.to_string());
            self.heal_now(&mut head)?;
            return Err(error);
        }
        let on_disk = self.syncing.lock().on_disk;
        if self.must_sync(&head, on_disk) {
            self.quiet(&mut head);
        } else {
            self.count(&head);
        }
        if let Some(why) = self.log_failure() {
            self.heal_now(&mut head)?;
            return Err(Error::Io { path: self.files.root.clone(), source: std::io::Error::other(why) });
        }
        drop(head);
        removed.iter().for_each(|segment| segment.set_doomed(true));
        self.maintain_soon();
        Ok(self.position())
    }

    fn take(&self, head: &mut Head, record: &LogRecord, removed: &mut Vec<Arc<Segment>>) -> Result<()> {
        let Position { lsn, term, .. } = self.position();
        if record.lsn != lsn + 1 || record.term < term {
            let what = format!("record {} of term {} does not follow record {lsn} of term {term}", record.lsn, record.term);
            return Err(Error::Invalid(what));
        }
        let refused = |what: String| corrupt(&self.files.root, &format!("record {}: {what}", record.lsn));
        let changes = decode_changes(&record.body).map_err(refused)?;
        for (path, length) in added_paths(&self.files, &changes) {
            let found = self.files.disk.read(&path).map_err(io_error(&path))?;
            if found.len() as u64 != length {
                return Err(corrupt(&path, &format!("it has {} bytes instead of {length}", found.len())));
            }
        }
        let mut next = Catalog::clone(&head.catalog);
        for change in &changes {
            removed.extend(gone(&next, change));
            next.apply(change).map_err(|e| refused(format!("it cannot be applied ({e})")))?;
        }
        (next.sequence, next.term) = (record.lsn, record.term);
        let on_disk = self.syncing.lock().on_disk;
        next.checksum = head.log.append(next.sequence, next.term, on_disk, &record.body)?;
        head.catalog = Arc::new(next);
        head.note(&changes);
        self.ship(head, vec![], std::iter::empty());
        Ok(())
    }
}
