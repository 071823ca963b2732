//! Backups of the partitions whose masters are here.
//!
//! Commits to all of them wait from the beginning of a backup until [`Backup::freeze`] has taken their states: the coordinator calls
//! it when every leaf has begun, so that all states are of one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use stoa_backup::{BEGUN, Place};
use stoa_columnstore::{BackupSource, Database, Hold, TableDef, decode_definition};
use stoa_rpc::backup::{BackupPlace, BackupSetup, Copied, FrozenPartition, LeafBackup};
use stoa_rpc::leaf::REFERENCE;
use stoa_rpc::{Failure, FailureKind, Result};

use crate::databases::Parts;
use crate::storage_failure;

/// How long commits wait at most; then they go on, and the backup begins again.
const HOLD: Duration = Duration::from_secs(5);

/// A backup.
pub(crate) struct Backup {
    database: String,
    /// The definitions that its tables are to have.
    tables: Vec<TableDef>,
    state: Mutex<State>,
    cancelled: AtomicBool,
}

#[derive(Default)]
struct State {
    held: Vec<(u32, Hold)>,
    taken: BTreeMap<u32, BackupSource>,
}

impl Backup {
    /// Lets commits wait.
    pub fn begin(setup: &BackupSetup, parts: &Parts) -> Result<Backup> {
        let partition = |ordinal: &u32| {
            let database = if *ordinal == REFERENCE { parts.reference.clone() } else { parts.get(&setup.database, *ordinal)? };
            Ok((*ordinal, database))
        };
        let partitions: Vec<(u32, Arc<Database>)> = setup.ordinals.iter().map(partition).collect::<Result<_>>()?;
        let tables = setup.tables.iter().map(|table| decode_definition(table)).collect::<stoa_columnstore::Result<_>>();
        let tables = tables.map_err(|e| storage_failure(&e))?;
        // What waits for the disk now does not wait for it while others wait for this.
        partitions.iter().try_for_each(|(_, database)| database.sync()).map_err(|e| storage_failure(&e))?;
        let held = partitions.into_iter().map(|(ordinal, database)| (ordinal, database.hold(HOLD))).collect();
        let state = Mutex::new(State { held, taken: BTreeMap::new() });
        Ok(Backup { database: setup.database.clone(), tables, state, cancelled: AtomicBool::new(false) })
    }

    fn name(&self, ordinal: u32) -> String {
        match ordinal {
            REFERENCE => format!("the REFERENCE tables of '{}'", self.database),
            ordinal => format!("partition {ordinal} of '{}'", self.database),
        }
    }

    /// The definitions of a partition are those that the coordinator knows.
    fn check(&self, ordinal: u32, source: &BackupSource) -> Result<()> {
        for table in self.tables.iter().filter(|table| table.reference == (ordinal == REFERENCE)) {
            let own = TableDef { partitions: 1, ..table.clone() };
            if source.definition(&table.name).is_none_or(|found| *found != own) {
                let what = format!("table '{}' of {} is being made or changed", table.name, self.name(ordinal));
                return Err(Failure::new(FailureKind::Retryable, what));
            }
        }
        Ok(())
    }

    fn with<T>(&self, ordinal: u32, with: impl FnOnce(&BackupSource) -> T) -> Result<T> {
        let state = self.state.lock();
        let missing = || Failure::new(FailureKind::Fatal, format!("{} is not in this backup", self.name(ordinal)));
        state.taken.get(&ordinal).map(with).ok_or_else(missing)
    }
}

impl LeafBackup for Backup {
    fn freeze(&self) -> Result<Vec<FrozenPartition>> {
        let mut state = self.state.lock();
        let mut taken = BTreeMap::new();
        for (ordinal, hold) in &state.held {
            let source = hold.source().map_err(|e| match e {
                // The statement is begun again, as when a node fails.
                stoa_columnstore::Error::Conflict(what) => Failure::new(FailureKind::Retryable, what),
                other => storage_failure(&other),
            })?;
            self.check(*ordinal, &source)?;
            taken.insert(*ordinal, source);
        }
        *state = State { held: vec![], taken };
        let frozen = |(ordinal, source): (&u32, &BackupSource)| FrozenPartition {
            ordinal: *ordinal,
            lsn: source.lsn(),
            in_doubt: source.in_doubt(),
        };
        Ok(state.taken.iter().map(frozen).collect())
    }

    fn committed(&self, ordinal: u32, transactions: &[u64]) -> Result<Vec<u64>> {
        self.with(ordinal, |source| transactions.iter().copied().filter(|transaction| source.commits(*transaction)).collect())
    }

    fn copy(&self, ordinal: u32, to: &BackupPlace, anew: bool, committed: &[u64]) -> Result<Copied> {
        let committed: BTreeSet<u64> = committed.iter().copied().collect();
        let keep = |name: &str| self.tables.iter().any(|table| table.name.eq_ignore_ascii_case(name));
        let source = self.with(ordinal, |source| source.settled(&committed, &keep))?.map_err(|e| storage_failure(&e))?;
        let place = Place::open(&to.place, false).map_err(failure)?;
        if place.read(&to.name, BEGUN).map_err(failure)?.is_none() {
            let what = "this leaf does not see what the coordinator has written there";
            let way_out = "a folder for backups is one that all nodes share";
            return Err(Failure::new(FailureKind::User, format!("backup place '{}': {what}; {way_out}", to.place)));
        }
        let cancelled = || self.cancelled.load(Ordering::Relaxed);
        let copied = place.copy(&source, (&to.name, &file(ordinal)), anew, &cancelled).map_err(failure)?;
        Ok(Copied { files: copied.files, bytes: copied.bytes, kept: copied.kept })
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// The file of a partition in a backup.
fn file(ordinal: u32) -> String {
    if ordinal == REFERENCE { "reference".into() } else { ordinal.to_string() }
}

/// Makes an empty data directory what a partition was in a backup.
pub(crate) fn restore(database: &Arc<Database>, ordinal: u32, from: &BackupPlace) -> Result<()> {
    let place = Place::open(&from.place, false).map_err(failure)?;
    place.restore(database, (&from.name, &file(ordinal)), &|| false).map(drop).map_err(failure)
}

fn failure(error: stoa_backup::Error) -> Failure {
    match error {
        stoa_backup::Error::Place { .. } => Failure::new(FailureKind::User, error.to_string()),
        stoa_backup::Error::Storage(error) => storage_failure(&error),
        stoa_backup::Error::Cancelled => Failure::new(FailureKind::Cancelled, error.to_string()),
    }
}
