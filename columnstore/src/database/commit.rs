//! Commits: the log first, then memory, then the disk, then everyone.
//!
//! Whoever finds that nobody syncs the log does so for all whose records are in it by then (group commit; DeWitt et al., 1984). After
//! a sync that failed nobody can say what is on disk, so what it was to cover counts as not committed: the next commit begins a new
//! log on a manifest of what had been shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;

use parking_lot::MutexGuard;

use super::folder::remove_logs;
use super::hold::Holds;
use super::replication::Role;
use super::rewrite::Forward;
use super::{Catalog, Database};
use crate::definition::Durability;
use crate::log::{self, Change, LogWriter, encode_changes};
use crate::{Error, Result};

/// The newest state, which may not be on disk yet, and the log that makes it last.
pub(crate) struct Head {
    pub(crate) catalog: Arc<Catalog>,
    pub(super) role: Role,
    pub(super) log: LogWriter,
    log_number: u64,
    /// Where rows went, for transactions that saw them elsewhere; with the LSN of the commit.
    pub(crate) forwards: Vec<(u64, Arc<Forward>)>,
    pub(super) holds: Holds,
}

impl Head {
    pub(crate) fn new(catalog: Arc<Catalog>, log: LogWriter, log_number: u64) -> Head {
        Head { catalog, role: Role::Alone, log, log_number, forwards: Vec::new(), holds: Holds::default() }
    }
}

/// How far the log is on disk.
pub(crate) struct Syncing {
    /// The last LSN.
    pub(super) synced: u64,
    /// Somebody syncs.
    pub(super) running: bool,
    /// The last sync failed, and why.
    pub(super) failed: Option<String>,
    /// This copy may not acknowledge any more, and why.
    pub(super) fenced: Option<String>,
    /// By failure that is over, the last LSN that outlived it, and how those after it ended.
    pub(super) over: Vec<(u64, Lost)>,
    /// Who waits for a record.
    waiting: Vec<Waiting>,
}

/// Somebody who waits until it is known how a record ended.
struct Waiting {
    lsn: u64,
    failures: usize,
    waiter: Arc<Waiter>,
}

/// A thread that sleeps until it is called.
struct Waiter {
    thread: Thread,
    called: AtomicBool,
}

impl Waiter {
    /// That of this thread.
    fn of_this_thread() -> Arc<Waiter> {
        thread_local! {
            static WAITER: Arc<Waiter> = Arc::new(Waiter { thread: std::thread::current(), called: AtomicBool::new(false) });
        }
        WAITER.with(Arc::clone)
    }

    fn sleep(&self) {
        while !self.called.swap(false, Ordering::Acquire) {
            std::thread::park();
        }
    }

    fn call(&self) {
        self.called.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Why a record does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// It could not be made to last; its number was given anew.
    NotSynced(String),
    /// This copy stopped being the master before it was acknowledged: what became of it the next master knows.
    NotMaster(String),
}

impl Syncing {
    pub(crate) fn at(lsn: u64) -> Syncing {
        Syncing { synced: lsn, running: false, failed: None, fenced: None, over: Vec::new(), waiting: Vec::new() }
    }

    /// How a record ended that was written after so many failures; `None`: it is not decided.
    fn outcome(&self, lsn: u64, failures: usize) -> Option<std::result::Result<(), Lost>> {
        match self.over.get(failures) {
            Some((last, _)) if lsn <= *last => Some(Ok(())),
            Some((_, lost)) => Some(Err(lost.clone())),
            None if lsn <= self.synced => Some(Ok(())),
            None => self.lost().map(Err),
        }
    }

    /// How records end now that are not on disk.
    fn lost(&self) -> Option<Lost> {
        let fenced = self.fenced.clone().map(Lost::NotMaster);
        fenced.or_else(|| self.failed.clone().map(Lost::NotSynced))
    }

    /// A failure is over: what is not acknowledged by now ends so.
    pub(super) fn get_over(&mut self, lost: Lost) {
        self.over.push((self.synced, lost));
        (self.failed, self.fenced) = (None, None);
    }

