//! What a transaction does in bulk: it takes rows that were loaded into segments, and empties tables. And how its changes get into the
//! log: neither of the two can just be done again when others are about to commit, so they wait for them a while.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::commit::Head;
use super::replica::gone;
use super::transaction::Inserted;
use super::{Catalog, Transaction};
use crate::log::Change;
use crate::segment::Segment;
use crate::writer::{Load, TableWriter};
use crate::{Error, Result};

/// How long loaded rows wait for transactions that are in their way.
const LOAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long the emptying of a table does: less, so that of the two that wait for each other one goes on.
const TRUNCATE_PATIENCE: Duration = Duration::from_secs(1);
/// How long a decision waits for transactions that come before it: longer than somebody takes to settle what was left in doubt.
const DECIDES_WITHIN: Duration = Duration::from_secs(5);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(2);

/// How a transaction ends.
pub(super) enum Ending {
    Commit,
    /// Its changes last and are not made: [`Transaction::prepare`].
    Prepare {
        transaction: u64,
        decider: u32,
    },
    /// It commits here and everywhere: [`Transaction::commit_deciding`].
    Decide {
        transaction: u64,
        prepared: u64,
    },
}

impl Ending {
    /// What goes into the log for changes.
    fn records(&self, head: &Head, mut changes: Vec<Change>) -> Result<Vec<Change>> {
        match self {
            Ending::Prepare { transaction, decider } if !changes.is_empty() => {
                // What cannot be made now must not be promised.
                let mut made = Catalog::clone(&head.catalog);
                changes.iter().try_for_each(|change| made.apply(change))?;
                return Ok(vec![Change::Prepare { transaction: *transaction, decider: *decider, changes }]);
            }
            Ending::Decide { transaction, .. } => {
                if head.catalog.decided.contains_key(transaction) {
                    return Err(Error::Conflict(format!("transaction {transaction} was given up")));
                }
                changes.push(Change::Decide { transaction: *transaction, commit: true });
            }
            Ending::Commit | Ending::Prepare { .. } => {}
        }
        Ok(changes)
    }
}

impl Transaction {
    /// Adds the rows of a writer, which are on disk then and wait for the commit. The transaction does nothing else with the table.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it did already; those of [`TableWriter::prepare`]; [`Error::DuplicateKey`].
    pub fn attach(&mut self, writer: TableWriter) -> Result<()> {
        let table = writer.table();
        if self.changed.contains_key(&table.id) || self.loads.iter().any(|load| load.table() == table.id) {
            let what = format!("rows cannot be loaded into table '{}': the transaction changed it", table.name());
            return Err(Error::Invalid(what));
        }
        self.loads.push(writer.load()?);
        Ok(())
    }

    /// Removes all rows of a table, those too that others add until the commit.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`].
    pub fn truncate(&mut self, name: &str) -> Result<()> {
        let table = self.existing(name)?;
        let changed = self.change(&table, table.emptied());
        changed.truncated = true;
        changed.deleted.iter_mut().for_each(roaring::RoaringTreemap::clear);
        Ok(())
    }

    /// Ends: the moment from which it counts, or, if it is only prepared, the earliest from which it may; 0: it changed nothing then.
    pub(super) fn end(&self, ending: &Ending) -> Result<u64> {
        if matches!(ending, Ending::Prepare { .. }) {
            self.database.settling.wait(&self.changed.keys().copied().chain(self.loads.iter().map(Load::table)));
        }
        let (mut inserted, patience, began) = (self.inserted()?, self.patience(), Instant::now());
        loop {
            let rows: Vec<Inserted> = if patience.is_zero() { std::mem::take(&mut inserted) } else { inserted.clone() };
            match self.try_to_end(ending, rows) {
                Err(Error::Conflict(_)) if began.elapsed() < patience => std::thread::sleep(PAUSE),
                done => return done,
            }
        }
    }

    fn try_to_end(&self, ending: &Ending, rows: Vec<Inserted>) -> Result<u64> {
        let shown = &self.database.shown;
        let decided = match ending {
            Ending::Decide { transaction, prepared: prepared @ 1.. } => shown.decide(*transaction, *prepared, DECIDES_WITHIN)?,
            _ => 0,
        };
        let since = Cell::new(0);
        let plan = |head: &Head| {
            let changes = self.changes(head, rows)?;
            let removed: Vec<Arc<Segment>> = match ending {
                Ending::Prepare { .. } => vec![],
                _ => changes.iter().flat_map(|change| gone(&head.catalog, change)).collect(),
            };
            let records = ending.records(head, changes)?;
            if let (Ending::Prepare { transaction, .. }, [_, ..]) = (ending, &records[..]) {
                since.set(shown.prepare(*transaction));
            }
            Ok((records, removed))
        };
        let order = |head: &mut Head| match ending {
            Ending::Decide { transaction, .. } if decided > 0 => shown.order(*transaction, decided, &head.catalog),
            _ => {}
        };
        match (self.database.commit_then(plan, order), ending) {
            (Ok(removed), _) => removed.iter().for_each(|segment| segment.set_doomed(true)),
            (Err(error), Ending::Prepare { transaction, .. } | Ending::Decide { transaction, .. }) => {
                if since.get() + decided > 0 {
                    shown.give_up(*transaction);
                }
                return Err(error);
            }
            (Err(error), Ending::Commit) => return Err(error),
        }
        Ok(match ending {
            Ending::Prepare { .. } => since.get(),
            _ if decided > 0 => decided,
            _ => shown.moment(),
        })
    }

    fn patience(&self) -> Duration {
        if !self.loads.is_empty() {
            LOAD_PATIENCE
        } else if self.changed.values().any(|changed| changed.truncated) {
            TRUNCATE_PATIENCE
        } else {
            Duration::ZERO
        }
    }
}
