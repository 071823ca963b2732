//! How commits come to count: the log is synced, other copies have it, then everyone sees what it says.
//!
//! Whoever finds that nobody syncs the log does so for all whose records are in it by then (group commit; DeWitt et al., 1984). If those
//! who committed a moment ago are back soon, beside what a sync takes, he waits for them: the more a sync covers, the fewer there are. If
//! they need longer, they work while he syncs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::commit::Head;
use super::replication::Role;
use super::waiters::{Seen, Waiters};
use super::{Catalog, Database};
use crate::definition::Durability;
use crate::log::LogWriter;
use crate::{Error, Result};

/// How long a sync waits for others at most.
const GATHERS: Duration = Duration::from_micros(500);

/// Where the log ends at some moment.
struct LogEnd {
    log: Arc<LogWriter>,
    role: Role,
    catalog: Arc<Catalog>,
}

impl LogEnd {
    /// The end now.
    fn of(head: &Head) -> LogEnd {
        LogEnd { log: Arc::clone(&head.log), role: head.role.clone(), catalog: Arc::clone(&head.catalog) }
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
    /// Who waits for the sync that runs, and the last LSN that it covers.
    covered: Group,
    through: u64,
    /// Who waits for the next one.
    next: Group,
    /// One of them syncs when others have not come for a while.
    gathering: bool,
    /// How many committed when the last sync ended: those that it covered, and those that came meanwhile.
    committers: usize,
    /// How long the last sync took.
    took: Duration,
    back: Back,
}

/// Those who wait for a sync.
#[derive(Default)]
struct Group {
    waiters: Arc<Waiters>,
    count: usize,
}

impl Group {
    /// Whether somebody who has waited did so among these.
    fn has(&self, waited: Option<&Wait>) -> bool {
        waited.is_some_and(|wait| Arc::ptr_eq(&wait.waiters, &self.waiters))
    }
}

/// How soon those who commit are back when they may go on.
struct Back {
    /// When they could, how many they were, and how many of them are not back.
    since: Instant,
    of: u32,
    missing: u32,
    /// The time that it took the last time, for each of them: they share the processors.
    each: Duration,
}

impl Back {
    /// So many go on now. If some of those before are not back, that takes as long as until now or longer.
    fn expect(&mut self, count: usize) {
        let now = Instant::now();
        if self.missing > 0 {
            self.each = self.each.max(now.saturating_duration_since(self.since) / self.of);
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
        (self.since, self.of, self.missing) = (now, count, count);
    }

    /// Somebody commits.
    fn comes(&mut self) {
        if self.missing == 1 {
            self.each = self.since.elapsed() / self.of;
        }
        self.missing = self.missing.saturating_sub(1);
    }

    /// What so many would take.
    fn takes(&self, count: usize) -> Duration {
        self.each.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
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
            covered: Group::default(),
            through: lsn,
            next: Group::default(),
            gathering: false,
            committers: 0,
            took: Duration::ZERO,
            back: Back { since: Instant::now(), of: 1, missing: 0, each: Duration::ZERO },
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

    /// Whether the next sync waits for more of those who commit: at the end of the last one there were more, and all of them are back in
    /// less time than a sync takes. One for all of them takes as long as one for half of them, but those work while it runs.
    fn gathers(&self) -> bool {
        self.next.count + 1 < self.committers && self.back.takes(self.committers) < self.took
    }

    /// Somebody syncs from now on, up to a record, for all who wait until now.
    fn begin(&mut self, through: u64) {
        (self.running, self.gathering, self.through) = (true, false, through);
        self.covered = std::mem::take(&mut self.next);
    }

    /// How somebody waits for a record, who may have waited already; `None`: he is to sync, if he still finds that nobody does.
    fn join(&mut self, lsn: u64, waited: Option<&Wait>) -> Option<Wait> {
        let (group, most) = if self.running {
            (if lsn <= self.through { &mut self.covered } else { &mut self.next }, None)
        } else {
            // One of those who wait for others has a limit. If it is he who goes on, for whatever reason, nobody else would end it.
            if waited.is_some_and(|wait| wait.most.is_some()) || !self.gathers() {
                return None;
            }
            let first = !std::mem::replace(&mut self.gathering, true);
            (&mut self.next, first.then(|| (self.took / 2).min(GATHERS)))
        };
        group.count += usize::from(!group.has(waited));
        Some(Wait { waiters: Arc::clone(&group.waiters), seen: group.waiters.seen(), most })
    }

    /// A sync up to a record has ended: those who may go on; and one of the others is to sync.
    fn end(&mut self, lsn: u64, to_disk: bool, took: Duration, result: std::result::Result<(), Lost>) -> Arc<Waiters> {
        (self.running, self.took) = (false, took);
        match result {
            Ok(()) => {
                self.synced = self.synced.max(lsn);
                if to_disk {
                    self.on_disk = self.on_disk.max(lsn);
                }
            }
            Err(Lost::NotSynced(why)) => self.failed = Some(why),
            Err(Lost::NotMaster(why)) => self.fenced = Some(why),
        }
        if self.lost().is_some() {
            self.call_waiting();
            return Arc::default();
        }
        let done = std::mem::take(&mut self.covered);
        self.committers = 1 + done.count + self.next.count;
        self.back.expect(1 + done.count);
        self.gathering = false;
        if self.next.count > 0 {
            self.next.waiters.call_one();
        }
        done.waiters
    }

    /// All who wait look again at what has been set. What is synced from now on is not what they wait for: numbers may be given anew.
    fn call_waiting(&mut self) {
        self.gathering = false;
        for group in [&mut self.covered, &mut self.next] {
            std::mem::take(group).waiters.call_all();
        }
    }
}

/// Somebody waits.
struct Wait {
    waiters: Arc<Waiters>,
    seen: Seen,
    /// For so long at most: he is to sync then.
    most: Option<Duration>,
}

impl Database {
    pub(super) fn show(&self, catalog: &Arc<Catalog>) {
        self.shown.show(catalog);
    }

    /// Waits until a record is on disk that was written after so many failures, or syncs it for all that wait.
    pub(super) fn wait_synced(&self, lsn: u64, failures: usize) -> Result<()> {
        let (mut came, mut waited) = (false, None);
        loop {
            let wait = {
                let mut syncing = self.syncing.lock();
                if !std::mem::replace(&mut came, true) {
                    syncing.back.comes();
                }
                if let Some(outcome) = syncing.outcome(lsn, failures) {
                    return outcome.map_err(|lost| self.lost(lost));
                }
                syncing.join(lsn, waited.as_ref())
            };
            if let Some(wait) = wait {
                if wait.waiters.wait(wait.seen, wait.most) {
                    return Ok(());
                }
                waited = Some(wait);
                continue;
            }
            let (end, to_disk) = {
                let head = self.head.lock();
                let mut syncing = self.syncing.lock();
                if syncing.running || syncing.outcome(lsn, failures).is_some() {
                    continue;
                }
                syncing.next.count -= usize::from(syncing.next.has(waited.as_ref()));
                syncing.begin(head.catalog.sequence);
                (LogEnd::of(&head), self.must_sync(&head, syncing.on_disk))
            };
            self.finish(end, to_disk);
        }
    }

    /// Makes the log up to its end count; somebody has said that he does.
    fn finish(&self, end: LogEnd, to_disk: bool) {
        let began = Instant::now();
        let to_disk = to_disk || !self.options.fsync;
        let result = self.make_last(&end, to_disk);
        if result.is_ok() {
            self.show(&end.catalog);
        }
        let lsn = end.catalog.sequence;
        // The log gives its room back when nobody has it any more: not after others were told that it is quiet.
        drop(end);
        let mut syncing = self.syncing.lock();
        let done = syncing.end(lsn, to_disk, began.elapsed(), result);
        self.synced.notify_all();
        drop(syncing);
        done.finish();
    }

    /// Lets those go on who wait for what has just been set.
    pub(super) fn call_waiting(&self, mut syncing: MutexGuard<'_, Syncing>) {
        syncing.call_waiting();
        self.synced.notify_all();
    }

    /// Writes what was committed and waits until it is on disk, if it is to be, and on every copy that must have it.
    fn make_last(&self, LogEnd { log, role, catalog }: &LogEnd, to_disk: bool) -> std::result::Result<(), Lost> {
        let not_synced = |e: Error| Lost::NotSynced(e.to_string());
        log.write().map_err(not_synced)?;
        if to_disk && self.options.fsync {
            log.sync().map_err(not_synced)?;
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
                let head = self.head.lock();
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
                syncing.begin(head.catalog.sequence);
                drop(syncing);
                LogEnd::of(&head)
            };
            self.finish(end, true);
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
        syncing.begin(head.catalog.sequence);
        drop(syncing);
        self.finish(LogEnd::of(head), true);
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

    fn waits(syncing: &mut Syncing, lsn: u64, waited: Option<&Wait>) -> Wait {
        syncing.join(lsn, waited).expect("somebody syncs, or is waited for")
    }

    const SOON: Option<Duration> = Some(Duration::from_millis(1));

    #[test]
    fn who_is_covered_goes_on_and_one_of_the_others_syncs() {
        let mut syncing = Syncing::at(4);
        assert!(syncing.join(5, None).is_none());
        syncing.begin(6);
        let (covered, other) = (waits(&mut syncing, 6, None), waits(&mut syncing, 7, None));
        syncing.end(6, true, Duration::ZERO, Ok(())).finish();
        assert!(covered.waiters.wait(covered.seen, SOON) && !other.waiters.wait(other.seen, None));
        assert!(syncing.join(7, Some(&other)).is_none());
        assert_eq!((syncing.outcome(6, 0), syncing.outcome(7, 0), syncing.committers), (Some(Ok(())), None, 3));
    }

    #[test]
    fn others_are_waited_for_only_where_they_are_back_soon_and_by_one_with_a_limit() {
        let mut syncing = Syncing::at(4);
        (syncing.took, syncing.committers, syncing.back.each) = (Duration::from_millis(10), 3, Duration::from_millis(5));
        assert!(syncing.join(5, None).is_none(), "they take longer than a sync");
        syncing.back.each = Duration::from_millis(1);
        let (first, second) = (waits(&mut syncing, 5, None), waits(&mut syncing, 6, None));
        assert_eq!((first.most, second.most, syncing.next.count), (Some(GATHERS), None, 2));
        assert!(syncing.join(7, None).is_none(), "all are there");
        // Whatever wakes the one with the limit, it syncs.
        syncing.next.count = 0;
        assert!(syncing.join(5, Some(&first)).is_none());
        assert!(waits(&mut syncing, 6, Some(&second)).most.is_none());
    }

    #[test]
    fn who_waits_for_a_record_that_was_lost_is_not_told_that_the_next_one_of_its_number_is_there() {
        let mut syncing = Syncing::at(10);
        syncing.begin(10);
        let lost = waits(&mut syncing, 11, None);
        syncing.end(10, true, Duration::ZERO, Err(Lost::NotSynced("it is full".into()))).finish();
        syncing.get_over(Lost::NotSynced("it was full".into()));
        syncing.begin(11);
        syncing.end(11, true, Duration::ZERO, Ok(())).finish();
        assert!(!lost.waiters.wait(lost.seen, None));
        assert!(syncing.outcome(11, 0).is_some_and(|outcome| outcome.is_err()));
    }
}
