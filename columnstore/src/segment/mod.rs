//! A segment: up to 2^20 rows of a partition in one immutable file, read through a memory map. Rows that are not in a file yet are
//! read as a segment too, whose bytes are in memory.

mod build;
mod column;
mod file;
mod footer;
mod initial;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::array::ArrayRef;
use arrow::buffer::Buffer;
use parking_lot::Mutex;

pub(crate) use build::{build_in_memory, build_segment};
pub use column::{Column, FilterCounters, PreparedFilter};
use file::SegmentFile;
pub(crate) use file::{Written, corrupt, io_error};
use footer::ColumnFooter;
use initial::InitialColumn;

use crate::definition::{TableDef, UniqueKey};
use crate::disk::Disk;
use crate::encoding::Encoding;
use crate::keys::KeyIndex;
use crate::sketch::Sketch;
use crate::zone::{Verdict, Zone};
use crate::{Error, Predicate, Result};

/// A segment of a table. Its file is opened when first needed, each column is checked when first used.
pub struct Segment {
    stored: Arc<StoredSegment>,
    def: Arc<TableDef>,
    /// Numbers of the file's columns, where they are not those of `def`.
    foreign: Option<Arc<[u32]>>,
    /// Where the column of each ordinal is, if there are foreign columns; otherwise it is at its ordinal.
    places: Vec<ColumnPlace>,
}

/// What does not depend on the definition that a segment is read through: shared by the segments before and after an ALTER TABLE.
struct StoredSegment {
    id: u64,
    rows: usize,
    /// Columns of the file.
    columns: usize,
    path: PathBuf,
    home: Home,
    written: Written,
    opened: OnceLock<Opened>,
    /// By the number of the unique key, which no ALTER TABLE changes: made when a write first asks.
    keys: Mutex<Vec<Option<Arc<KeyIndex>>>>,
    /// The file goes away with the last user of this segment: its table was dropped.
    doomed: AtomicBool,
}

/// Where a column of a table is in a segment.
enum ColumnPlace {
    /// In the file, at this place.
    File(usize),
    /// Nowhere: every row has its initial value.
    Initial(OnceLock<Box<InitialColumn>>),
}

/// Where the bytes of a segment are.
enum Home {
    Disk(Arc<dyn Disk>),
    Memory(Buffer),
}

struct Opened {
    file: SegmentFile,
    footers: Vec<ColumnFooter>,
    columns: Vec<OnceLock<Column>>,
}

/// What `stoa inspect` shows of a column of a segment.
#[derive(Clone, Debug)]
pub struct ColumnInfo {
    /// The encoding, for people.
    pub encoding: String,
    /// Size of the values before encoding.
    pub raw_bytes: u64,
    /// Size of the encoded values.
    pub bytes: u64,
    /// Size of the block zone maps.
    pub block_zone_bytes: u64,
    /// Distinct values and size of the bitmap index, if there is one.
    pub bitmap_index: Option<(usize, u64)>,
    /// The zone map.
    pub zone: Zone,
    /// Estimate of the distinct values.
    pub distinct: u64,
}

impl Segment {
    /// A segment of table `def` whose file is written. It is there to stay. `foreign`: the numbers of the file's columns, if they are
    /// not those of the table.
    pub(crate) fn new(
        disk: &Arc<dyn Disk>,
        id: u64,
        rows: usize,
        path: PathBuf,
        written: Written,
        def: &Arc<TableDef>,
        foreign: Option<&Arc<[u32]>>,
    ) -> Segment {
        let columns = foreign.map_or(def.columns.len(), |numbers| numbers.len());
        let stored = StoredSegment::new(id, rows, columns, path, Home::Disk(Arc::clone(disk)), written);
        Segment::through(Arc::new(stored), def, foreign.cloned())
    }

    /// A segment of rows in memory, of canonical types. It has no file and no number.
    pub(crate) fn in_memory(def: &Arc<TableDef>, columns: &[ArrayRef]) -> Result<Segment> {
        let path = PathBuf::from(format!("rows of table '{}' in memory", def.name));
        let (bytes, written) = build_in_memory(&path, &def.columns, columns)?;
        let rows = columns.first().map_or(0, |c| c.len());
        let stored = StoredSegment::new(0, rows, def.columns.len(), path, Home::Memory(bytes), written);
        Ok(Segment::through(Arc::new(stored), def, None))
    }

    fn through(stored: Arc<StoredSegment>, def: &Arc<TableDef>, numbers: Option<Arc<[u32]>>) -> Segment {
        let wanted = def.column_numbers();
        let foreign = numbers.filter(|numbers| **numbers != *wanted);
        let place = |numbers: &[u32], wanted: &u32| match numbers.iter().position(|number| number == wanted) {
            Some(at) => ColumnPlace::File(at),
            None => ColumnPlace::Initial(OnceLock::new()),
        };
        let places = foreign.iter().flat_map(|numbers| wanted.iter().map(|wanted| place(numbers, wanted))).collect();
        Segment { stored, def: Arc::clone(def), foreign, places }
    }

