//! Tables as immutable snapshots: a query sees the rows that were committed when it started, whatever happens meanwhile.

use std::sync::{Arc, OnceLock};

use arrow::array::ArrayRef;
use roaring::RoaringBitmap;

use crate::address::Place;
use crate::definition::TableDef;
use crate::memory::MemoryRows;
use crate::segment::Segment;
use crate::statistics::{TableStatistics, table_statistics};
use crate::{Error, Result};

/// Rows of a transaction that is not committed have numbers from here on.
pub(crate) const OWN_ROWS: u64 = 1 << 48;

/// A table at one moment.
pub struct Table {
    /// Its number, unique in the data directory and never used again.
    pub id: u64,
    /// Its definition; the number of partitions is filled in.
    pub def: Arc<TableDef>,
    /// Its partitions.
    pub partitions: Vec<Arc<Partition>>,
    /// The ordinal in its database of each partition, where that is not its place here.
    ordinals: Option<Vec<u32>>,
    statistics: OnceLock<TableStatistics>,
}

/// A part of a table's rows: those whose shard key hashes to it.
#[derive(Clone)]
pub struct Partition {
    /// Its segments, in the order of their commit.
    pub segments: Vec<Stored>,
    /// Rows that are in no segment yet.
    pub(crate) memory: MemoryRows,
    /// Rows of the transaction that reads.
    pub(crate) own: MemoryRows,
}

/// A segment, and which of its rows are not there any more.
#[derive(Clone)]
pub struct Stored {
    /// The segment.
    pub segment: Arc<Segment>,
    /// Deleted rows.
    pub deleted: Option<Arc<RoaringBitmap>>,
}

/// A segment as a scan reads it.
pub struct Scanned {
    /// The segment: stored, or rows in memory.
    pub segment: Arc<Segment>,
    /// Deleted rows.
    pub deleted: Option<Arc<RoaringBitmap>>,
    /// The address of its first row; those of the others follow.
    pub address: u64,
}

impl Stored {
    pub(crate) fn new(segment: Arc<Segment>, deleted: RoaringBitmap) -> Stored {
        Stored { segment, deleted: (!deleted.is_empty()).then(|| Arc::new(deleted)) }
    }

    pub(crate) fn is_deleted(&self, row: u32) -> bool {
        self.deleted.as_ref().is_some_and(|deleted| deleted.contains(row))
    }

    /// Rows that are deleted.
    #[must_use]
    pub fn deleted_rows(&self) -> u64 {
        self.deleted.as_ref().map_or(0, |deleted| deleted.len())
    }

    /// Rows that are not deleted.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.segment.rows() as u64 - self.deleted_rows()
    }
}

impl Default for Partition {
    fn default() -> Partition {
        Partition { segments: vec![], memory: MemoryRows::default(), own: MemoryRows::starting_at(OWN_ROWS) }
    }
}

impl Table {
    pub(crate) fn new(id: u64, def: Arc<TableDef>, partitions: Vec<Arc<Partition>>) -> Table {
        Table { id, def, partitions, ordinals: None, statistics: OnceLock::new() }
    }

    /// A table of these partitions, each of which may belong to another data directory; `def` has as many, and `ordinals` says which
    /// partition of the database each is.
    #[must_use]
    pub fn of_partitions(def: Arc<TableDef>, partitions: Vec<Arc<Partition>>, ordinals: Vec<u32>) -> Table {
        Table { ordinals: Some(ordinals), ..Table::new(0, def, partitions) }
    }

    /// A table of rows in memory, in one partition.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the columns are not those of the definition.
    pub fn of_rows(def: Arc<TableDef>, columns: Vec<ArrayRef>) -> Result<Table> {
        if !columns.iter().map(|c| c.data_type()).eq(def.columns.iter().map(|c| &c.ty)) {
            return Err(Error::Invalid(format!("rows of table '{}' are of other types", def.name)));
        }
        let mut partition = Partition::default();
        partition.memory.push(columns.into())?;
        Ok(Table::new(0, def, vec![Arc::new(partition)]))
    }

    /// The same once more, to be changed.
    pub(crate) fn clone_of(table: &Table) -> Table {
        let partitions = table.partitions.clone();
        Table { ordinals: table.ordinals.clone(), ..Table::new(table.id, Arc::clone(&table.def), partitions) }
    }

    /// This table with a partition changed.
    pub(crate) fn with_partition(&self, number: usize, change: impl FnOnce(&mut Partition) -> Result<()>) -> Result<Table> {
        let mut partitions = self.partitions.clone();
        let Some(partition) = partitions.get_mut(number) else {
            return Err(Error::Invalid(format!("table '{}' has no partition {number}", self.name())));
        };
        change(Arc::make_mut(partition))?;
        Ok(Table { ordinals: self.ordinals.clone(), ..Table::new(self.id, Arc::clone(&self.def), partitions) })
    }

    /// This table without rows; those that come get numbers that no others had.
    pub(crate) fn emptied(&self) -> Table {
        let emptied = |part: &Arc<Partition>| {
            Arc::new(Partition { memory: MemoryRows::starting_at(part.memory.next()), ..Partition::default() })
        };
        let partitions = self.partitions.iter().map(emptied).collect();
        Table { ordinals: self.ordinals.clone(), ..Table::new(self.id, Arc::clone(&self.def), partitions) }
    }

