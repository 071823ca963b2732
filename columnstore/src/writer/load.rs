//! Loaded rows that are durable and wait for their commit.

use std::borrow::Cow;
use std::sync::Arc;

use super::TableWriter;
use super::unique::{self, Checked};
use crate::database::{Catalog, Database};
use crate::log::{Change, Entry};
use crate::segment::Segment;
use crate::table::Table;
use crate::{Error, Result};

/// The rows of a writer that takes no more.
pub(crate) struct Load {
    checked: Checked,
    table: Arc<Table>,
    creates: bool,
    rows: u64,
    /// Each of its partition, in their order.
    segments: Vec<(usize, Arc<Segment>)>,
    /// The last to go.
    database: Arc<Database>,
}

impl Load {
    /// Looks at the unique keys of rows that are durable.
    pub fn of(writer: TableWriter) -> Result<Load> {
        // What comes first goes last.
        let TableWriter { database, table, creates, rows, prepared: segments, .. } = writer;
        let checked = unique::check(&table, &database.table(table.name()), &segments)?;
        Ok(Load { checked, table, creates, rows, segments, database })
    }

    /// The number of the table.
    pub fn table(&self) -> u64 {
        self.table.id
    }

    /// Makes the rows visible; how many they are.
    pub fn commit(self) -> Result<u64> {
        self.database.commit(|head| Ok((self.changes(&head.catalog)?, ())))?;
        Ok(self.rows)
    }

    /// The changes that add the rows to the newest state.
    pub fn changes(&self, newest: &Catalog) -> Result<Vec<Change>> {
        let (table, mut changes, mut segments) = (&self.table, Vec::new(), Cow::Borrowed(&self.segments[..]));
        if self.creates {
            newest.check_free(table.name())?;
            changes.push(Change::CreateTable { id: table.id, def: Arc::clone(&table.def) });
        } else {
            let now = newest.table_of(table.id).ok_or_else(|| Error::NoSuchTable(table.name().into()))?;
            // Leaves may have joined meanwhile, which the load does not know.
            if now.def.reference && now.def.version() != table.def.version() {
                return Err(Error::Altered(table.name().into()));
            }
            if now.def != table.def {
                // Its segments are read as those from before it was altered.
                let altered = |(partition, segment): &(usize, Arc<Segment>)| (*partition, Arc::new(segment.altered(&now.def)));
                segments = Cow::Owned(segments.iter().map(altered).collect());
            }
            self.checked.again(now, &segments)?;
        }
        for part in segments.chunk_by(|a, b| a.0 == b.0) {
            let segments = part.iter().map(|(_, segment)| Entry::of(segment, Default::default())).collect();
            changes.push(Change::Attach { table: table.id, partition: part[0].0, segments });
        }
        Ok(changes)
    }
}
