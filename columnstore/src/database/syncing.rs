//! How commits come to count: the log is synced, other copies have it, then everyone sees what it says.
//!
//! Whoever finds that nobody syncs the log does so for all whose records are in it by then (group commit; DeWitt et al., 1984). If many
//! committed a moment ago, he waits a little for them to be back: the more a sync covers, the fewer there are.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::commit::Head;
use super::replication::Role;
use super::{Catalog, Database};
use crate::definition::Durability;
use crate::disk::DiskFile;
use crate::{Error, Result};

/// How long a sync waits for others at most.
const GATHERS: Duration = Duration::from_micros(500);

/// Where the log ends at some moment.
struct LogEnd {
    /// Or why it could not be written.
    file: std::result::Result<(PathBuf, Arc<dyn DiskFile>), Lost>,
    role: Role,
    catalog: Arc<Catalog>,
}

impl LogEnd {
    /// The end now, with all that was committed written.
    fn of(head: &mut Head) -> LogEnd {
        let file = head.log.write().map(|()| head.log.file()).map_err(|e| Lost::NotSynced(e.to_string()));
        LogEnd { file, role: head.role.clone(), catalog: Arc::clone(&head.catalog) }
    }
}

/// How far the log is on disk.
pub(crate) struct Syncing {
    /// The last LSN that counts: on disk, unless it need not be ([`Durability::Async`]), and on every copy that must have it.
    pub(super) synced: u64,
    /// The last LSN on disk.
    pub(super) on_disk: u64,
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
    /// One of them syncs when others have not come for a while.
    gathering: bool,
    /// How many committed when the last sync ended: those that it covered, and those that came meanwhile.
    committers: usize,
    /// How long the last sync took.
    took: Duration,
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
    /// Whom it calls when it wakes.
    others: Mutex<Vec<Arc<Waiter>>>,
}

impl Waiter {
    /// That of this thread.
    fn of_this_thread() -> Arc<Waiter> {
        thread_local! {
            static WAITER: Arc<Waiter> = Arc::new(Waiter::of(std::thread::current()));
        }
        WAITER.with(Arc::clone)
    }

    fn of(thread: Thread) -> Waiter {
        Waiter { thread, called: AtomicBool::new(false), others: Mutex::default() }
    }

    fn sleep(&self) {
        while !self.called.swap(false, Ordering::Acquire) {
            std::thread::park();
        }
        self.call_others();
    }

    /// Sleeps for so long at most; whether it was called.
    fn sleep_for(&self, most: Duration) -> bool {
        let until = Instant::now() + most;
        while !self.called.swap(false, Ordering::Acquire) {
            match until.checked_duration_since(Instant::now()) {
                Some(left) => std::thread::park_timeout(left),
                None => return false,
            }
        }
        self.call_others();
        true
    }

    fn call_others(&self) {
        let others = std::mem::take(&mut *self.others.lock());
        Waiter::call_all(&others);
    }

