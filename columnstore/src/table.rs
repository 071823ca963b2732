//! Tables as immutable snapshots: a query sees the segments that were committed when it started, whatever happens meanwhile.

use std::sync::{Arc, OnceLock};

use crate::definition::TableDef;
use crate::segment::Segment;
use crate::statistics::{TableStatistics, table_statistics};

/// A table at one moment.
pub struct Table {
    /// Its number, unique in the data directory and never used again.
    pub id: u64,
    /// Its definition; the number of partitions is filled in.
    pub def: Arc<TableDef>,
    /// Its partitions.
    pub partitions: Vec<Arc<Partition>>,
    statistics: OnceLock<TableStatistics>,
}

/// A part of a table's rows: those whose shard key hashes to it.
#[derive(Default)]
pub struct Partition {
    /// Its segments, in the order of their commit.
    pub segments: Vec<Arc<Segment>>,
}

impl Table {
    pub(crate) fn new(id: u64, def: Arc<TableDef>, partitions: Vec<Arc<Partition>>) -> Table {
        Table { id, def, partitions, statistics: OnceLock::new() }
    }

    /// A table of these partitions, each of which may belong to another data directory; `def` has as many.
    #[must_use]
    pub fn of_partitions(def: Arc<TableDef>, partitions: Vec<Arc<Partition>>) -> Table {
        Table::new(0, def, partitions)
    }

    /// This table with more segments, each in its partition.
    pub(crate) fn with_segments(&self, more: &[(usize, Arc<Segment>)]) -> Table {
        let partitions = self.partitions.iter().enumerate().map(|(number, partition)| {
            let mine = more.iter().filter(|(p, _)| *p == number).map(|(_, segment)| Arc::clone(segment));
            let segments: Vec<Arc<Segment>> = partition.segments.iter().cloned().chain(mine).collect();
            if segments.len() == partition.segments.len() { Arc::clone(partition) } else { Arc::new(Partition { segments }) }
        });
        Table::new(self.id, Arc::clone(&self.def), partitions.collect())
    }

    /// Its name, as declared.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.def.name
    }

    /// Every segment of every partition.
    pub fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.partitions.iter().flat_map(|p| &p.segments)
    }

    /// Rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.segments().map(|s| s.rows() as u64).sum()
    }

    /// Size of the segment files.
    #[must_use]
    pub fn bytes_on_disk(&self) -> u64 {
        self.segments().map(|s| s.bytes_on_disk()).sum()
    }

    /// Statistics for the optimizer, put together from the segments' footers on first use.
    #[must_use]
    pub fn statistics(&self) -> &TableStatistics {
        self.statistics.get_or_init(|| table_statistics(self))
    }
}

impl Partition {
    /// Rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.segments.iter().map(|s| s.rows() as u64).sum()
    }
}