    /// Those who need not wait any more, and before them one of those who have to: he is to sync, if nobody does.
    fn take_called(&mut self) -> Vec<Arc<Waiter>> {
        let waiting = std::mem::take(&mut self.waiting);
        let (done, mut still): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|waiting| self.outcome(waiting.lsn, waiting.failures).is_some());
        let next = (!self.running && !still.is_empty()).then(|| still.remove(0));
        self.waiting = still;
        next.into_iter().chain(done).map(|waiting| waiting.waiter).collect()
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
            let (synced, failures) = {
                let syncing = self.syncing.lock();
                (syncing.synced, syncing.over.len())
            };
            // From here on the log may name them: after a crash even a record whose write failed may be there.
            added_segments(&changes).for_each(|segment| segment.set_doomed(false));
            let body = encode_changes(&changes);
            next.checksum = head.log.append(next.sequence, next.term, synced, &body)?;
            head.catalog = Arc::new(next);
            then(&mut head);
            self.ship(&head, body, added_segments(&changes));
            let soon = self.options.durability == Durability::Async && changes.iter().all(is_of_rows);
            waits = self.options.fsync && !soon || matches!(head.role, Role::Master(_));
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

    fn show(&self, catalog: &Arc<Catalog>) {
        self.shown.show(catalog);
    }

    /// Waits until a record is on disk that was written after so many failures, or syncs it for all that wait.
    pub(super) fn wait_synced(&self, lsn: u64, failures: usize) -> Result<()> {
        loop {
            {
                let mut syncing = self.syncing.lock();
                if let Some(outcome) = syncing.outcome(lsn, failures) {
                    return outcome.map_err(|lost| self.lost(lost));
                }
                if syncing.running {
                    let waiter = Waiter::of_this_thread();
                    syncing.waiting.push(Waiting { lsn, failures, waiter: Arc::clone(&waiter) });
                    drop(syncing);
                    waiter.sleep();
                    continue;
                }
            }
            let (file, catalog, role) = {
                let head = self.head.lock();
                let mut syncing = self.syncing.lock();
                if syncing.running || syncing.outcome(lsn, failures).is_some() {
                    continue;
                }
                syncing.running = true;
                (head.log.file(), Arc::clone(&head.catalog), head.role.clone())
            };
            let result = self.make_last(&file, &role, catalog.sequence);
            if result.is_ok() {
                self.show(&catalog);
            }
            self.end_sync(catalog.sequence, result);
        }
    }

    /// A sync up to a record has ended: those whom it concerns go on, and the next one begins.
    fn end_sync(&self, lsn: u64, result: std::result::Result<(), Lost>) {
        let mut syncing = self.syncing.lock();
        syncing.running = false;
        match result {
            Ok(()) => syncing.synced = syncing.synced.max(lsn),
            Err(Lost::NotSynced(why)) => syncing.failed = Some(why),
            Err(Lost::NotMaster(why)) => syncing.fenced = Some(why),
        }
        self.call_waiting(syncing);
    }

    /// Lets those go on who wait for what has just been set.
    pub(super) fn call_waiting(&self, mut syncing: MutexGuard<'_, Syncing>) {
        let called = syncing.take_called();
        self.synced.notify_all();
        drop(syncing);
        called.iter().for_each(|waiter| waiter.call());
    }

    /// Waits until the log is on disk, and up to a record on every copy that must have it.
    fn make_last(
        &self,
        (path, file): &(std::path::PathBuf, Arc<dyn crate::disk::DiskFile>),
        role: &Role,
        lsn: u64,
    ) -> std::result::Result<(), Lost> {
        if self.options.fsync {
            file.sync().map_err(|e| Lost::NotSynced(format!("{}: {e}", path.display())))?;
        }
        match role {
            Role::Master(replication) => {
                replication.wait(lsn).map_err(Lost::NotMaster)?;
                self.trim_tail(&**replication);
                Ok(())
            }
            Role::Alone | Role::Replica => Ok(()),
        }
    }

    /// Makes all that was committed last.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync(&self) -> Result<()> {
        let (newest, failures) = {
            let head = self.head.lock();
            (head.catalog.sequence, self.syncing.lock().over.len())
        };
        if self.options.fsync { self.wait_synced(newest, failures) } else { Ok(()) }
    }

    /// Whether something is committed that is not on disk.
    pub(super) fn is_unsynced(&self) -> bool {
        let newest = self.head.lock().catalog.sequence;
        self.options.fsync && self.syncing.lock().synced < newest
    }