    /// Calls some, the first one first. Each calls half of those that are left: who syncs the log has better things to do.
    fn call_all(called: &[Arc<Waiter>]) {
        let mut left = called;
        while let [first, rest @ ..] = left {
            let (theirs, mine) = rest.split_at(rest.len() / 2);
            first.others.lock().extend_from_slice(theirs);
            first.called.store(true, Ordering::Release);
            first.thread.unpark();
            left = mine;
        }
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
        Syncing {
            synced: lsn,
            on_disk: lsn,
            running: false,
            failed: None,
            fenced: None,
            over: Vec::new(),
            waiting: Vec::new(),
            gathering: false,
            committers: 0,
            took: Duration::ZERO,
        }
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
    pub(super) fn lost(&self) -> Option<Lost> {
        let fenced = self.fenced.clone().map(Lost::NotMaster);
        fenced.or_else(|| self.failed.clone().map(Lost::NotSynced))
    }

    /// A failure is over: what is not acknowledged by now ends so.
    pub(super) fn get_over(&mut self, lost: Lost) {
        self.over.push((self.synced, lost));
        (self.failed, self.fenced) = (None, None);
    }

    /// Whether the next sync waits for more of those who commit: at the end of the last one there were more. They are about to be back,
    /// and a sync for all of them takes as long as one for some.
    fn gathers(&self) -> bool {
        self.waiting.len() + 1 < self.committers
    }

    /// Those who need not wait any more, and before them one of those who have to: he is to sync, if nobody does.
    fn take_called(&mut self) -> Vec<Arc<Waiter>> {
        let waiting = std::mem::take(&mut self.waiting);
        let (done, mut still): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|waiting| self.outcome(waiting.lsn, waiting.failures).is_some());
        (self.committers, self.gathering) = (1 + done.len() + still.len(), false);
        let next = (!self.running && !still.is_empty()).then(|| still.remove(0));
        self.waiting = still;
        next.into_iter().chain(done).map(|waiting| waiting.waiter).collect()
    }
}

impl Database {
    pub(super) fn show(&self, catalog: &Arc<Catalog>) {
        self.shown.show(catalog);
    }

    /// Waits until a record is on disk that was written after so many failures, or syncs it for all that wait.
    pub(super) fn wait_synced(&self, lsn: u64, failures: usize) -> Result<()> {
        let mut gathered = false;
        loop {
            {
                let syncing = self.syncing.lock();
                if let Some(outcome) = syncing.outcome(lsn, failures) {
                    return outcome.map_err(|lost| self.lost(lost));
                }
                if syncing.running || !gathered && syncing.gathers() {
                    gathered = Database::wait_for_sync(syncing, &self.syncing, lsn, failures);
                    continue;
                }
            }
            let (end, to_disk) = {
                let mut head = self.head.lock();
                let mut syncing = self.syncing.lock();
                if syncing.running || syncing.outcome(lsn, failures).is_some() {
                    continue;
                }
                (syncing.running, syncing.gathering) = (true, false);
                let to_disk = self.must_sync(&head, syncing.on_disk);
                drop(syncing);
                (LogEnd::of(&mut head), to_disk)
            };
            self.finish(&end, to_disk);
        }
    }

    /// Sleeps until somebody has synced. While nobody does, the first one of those who wait for others sleeps only for so long, and is
    /// to sync then: whether that is so.
    fn wait_for_sync(mut syncing: MutexGuard<'_, Syncing>, all: &Mutex<Syncing>, lsn: u64, failures: usize) -> bool {
        let waiter = Waiter::of_this_thread();
        let first = !syncing.running && !std::mem::replace(&mut syncing.gathering, true);
        let most = (syncing.took / 2).min(GATHERS);
        syncing.waiting.push(Waiting { lsn, failures, waiter: Arc::clone(&waiter) });
        drop(syncing);
        if !first {
            waiter.sleep();
            return false;
        }
        if waiter.sleep_for(most) {
            return false;
        }
        let mut syncing = all.lock();
        let before = syncing.waiting.len();
        syncing.waiting.retain(|waiting| !Arc::ptr_eq(&waiting.waiter, &waiter));
        let still = syncing.waiting.len() < before;
        drop(syncing);
        if !still {
            // Somebody has called just now.
            waiter.sleep();
        }
        still
    }

    /// Makes the log up to its end count; somebody has said that he does.
    fn finish(&self, end: &LogEnd, to_disk: bool) {
        let began = Instant::now();
        let to_disk = to_disk || !self.options.fsync;
        let result = self.make_last(end, to_disk);
        if result.is_ok() {
            self.show(&end.catalog);
        }
        self.end_sync(end.catalog.sequence, to_disk, began.elapsed(), result);
    }

