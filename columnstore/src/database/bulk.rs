//! What a transaction does in bulk: it takes rows that were loaded into segments, and empties tables. And how its changes get into the
//! log: neither of the two can just be done again when others are about to commit, so they wait for them a while.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Transaction;
use super::commit::Head;
use super::replica::gone;
use super::transaction::Inserted;
use crate::log::Change;
use crate::segment::Segment;
use crate::writer::TableWriter;
use crate::{Error, Result};

/// How long loaded rows wait for transactions that are in their way.
const LOAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long the emptying of a table does: less, so that of the two that wait for each other one goes on.
const TRUNCATE_PATIENCE: Duration = Duration::from_secs(1);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(2);

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

    /// Commits what `records` makes of the changes on the newest state; `then` as in [`super::Database::commit_then`].
    pub(super) fn commit_as<T>(
        &self,
        records: impl Fn(&Head, Vec<Change>) -> Result<(Vec<Change>, T)>,
        then: impl Fn(&mut Head),
    ) -> Result<T> {
        let (mut inserted, patience, began) = (self.inserted()?, self.patience(), Instant::now());
        loop {
            let rows: Vec<Inserted> = if patience.is_zero() { std::mem::take(&mut inserted) } else { inserted.clone() };
            let plan = |head: &Head| {
                let (changes, value) = records(head, self.changes(head, rows)?)?;
                let removed: Vec<Arc<Segment>> = changes.iter().flat_map(|change| gone(&head.catalog, change)).collect();
                Ok((changes, (removed, value)))
            };
            match self.database.commit_then(plan, &then) {
                Err(Error::Conflict(_)) if began.elapsed() < patience => std::thread::sleep(PAUSE),
                Err(error) => return Err(error),
                Ok((removed, value)) => {
                    removed.iter().for_each(|segment| segment.set_doomed(true));
                    return Ok(value);
                }
            }
        }
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
