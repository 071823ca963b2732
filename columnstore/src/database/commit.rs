//! Commits: the log first, then memory, then the disk, then everyone.
//!
//! After a sync that failed nobody can say what is on disk, so what it was to cover counts as not committed: the next commit begins a
//! new log on a manifest of what had been shown ([`super::syncing`]).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::folder::remove_logs;
use super::hold::Holds;
use super::replication::Role;
use super::rewrite::Forward;
use super::syncing::Lost;
use super::tasks::Task;
use super::{Catalog, Database};
use crate::Result;
use crate::definition::Durability;
use crate::log::{self, Change, LogWriter, encode_changes};

/// The newest state, which may not be on disk yet, and the log that makes it last.
pub(crate) struct Head {
    pub(crate) catalog: Arc<Catalog>,
    pub(super) role: Role,
    pub(super) log: Arc<LogWriter>,
    log_number: u64,
    /// The last commit that has to be on disk to count.
    pub(super) must_last: u64,
    /// Where rows went, for transactions that saw them elsewhere; with the LSN of the commit.
    pub(crate) forwards: Vec<(u64, Arc<Forward>)>,
    pub(super) holds: Holds,
}

impl Head {
    pub(crate) fn new(catalog: Arc<Catalog>, log: LogWriter, log_number: u64) -> Head {
        let must_last = catalog.sequence;
        Head {
            catalog,
            role: Role::Alone,
            log: Arc::new(log),
            log_number,
            must_last,
            forwards: Vec::new(),
            holds: Holds::default(),
        }
    }

    /// Remembers whether what was just committed has to be on disk to count.
    pub(super) fn note(&mut self, changes: &[Change]) {
        if !changes.iter().all(is_of_rows) {
            self.must_last = self.catalog.sequence;
        }
    }
}

impl Database {
    /// Commits the changes that `plan` makes from the newest state, all or none. They are on disk and shown when this returns.
    ///
    /// # Errors
    /// Those of `plan`; [`Error::Io`], and then nothing was changed.
    pub(crate) fn commit<T>(self: &Arc<Self>, plan: impl FnOnce(&Head) -> Result<(Vec<Change>, T)>) -> Result<T> {
        self.commit_then(plan, |_| ())
    }

    /// As [`Database::commit`]; `then` is called before any other commit, with the newest state being this one's.
    pub(super) fn commit_then<T>(
        self: &Arc<Self>,
        plan: impl FnOnce(&Head) -> Result<(Vec<Change>, T)>,
        then: impl FnOnce(&mut Head),
    ) -> Result<T> {
        let waits;
        let (lsn, failures, value) = {
            let mut head = self.head.lock();
            self.wait_for_holds(&mut head);
            self.check_master(&head)?;
            self.heal(&mut head)?;
            let (changes, value) = plan(&head)?;
            if changes.is_empty() {
                return Ok(value);
            }
            head.catalog.check_prepared(&changes)?;
            let mut next = Catalog::clone(&head.catalog);
            changes.iter().try_for_each(|change| next.apply(change))?;
            next.sequence += 1;
            let (on_disk, failures) = {
                let syncing = self.syncing.lock();
                (syncing.on_disk, syncing.over.len())
            };
            // From here on the log may name them: after a crash even a record whose write failed may be there.
            added_segments(&changes).for_each(|segment| segment.set_doomed(false));
            let body = encode_changes(&changes);
            next.checksum = self.write_record(&mut head, &next, on_disk, &body)?;
            head.catalog = Arc::new(next);
            head.note(&changes);
            then(&mut head);
            self.ship(&head, body, added_segments(&changes));
            waits = self.must_sync(&head, on_disk) || matches!(head.role, Role::Master(_));
            if !waits {
                self.show(&head.catalog);
            }
            (head.catalog.sequence, failures, value)
        };
        if waits {
            self.wait_synced(lsn, failures)?;
        }
        self.maintain_soon();
        Ok(value)
    }

    /// Puts a record into the log. If whoever waits for it syncs the log in any case, he writes it too, together with others.
    fn write_record(&self, head: &mut Head, next: &Catalog, on_disk: u64, body: &[u8]) -> Result<u64> {
        let later = self.options.fsync && self.durability() == Durability::Sync && matches!(head.role, Role::Alone);
        let (lsn, term) = (next.sequence, next.term);
        if later { head.log.append_later(lsn, term, on_disk, body) } else { head.log.append(lsn, term, on_disk, body) }
    }