    /// This table with another definition, an altered one: no segment is written.
    pub(crate) fn with_definition(&self, def: &Arc<TableDef>) -> Result<Table> {
        if self.def.partitions != def.partitions {
            return Err(Error::Invalid(format!("table '{}' cannot change its number of partitions", self.name())));
        }
        let stored = self.def.column_numbers();
        let altered = |part: &Arc<Partition>| {
            let segment =
                |stored: &Stored| Stored { segment: Arc::new(stored.segment.altered(def)), deleted: stored.deleted.clone() };
            let rows = |memory: &MemoryRows| memory.altered(|columns| def.columns_of(&stored, columns));
            let segments = part.segments.iter().map(segment).collect();
            Ok(Arc::new(Partition { segments, memory: rows(&part.memory)?, own: rows(&part.own)? }))
        };
        let partitions = self.partitions.iter().map(altered).collect::<Result<_>>()?;
        Ok(Table { ordinals: self.ordinals.clone(), ..Table::new(self.id, Arc::clone(def), partitions) })
    }

    /// Its name, as declared.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.def.name
    }

    /// The ordinal in its database of a partition.
    pub(crate) fn ordinal(&self, partition: usize) -> u32 {
        self.ordinals.as_ref().map_or(partition as u32, |ordinals| ordinals[partition])
    }

    /// The partition with this ordinal.
    pub(crate) fn partition_of(&self, ordinal: u32) -> Option<usize> {
        match &self.ordinals {
            Some(ordinals) => ordinals.iter().position(|o| *o == ordinal),
            None => Some(ordinal as usize).filter(|partition| *partition < self.partitions.len()),
        }
    }

    /// The partition with the fewest rows.
    pub(crate) fn smallest_partition(&self) -> usize {
        (0..self.partitions.len()).min_by_key(|p| self.partitions[*p].rows()).unwrap_or(0)
    }

    /// Every segment of every partition.
    pub fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.partitions.iter().flat_map(|p| &p.segments).map(|stored| &stored.segment)
    }

    /// What a scan of a partition reads: its segments, then its rows in memory.
    ///
    /// # Errors
    /// If rows in memory cannot be encoded.
    pub fn scanned(&self, partition: usize) -> Result<Vec<Scanned>> {
        let Some(part) = self.partitions.get(partition) else { return Ok(vec![]) };
        let ordinal = self.ordinal(partition);
        let stored = |stored: &Stored| Scanned {
            segment: Arc::clone(&stored.segment),
            deleted: stored.deleted.clone(),
            address: Place::Segment { id: stored.segment.id(), row: 0 }.address(ordinal),
        };
        let mut all: Vec<Scanned> = part.segments.iter().map(stored).collect();
        for memory in [&part.memory, &part.own] {
            for run in memory.runs() {
                let deleted = memory.deleted_of(run);
                let segment = Arc::clone(run.segment(&self.def)?);
                all.push(Scanned { segment, deleted, address: Place::Memory(run.first).address(ordinal) });
            }
        }
        Ok(all)
    }

    /// Rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.partitions.iter().map(|p| p.rows()).sum()
    }

    /// Rows that are in memory only.
    #[must_use]
    pub fn rows_in_memory(&self) -> u64 {
        self.partitions.iter().map(|p| p.memory.rows() + p.own.rows()).sum()
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
        self.segments.iter().map(Stored::rows).sum::<u64>() + self.memory.rows() + self.own.rows()
    }

    /// Whether a row is here and not deleted.
    pub(crate) fn is_live(&self, place: Place) -> bool {
        match place {
            Place::Memory(number) if number >= OWN_ROWS => self.own.is_live(number),
            Place::Memory(number) => self.memory.is_live(number),
            Place::Segment { id, row } => {
                let stored = self.segments.iter().find(|s| s.segment.id() == id);
                stored.is_some_and(|s| (row as usize) < s.segment.rows() && !s.is_deleted(row))
            }
        }
    }

    /// Deletes rows that are here.
    pub(crate) fn delete(&mut self, places: &[Place]) -> Result<()> {
        let mut segments: std::collections::BTreeMap<u64, RoaringBitmap> = std::collections::BTreeMap::new();
        let mut memory = Vec::new();
        for place in places {
            match *place {
                Place::Memory(number) => memory.push(number),
                Place::Segment { id, row } => drop(segments.entry(id).or_default().insert(row)),
            }
        }
        let (own, memory): (Vec<u64>, Vec<u64>) = memory.into_iter().partition(|number| *number >= OWN_ROWS);
        self.own.delete(own);
        self.memory.delete(memory);
        for (id, rows) in segments {
            let stored = self.segments.iter_mut().find(|s| s.segment.id() == id);
            let stored = stored.ok_or_else(|| Error::Invalid(format!("there is no segment {id} to delete rows from")))?;
            *Arc::make_mut(stored.deleted.get_or_insert_default()) |= rows;
        }
        Ok(())
    }
}
