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

/// A segment, and its partition.
type Placed = (usize, Arc<Segment>);

/// The rows of a writer that takes no more.
pub(crate) struct Load {
    checked: Checked,
    table: Arc<Table>,
    creates: bool,
    rows: u64,
    /// Each of its partition, in their order.
    segments: Vec<Placed>,
    /// The last to go.
    database: Arc<Database>,
}

impl Load {
    /// Looks at the unique keys of rows that are durable.
    pub fn of(writer: TableWriter) -> Result<Load> {
        // What comes first goes last.
        let TableWriter { database, table, creates, rows, prepared: segments, mut flushes, .. } = writer;
        let now = database.tables().into_iter().find(|now| now.id == table.id);
        let now = now.as_ref().unwrap_or(&table);
        let checked = unique::check(now, &altered(&segments, &table, now), flushes.take_origins())?;
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
            segments = altered(&self.segments, table, now);
            self.checked.again(now, &segments)?;
        }
        for part in segments.chunk_by(|a, b| a.0 == b.0) {
            let segments = part.iter().map(|(_, segment)| Entry::of(segment, Default::default())).collect();
            changes.push(Change::Attach { table: table.id, partition: part[0].0, segments });
        }
        Ok(changes)
    }
}

/// Segments of a table as it was, read as those from before it was altered.
fn altered<'a>(segments: &'a [Placed], before: &Table, now: &Table) -> Cow<'a, [Placed]> {
    if now.def == before.def {
        return Cow::Borrowed(segments);
    }
    let altered = |(partition, segment): &Placed| (*partition, Arc::new(segment.altered(&now.def)));
    Cow::Owned(segments.iter().map(altered).collect())
}