    /// A sync up to a record has ended: those whom it concerns go on.
    fn end_sync(&self, lsn: u64, to_disk: bool, took: Duration, result: std::result::Result<(), Lost>) {
        let mut syncing = self.syncing.lock();
        (syncing.running, syncing.took) = (false, took);
        match result {
            Ok(()) => {
                syncing.synced = syncing.synced.max(lsn);
                if to_disk {
                    syncing.on_disk = syncing.on_disk.max(lsn);
                }
            }
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
        Waiter::call_all(&called);
    }

    /// Waits until the log is on disk, if it is to be, and up to its end on every copy that must have it.
    fn make_last(&self, LogEnd { file, role, catalog }: &LogEnd, to_disk: bool) -> std::result::Result<(), Lost> {
        let (path, file) = file.as_ref().map_err(Clone::clone)?;
        if to_disk && self.options.fsync {
            file.sync().map_err(|e| Lost::NotSynced(format!("{}: {e}", path.display())))?;
        }
        match role {
            Role::Master(replication) => {
                replication.wait(catalog.sequence).map_err(Lost::NotMaster)?;
                self.trim_tail(&**replication);
                Ok(())
            }
            Role::Alone | Role::Replica => Ok(()),
        }
    }

    /// Whether what is in the log counts only once it is on disk, which it is up to a record.
    pub(super) fn must_sync(&self, head: &Head, on_disk: u64) -> bool {
        self.options.fsync && (head.must_last > on_disk || self.durability() == Durability::Sync)
    }

    /// Makes all that was committed last.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::NotMaster`].
    pub fn sync(&self) -> Result<()> {
        let (newest, failures) = {
            let head = self.head.lock();
            (head.catalog.sequence, self.syncing.lock().over.len())
        };
        if self.options.fsync { self.wait_on_disk(newest, failures) } else { Ok(()) }
    }

    /// Waits until a record is on disk that was written after so many failures.
    pub(super) fn wait_on_disk(&self, lsn: u64, failures: usize) -> Result<()> {
        loop {
            let end = {
                let mut head = self.head.lock();
                let mut syncing = self.syncing.lock();
                match syncing.outcome(lsn, failures) {
                    Some(Err(lost)) => return Err(self.lost(lost)),
                    Some(Ok(())) if syncing.over.len() > failures || syncing.on_disk >= lsn => return Ok(()),
                    _ => {}
                }
                if syncing.running {
                    drop(head);
                    self.synced.wait(&mut syncing);
                    continue;
                }
                if let Some(lost) = syncing.lost() {
                    return Err(self.lost(lost));
                }
                syncing.running = true;
                drop(syncing);
                LogEnd::of(&mut head)
            };
            self.finish(&end, true);
        }
    }

    /// Whether something is committed that is not on disk.
    pub(super) fn is_unsynced(&self) -> bool {
        let newest = self.head.lock().catalog.sequence;
        self.options.fsync && self.syncing.lock().on_disk < newest
    }

    pub(super) fn lost(&self, lost: Lost) -> Error {
        match lost {
            Lost::NotSynced(why) => {
                let source =
                    std::io::Error::other(format!("the log could not be made to last, so nothing was committed ({why})"));
                Error::Io { path: self.files.root.clone(), source }
            }
            Lost::NotMaster(why) => Error::NotMaster(why),
        }
    }

    /// Waits for whoever syncs, and then syncs what is written, if that still means something.
    pub(super) fn quiet(&self, head: &mut Head) {
        let mut syncing = self.syncing.lock();
        while syncing.running {
            self.synced.wait(&mut syncing);
        }
        if syncing.lost().is_some() {
            return;
        }
        syncing.running = true;
        drop(syncing);
        self.finish(&LogEnd::of(head), true);
    }

    /// What is written counts, though it may not be on disk; nobody waits for it.
    pub(super) fn count(&self, head: &Head) {
        self.show(&head.catalog);
        let mut syncing = self.syncing.lock();
        syncing.synced = syncing.synced.max(head.catalog.sequence);
    }
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
            let waiter = Arc::new(Waiter::of(std::thread::current()));
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
