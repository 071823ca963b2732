//! Commits that wait, so that several data directories are seen as of one moment.
//!
//! Whoever holds all of them at once and then takes the state of each has what a crash at that moment would have left: every transaction
//! is committed in all of them, or in doubt in some and decided in one, or not there ([`super::prepared`]). Chandy and Lamport,
//! "Distributed Snapshots: Determining Global States of Distributed Systems" (1985), record channels instead of stopping them; here the
//! stop is as long as asking all of them takes, and there is nothing in the channels that counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::commit::Head;
use super::replication::Role;
use super::{BackupSource, Database};
use crate::{Error, Result};

/// The holds of a data directory, by number: when each ends by itself.
#[derive(Default)]
pub(super) struct Holds {
    next: u64,
    until: BTreeMap<u64, Instant>,
}

/// Commits to a data directory wait until this is dropped, or its time is over. Readers do not.
pub struct Hold {
    database: Arc<Database>,
    number: u64,
    until: Instant,
}

impl Database {
    /// Lets commits wait, for so long at most. What was committed before may still be on its way to the disk.
    #[must_use]
    pub fn hold(self: &Arc<Self>, most: Duration) -> Hold {
        let until = Instant::now() + most;
        let mut head = self.head.lock();
        head.holds.next += 1;
        let number = head.holds.next;
        head.holds.until.insert(number, until);
        Hold { database: Arc::clone(self), number, until }
    }

    /// Waits until nobody holds commits.
    pub(super) fn wait_for_holds(&self, head: &mut MutexGuard<'_, Head>) {
        while let Some(until) = head.holds.until.values().max().copied().filter(|until| *until > Instant::now()) {
            self.released.wait_until(head, until);
        }
    }
}

impl Hold {
    /// The state that is held, which lasts when this returns.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the hold was over before; [`Error::NotMaster`]; [`Error::Io`] if the state cannot be made to last.
    pub fn source(&self) -> Result<BackupSource> {
        let database = &self.database;
        let (catalog, failures, waits) = {
            let head = database.head.lock();
            let waits = database.options.fsync || matches!(head.role, Role::Master(_));
            (Arc::clone(&head.catalog), database.syncing.lock().over.len(), waits)
        };
        // A commit after the hold would be in a state taken now.
        if Instant::now() >= self.until {
            let what = format!("commits to {} were held too long: they go on", database.root().display());
            return Err(Error::Conflict(what));
        }
        if waits {
            database.wait_on_disk(catalog.sequence, failures)?;
        }
        Ok(BackupSource { catalog })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.database.head.lock().holds.until.remove(&self.number);
        self.database.released.notify_all();
    }
}