    /// After a failed sync or write, begins a new log on a manifest of what is shown. A master does not: replicas may have what it would
    /// give up. It waits for a new term.
    fn heal(&self, head: &mut Head) -> Result<()> {
        let failed = self.syncing.lock().failed.clone();
        if failed.is_none() && !head.log.is_broken() {
            return Ok(());
        }
        if let Role::Master(_) = head.role {
            return Err(self.lost(Lost::NotSynced(failed.unwrap_or_else(|| "an earlier write failed half-way".into()))));
        }
        self.heal_now(head)
    }

    /// Begins a new log on a manifest of what is shown, if the old one failed.
    pub(super) fn heal_now(&self, head: &mut Head) -> Result<()> {
        if self.syncing.lock().failed.is_none() && !head.log.is_broken() {
            return Ok(());
        }
        self.quiet(head);
        let before = self.catalog();
        // A checkpoint that is being written must not come after this one.
        let _storing = self.storing.lock();
        let number = self.next_log(head)?;
        before.store(number.0, self.options.fsync)?;
        (head.log_number, head.log) = number;
        head.catalog = Arc::clone(&before);
        head.must_last = before.sequence;
        head.forwards.retain(|(lsn, _)| *lsn <= before.sequence);
        self.tail.lock().cut(&before);
        self.shown.cut(before.sequence);
        {
            let mut syncing = self.syncing.lock();
            (syncing.synced, syncing.on_disk) = (before.sequence, before.sequence);
            syncing.get_over(Lost::NotSynced("an earlier sync failed".into()));
        }
        remove_logs(&self.files, |number| number < head.log_number)
    }

    fn next_log(&self, head: &Head) -> Result<(u64, Arc<LogWriter>)> {
        let number = head.log_number + 1;
        let path = log::file_path(&self.files.root, number);
        // One that an earlier try left has nothing in it.
        let _ = self.files.disk.remove(&path);
        let log = LogWriter::create(&*self.files.disk, &self.files.root, number, self.options.fsync)?;
        Ok((number, Arc::new(log)))
    }

    /// Writes a manifest of the newest state and removes the log before it. Commits wait for one sync, not for the manifest.
    ///
    /// # Errors
    /// [`Error::Io`]; the old manifest and the log stay then.
    pub fn checkpoint(self: &Arc<Self>) -> Result<()> {
        let _alone = self.maintenance.checkpointing();
        self.attempt(Task::Checkpoint, || self.write_checkpoint())
    }

    fn write_checkpoint(self: &Arc<Self>) -> Result<()> {
        let (catalog, number, _storing) = {
            let mut head = self.head.lock();
            self.heal(&mut head)?;
            self.quiet(&mut head);
            if let Some(lost) = self.syncing.lock().lost() {
                return Err(self.lost(lost));
            }
            (head.log_number, head.log) = self.next_log(&head)?;
            (Arc::clone(&head.catalog), head.log_number, self.storing.lock())
        };
        catalog.store(number, self.options.fsync)?;
        remove_logs(&self.files, |older| older < number)
    }

    /// Forgets where rows went that no transaction can have seen at their old places.
    pub(super) fn prune_forwards(&self, head: &mut Head) {
        let writers = self.writers.lock();
        let oldest = writers.values().min().copied().unwrap_or(u64::MAX).min(self.shown.oldest_lsn());
        head.forwards.retain(|(lsn, _)| oldest < *lsn);
        self.forwards.store(!head.forwards.is_empty(), Ordering::Release);
    }

    /// The number of the log's last file, and its bytes.
    pub(super) fn log_end(&self) -> Result<(u64, u64)> {
        let head = self.head.lock();
        head.log.write()?;
        Ok((head.log_number, head.log.length()))
    }

    /// Bytes of the log since the last checkpoint.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.head.lock().log.length()
    }
}

/// Whether nothing but rows in the log depends on the change being on disk.
fn is_of_rows(change: &Change) -> bool {
    matches!(change, Change::Insert { .. } | Change::Delete { .. })
}

/// The segments that changes bring.
pub(super) fn added_segments(changes: &[Change]) -> impl Iterator<Item = &Arc<crate::segment::Segment>> {
    changes.iter().flat_map(within).flat_map(entries).filter_map(|entry| entry.segment.as_ref())
}

/// The changes that a change is made of.
fn within(change: &Change) -> &[Change] {
    if let Change::Prepare { changes, .. } = change { changes } else { std::slice::from_ref(change) }
}

fn entries(change: &Change) -> &[crate::log::Entry] {
    if let Change::Attach { segments, .. } | Change::Rewrite { segments, .. } = change { segments } else { &[] }
}