    /// The same segment, read through an altered definition of its table.
    pub(crate) fn altered(&self, def: &Arc<TableDef>) -> Segment {
        let numbers = self.foreign.clone().unwrap_or_else(|| self.def.column_numbers().into());
        Segment::through(Arc::clone(&self.stored), def, Some(numbers))
    }

    /// The numbers of the file's columns, if they are not those of the table.
    pub(crate) fn foreign_columns(&self) -> Option<&Arc<[u32]>> {
        self.foreign.as_ref()
    }

    /// Its number, unique in the data directory.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.stored.id
    }

    /// Rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.stored.rows
    }

    /// Columns of its table.
    pub(crate) fn ordinals(&self) -> usize {
        self.def.columns.len()
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.stored.path
    }

    /// Size of its file.
    #[must_use]
    pub fn bytes_on_disk(&self) -> u64 {
        self.stored.written.length
    }

    pub(crate) fn written(&self) -> Written {
        self.stored.written
    }

    /// A column. The first use checks its bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] that names file and column; [`Error::Io`].
    pub fn column(&self, ordinal: usize) -> Result<&Column> {
        let at = match self.place(ordinal) {
            Ok(at) => at,
            Err(initial) => return Ok(&self.initial(ordinal, initial)?.column),
        };
        let footer = self.footer(ordinal)?;
        let opened = self.stored.opened()?;
        let slot = opened.columns.get(at).ok_or_else(|| self.no_column(ordinal))?;
        if let Some(column) = slot.get() {
            return Ok(column);
        }
        let column = Column::open(&opened.file, footer, self.rows()).map_err(|what| self.column_error(ordinal, &what))?;
        Ok(slot.get_or_init(|| column))
    }

    /// Where in the file a column is, or where its initial values are to be.
    fn place(&self, ordinal: usize) -> std::result::Result<usize, &OnceLock<Box<InitialColumn>>> {
        match self.places.get(ordinal) {
            _ if self.places.is_empty() => Ok(ordinal),
            Some(ColumnPlace::File(at)) => Ok(*at),
            Some(ColumnPlace::Initial(initial)) => Err(initial),
            // No file has so many.
            None => Ok(usize::MAX),
        }
    }

    fn initial<'a>(&'a self, ordinal: usize, slot: &'a OnceLock<Box<InitialColumn>>) -> Result<&'a InitialColumn> {
        if let Some(initial) = slot.get() {
            return Ok(initial);
        }
        let made = Box::new(InitialColumn::new(&self.def, ordinal, self.rows())?);
        Ok(slot.get_or_init(|| made))
    }

    /// Rows of a column in its canonical type, whatever their encoding gives; see [`Column::read`].
    ///
    /// # Errors
    /// As [`Segment::column`].
    pub fn values(&self, ordinal: usize, first_row: usize, rows: usize, selection: Option<&[u32]>) -> Result<ArrayRef> {
        let read = self.column(ordinal)?.read(first_row, rows, selection)?;
        let wanted = &self.def.columns[ordinal].ty;
        if read.data_type() == wanted { Ok(read) } else { Ok(arrow::compute::cast(&read, wanted)?) }
    }

    fn column_error(&self, ordinal: usize, what: &str) -> Error {
        corrupt(self.path(), &format!("column '{}': {what}", self.def.columns.get(ordinal).map_or("", |c| &c.name)))
    }

    /// The zone map of a column, without touching the column's bytes.
    ///
    /// # Errors
    /// As [`Segment::column`].
    pub fn zone(&self, ordinal: usize) -> Result<&Zone> {
        Ok(&self.footer(ordinal)?.zone)
    }

    /// What the zone map of a column says about a predicate, without touching the column's bytes.
    ///
    /// # Errors
    /// As [`Segment::column`].
    pub fn verdict(&self, ordinal: usize, predicate: &Predicate) -> Result<Verdict> {
        Ok(column::footer_verdict(self.footer(ordinal)?, predicate))
    }

    /// The figures of a column.
    ///
    /// # Errors
    /// As [`Segment::column`].
    pub fn column_info(&self, ordinal: usize) -> Result<ColumnInfo> {
        let column = self.column(ordinal)?;
        let footer = self.footer(ordinal)?;
        Ok(ColumnInfo {
            encoding: column.encoded().describe(),
            raw_bytes: footer.raw_bytes,
            bytes: footer.data.length,
            block_zone_bytes: footer.block_zones.length,
            bitmap_index: column.bitmap_index().map(|index| (index.values(), footer.bitmap_index.length)),
            zone: footer.zone.clone(),
            distinct: footer.distinct,
        })
    }

    /// The encoding of a column, which is not opened for it.
    ///
    /// # Errors
    /// If the footer cannot be read, or there is no such column.
    pub fn encoding(&self, ordinal: usize) -> Result<Encoding> {
        Ok(self.footer(ordinal)?.encoding)
    }

    pub(crate) fn sketch(&self, ordinal: usize) -> Result<&Sketch> {
        Ok(&self.footer(ordinal)?.sketch)
    }

    /// Size of a column's values before encoding, and encoded.
    pub(crate) fn sizes(&self, ordinal: usize) -> Result<(u64, u64)> {
        let footer = self.footer(ordinal)?;
        Ok((footer.raw_bytes, footer.data.length + footer.block_zones.length + footer.bitmap_index.length))
    }

    fn footer(&self, ordinal: usize) -> Result<&ColumnFooter> {
        let at = match self.place(ordinal) {
            Ok(at) => at,
            Err(initial) => return Ok(&self.initial(ordinal, initial)?.footer),
        };
        let (footer, column) = (self.stored.opened()?.footers.get(at), self.def.columns.get(ordinal));
        let (Some(footer), Some(column)) = (footer, column) else { return Err(self.no_column(ordinal)) };
        if footer.ty != column.ty {
            return Err(self.column_error(ordinal, &format!("it has type {} instead of {}", footer.ty, column.ty)));
        }
        Ok(footer)
    }

    fn no_column(&self, ordinal: usize) -> Error {
        Error::Invalid(format!("there is no column {ordinal} in {}", self.path().display()))
    }

    /// All rows of some columns, as [`Segment::values`].
    pub(crate) fn whole(&self, columns: &[u32]) -> Result<Vec<ArrayRef>> {
        columns.iter().map(|column| self.values(*column as usize, 0, self.rows(), None)).collect()
    }

    /// Checks the file's ends and every column's bytes against their checksums.
    pub(crate) fn verify(&self) -> Result<()> {
        (0..self.def.columns.len()).try_for_each(|ordinal| self.column(ordinal).map(drop))
    }

    /// The index of the table's unique key with this number.
    pub(crate) fn key_index(&self, number: usize, key: &UniqueKey) -> Result<Arc<KeyIndex>> {
        let mut keys = self.stored.keys.lock();
        if let Some(Some(index)) = keys.get(number) {
            return Ok(Arc::clone(index));
        }
        let index = Arc::new(KeyIndex::of(&self.whole(&key.columns)?));
        let length = keys.len().max(number + 1);
        keys.resize(length, None);
        keys[number] = Some(Arc::clone(&index));
        Ok(index)
    }

    /// Whether the file goes away with the last user of this segment: until its commit, and after its table was dropped.
    pub(crate) fn set_doomed(&self, doomed: bool) {
        self.stored.doomed.store(doomed, Ordering::Relaxed);
    }
}