    fn lost(&self, lost: Lost) -> Error {
        match lost {
            Lost::NotSynced(why) => {
                let source =
                    std::io::Error::other(format!("the log could not be made to last, so nothing was committed ({why})"));
                Error::Io { path: self.files.root.clone(), source }
            }
            Lost::NotMaster(why) => Error::NotMaster(why),
        }
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
        let number = self.next_log(head)?;
        before.store(number.0, self.options.fsync)?;
        (head.log_number, head.log) = number;
        head.catalog = Arc::clone(&before);
        head.forwards.retain(|(lsn, _)| *lsn <= before.sequence);
        self.tail.lock().cut(&before);
        self.shown.cut(before.sequence);
        {
            let mut syncing = self.syncing.lock();
            syncing.synced = before.sequence;
            syncing.get_over(Lost::NotSynced("an earlier sync failed".into()));
        }
        remove_logs(&self.files, |number| number < head.log_number)
    }

    /// Waits for whoever syncs, and then syncs what is written, if that still means something.
    pub(super) fn quiet(&self, head: &Head) {
        let mut syncing = self.syncing.lock();
        while syncing.running {
            self.synced.wait(&mut syncing);
        }
        if syncing.lost().is_some() {
            return;
        }
        syncing.running = true;
        drop(syncing);
        let result = self.make_last(&head.log.file(), &head.role, head.catalog.sequence);
        if result.is_ok() {
            self.show(&head.catalog);
        }
        self.end_sync(head.catalog.sequence, result);
    }

    fn next_log(&self, head: &Head) -> Result<(u64, LogWriter)> {
        let number = head.log_number + 1;
        let path = log::file_path(&self.files.root, number);
        // One that an earlier try left has nothing in it.
        let _ = self.files.disk.remove(&path);
        Ok((number, LogWriter::create(&*self.files.disk, &self.files.root, number, self.options.fsync)?))
    }

    /// Writes a manifest of the newest state and removes the log before it. Commits wait for one sync, not for the manifest.
    ///
    /// # Errors
    /// [`Error::Io`]; the old manifest and the log stay then.
    pub fn checkpoint(self: &Arc<Self>) -> Result<()> {
        let _alone = self.maintenance.alone();
        let (catalog, number) = {
            let mut head = self.head.lock();
            self.heal(&mut head)?;
            self.quiet(&head);
            if let Some(lost) = self.syncing.lock().lost() {
                return Err(self.lost(lost));
            }
            (head.log_number, head.log) = self.next_log(&head)?;
            (Arc::clone(&head.catalog), head.log_number)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_a_failure_undid_is_not_taken_for_the_next_one_of_its_number() {
        let mut syncing = Syncing::at(4);
        assert_eq!((syncing.outcome(4, 0), syncing.outcome(5, 0)), (Some(Ok(())), None));
        syncing.failed = Some("it is full".into());
        let full = Some(Err(Lost::NotSynced("it is full".into())));
        assert_eq!((syncing.outcome(4, 0), syncing.outcome(5, 0)), (Some(Ok(())), full));
        // Healed, and number 5 is given anew.
        syncing.get_over(Lost::NotSynced("it was full".into()));
        assert_eq!((syncing.outcome(4, 0), syncing.outcome(5, 1)), (Some(Ok(())), None));
        syncing.synced = 5;
        assert_eq!((syncing.outcome(5, 0).is_some_and(|o| o.is_err()), syncing.outcome(5, 1)), (true, Some(Ok(()))));
    }

    #[test]
    fn whom_a_sync_covers_is_called_and_one_of_the_others_to_sync() {
        let mut syncing = Syncing::at(4);
        let waits = |syncing: &mut Syncing, lsn| {
            let waiter = Arc::new(Waiter { thread: std::thread::current(), called: AtomicBool::new(false) });
            syncing.waiting.push(Waiting { lsn, failures: 0, waiter: Arc::clone(&waiter) });
            waiter
        };
        let [a, b, c, d] = [5, 7, 6, 8].map(|lsn| waits(&mut syncing, lsn));
        let are = |called: Vec<Arc<Waiter>>, expected: &[&Arc<Waiter>]| {
            assert_eq!(called.len(), expected.len());
            assert!(called.iter().zip(expected).all(|(called, expected)| Arc::ptr_eq(called, expected)));
        };
        syncing.synced = 6;
        are(syncing.take_called(), &[&b, &a, &c]);
        syncing.running = true;
        are(syncing.take_called(), &[]);
        syncing.failed = Some("it is full".into());
        are(syncing.take_called(), &[&d]);
    }
}