impl StoredSegment {
    fn new(id: u64, rows: usize, columns: usize, path: PathBuf, home: Home, written: Written) -> StoredSegment {
        let (opened, keys, doomed) = (OnceLock::new(), Mutex::default(), AtomicBool::new(false));
        StoredSegment { id, rows, columns, path, home, written, opened, keys, doomed }
    }

    fn opened(&self) -> Result<&Opened> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let bytes = match &self.home {
            Home::Disk(disk) => disk.read(&self.path).map_err(|e| match e.kind() {
                std::io::ErrorKind::NotFound => corrupt(&self.path, "the file is missing"),
                _ => io_error(&self.path)(e),
            })?,
            Home::Memory(bytes) => bytes.clone(),
        };
        let file = SegmentFile::open(&self.path, bytes, self.written)?;
        let damaged = |what: String| corrupt(&self.path, &what);
        let (rows, footers) = footer::decode_footer(file.footer()).map_err(damaged)?;
        if rows != self.rows as u64 {
            return Err(damaged(format!("it has {rows} rows instead of {}", self.rows)));
        }
        if footers.len() != self.columns {
            return Err(damaged(format!("it has {} columns instead of {}", footers.len(), self.columns)));
        }
        let columns = footers.iter().map(|_| OnceLock::new()).collect();
        Ok(self.opened.get_or_init(|| Opened { file, footers, columns }))
    }
}

impl Drop for StoredSegment {
    fn drop(&mut self) {
        if let Home::Disk(disk) = &self.home
            && self.doomed.load(Ordering::Relaxed)
        {
            // What cannot be removed now is removed by the next open.
            let _ = disk.remove(&self.path);
        }
    }
}
