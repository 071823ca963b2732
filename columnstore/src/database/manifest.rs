//! The manifest: the one file that says what exists. A commit replaces it as a whole.
//!
//! ```text
//! magic "STOAMANI", u32 version, u32 zero, u64 length of the message, the message, u64 checksum of all before
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use capnp::message::{Builder, ReaderOptions};
use stoa_schema::manifest_capnp::{self, manifest, partition, table};

use crate::checksum::checksum;
use crate::definition::{BitmapIndex, ColumnDef, TableDef};
use crate::segment::{Segment, Written, corrupt, io_error};
use crate::table::{Partition, Table};
use crate::types::{read_type, write_type};
use crate::{Error, Result};

const MAGIC: [u8; 8] = *b"STOAMANI";
const VERSION: u32 = 1;
const HEADER: usize = 24;

/// Name of the manifest in the data directory.
pub(crate) const MANIFEST: &str = "manifest";
/// Its name while it is being written.
pub(crate) const TEMPORARY: &str = "manifest.new";

/// What exists: immutable, replaced by every commit. Keys are names in lower case.
#[derive(Clone, Default)]
pub(crate) struct Catalog {
    pub(crate) sequence: u64,
    pub(crate) next_table_id: u64,
    pub(crate) next_segment_id: u64,
    pub(crate) tables: BTreeMap<String, Arc<Table>>,
    /// Name as written, and text.
    pub(crate) views: BTreeMap<String, (String, String)>,
}

/// The folder of a partition.
pub(crate) fn partition_folder(root: &Path, table: u64, partition: usize) -> PathBuf {
    root.join("tables").join(table.to_string()).join(partition.to_string())
}

/// The file of a segment.
pub(crate) fn segment_path(root: &Path, table: u64, partition: usize, segment: u64) -> PathBuf {
    partition_folder(root, table, partition).join(format!("{segment}.segment"))
}

/// Syncs a folder, so that names in it last.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|f| f.sync_all()).map_err(io_error(path))
}

/// How far storing got when it failed.
pub(crate) struct StoreError {
    pub(crate) error: crate::Error,
    /// The new manifest is in place, but may not outlast a power cut.
    pub(crate) replaced: bool,
}

impl Catalog {
    /// [`Error::AlreadyExists`] if a table or view has this name.
    pub(crate) fn check_free(&self, name: &str) -> Result<()> {
        let key = name.to_lowercase();
        if self.tables.contains_key(&key) || self.views.contains_key(&key) {
            return Err(Error::AlreadyExists(name.into()));
        }
        Ok(())
    }

    /// Adds a table whose name is free.
    pub(crate) fn add(&mut self, table: Arc<Table>) -> Result<()> {
        self.check_free(table.name())?;
        self.tables.insert(table.name().to_lowercase(), table);
        Ok(())
    }

    /// Replaces the manifest of the data directory `root`. Until the rename the old one stands, whatever goes wrong.
    pub(crate) fn store(&self, root: &Path, fsync: bool) -> std::result::Result<(), StoreError> {
        let (path, temporary) = (root.join(MANIFEST), root.join(TEMPORARY));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(&self.encode())?;
            if fsync { file.sync_all() } else { Ok(()) }
        };
        if let Err(source) = write() {
            let _ = fs::remove_file(&temporary);
            return Err(StoreError { error: io_error(&temporary)(source), replaced: false });
        }
        fs::rename(&temporary, &path).map_err(|e| StoreError { error: io_error(&path)(e), replaced: false })?;
        if fsync { sync_folder(root).map_err(|error| StoreError { error, replaced: true }) } else { Ok(()) }
    }

    /// Reads the manifest of the data directory `root`.
    pub(crate) fn load(root: &Path) -> Result<Catalog> {
        let path = root.join(MANIFEST);
        let bytes = fs::read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => corrupt(&path, "the file is missing"),
            _ => io_error(&path)(e),
        })?;
        Catalog::decode(&bytes, root).map_err(|what| corrupt(&path, &what))
    }

    fn encode(&self) -> Vec<u8> {
        let mut message = Builder::new_default();
        let mut root = message.init_root::<manifest::Builder<'_>>();
        root.set_sequence(self.sequence);
        root.set_next_table_id(self.next_table_id);
        root.set_next_segment_id(self.next_segment_id);
        let mut tables = root.reborrow().init_tables(self.tables.len() as u32);
        for (i, table) in self.tables.values().enumerate() {
            write_table(table, tables.reborrow().get(i as u32));
        }
        let mut views = root.init_views(self.views.len() as u32);
        for (i, (name, sql)) in self.views.values().enumerate() {
            let mut view = views.reborrow().get(i as u32);
            view.set_name(name);
            view.set_sql(sql);
        }
        let message = capnp::serialize::write_message_to_words(&message);
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend([0; 4]);
        out.extend((message.len() as u64).to_le_bytes());
        out.extend(message);
        out.extend(checksum(&out).to_le_bytes());
        out
    }

    fn decode(bytes: &[u8], root: &Path) -> std::result::Result<Catalog, String> {
        let number = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
        let end = bytes.len().checked_sub(8).filter(|end| *end >= HEADER).ok_or("it is cut short")?;
        if bytes[..8] != MAGIC {
            return Err("it is not a manifest".into());
        }
        if checksum(&bytes[..end]) != number(end) || number(16) != (end - HEADER) as u64 {
            return Err("it does not match its checksum".into());
        }
        if bytes[8..12] != VERSION.to_le_bytes() {
            return Err("it has another version".into());
        }
        let damaged = |e: capnp::Error| format!("it cannot be read ({e})");
        let mut options = ReaderOptions::new();
        options.traversal_limit_in_words(Some(bytes.len().saturating_mul(2)));
        let message = capnp::serialize::read_message(&bytes[HEADER..end], options).map_err(damaged)?;
        let from = message.get_root::<manifest::Reader<'_>>().map_err(damaged)?;
        let mut catalog = Catalog {
            sequence: from.get_sequence(),
            next_table_id: from.get_next_table_id(),
            next_segment_id: from.get_next_segment_id(),
            ..Catalog::default()
        };
        for table in from.get_tables().map_err(damaged)? {
            let table = read_table(table, root).map_err(damaged)??;
            catalog.tables.insert(table.name().to_lowercase(), Arc::new(table));
        }
        for view in from.get_views().map_err(damaged)? {
            let text = |t: capnp::Result<capnp::text::Reader<'_>>| t.and_then(|t| Ok(t.to_string()?)).map_err(damaged);
            let name = text(view.get_name())?;
            catalog.views.insert(name.to_lowercase(), (name, text(view.get_sql())?));
        }
        Ok(catalog)
    }
}

/// The message of a table's definition, which [`decode_definition`] reads.
#[must_use]
pub fn encode_definition(def: &TableDef) -> Vec<u8> {
    let mut message = Builder::new_default();
    write_definition(def, message.init_root::<table::Builder<'_>>());
    capnp::serialize::write_message_to_words(&message)
}

/// The definition of a message, checked; its number of partitions is 0.
///
/// # Errors
/// [`crate::Error::Invalid`] if the bytes are none, or no such table can be stored.
pub fn decode_definition(bytes: &[u8]) -> Result<TableDef> {
    let invalid = |e: capnp::Error| crate::Error::Invalid(format!("a table's definition cannot be read ({e})"));
    let mut options = ReaderOptions::new();
    options.traversal_limit_in_words(Some(bytes.len().saturating_mul(2)));
    let message = capnp::serialize::read_message(bytes, options).map_err(invalid)?;
    let from = message.get_root::<table::Reader<'_>>().map_err(invalid)?;
    let def = read_definition(from, 0).map_err(invalid)?.map_err(crate::Error::Invalid)?;
    Ok(def)
}

fn write_definition(def: &TableDef, mut to: table::Builder<'_>) {
    to.set_name(&def.name);
    to.set_reference(def.reference);
    let mut columns = to.reborrow().init_columns(def.columns.len() as u32);
    for (i, column) in def.columns.iter().enumerate() {
        let mut out = columns.reborrow().get(i as u32);
        out.set_name(&column.name);
        write_type(&column.ty, out.reborrow().init_type());
        out.set_nullable(column.nullable);
        out.set_sql_type(&column.sql_type);
        out.set_bitmap_index(match column.bitmap_index {
            BitmapIndex::Auto => manifest_capnp::BitmapIndex::Auto,
            BitmapIndex::Declared => manifest_capnp::BitmapIndex::Declared,
            BitmapIndex::None => manifest_capnp::BitmapIndex::None,
        });
    }
    let mut shard_key = to.reborrow().init_shard_key(def.shard_key.len() as u32);
    def.shard_key.iter().enumerate().for_each(|(i, ordinal)| shard_key.set(i as u32, *ordinal));
    let mut sort_key = to.init_sort_key(def.sort_key.len() as u32);
    def.sort_key.iter().enumerate().for_each(|(i, ordinal)| sort_key.set(i as u32, *ordinal));
}

fn write_table(from: &Table, mut to: table::Builder<'_>) {
    to.set_id(from.id);
    write_definition(&from.def, to.reborrow());
    let mut partitions = to.init_partitions(from.partitions.len() as u32);
    for (i, partition) in from.partitions.iter().enumerate() {
        let mut segments = partitions.reborrow().get(i as u32).init_segments(partition.segments.len() as u32);
        for (j, segment) in partition.segments.iter().enumerate() {
            let mut out = segments.reborrow().get(j as u32);
            out.set_id(segment.id());
            out.set_rows(segment.rows() as u64);
            out.set_length(segment.written().length);
            out.set_footer_checksum(segment.written().footer_checksum);
        }
    }
}

/// The outer error is the message's, the inner one the content's.
fn read_definition(from: table::Reader<'_>, partitions: u32) -> capnp::Result<std::result::Result<TableDef, String>> {
    let mut columns = Vec::new();
    for column in from.get_columns()? {
        let ty = match read_type(column.get_type()?) {
            Ok(ty) => ty,
            Err(what) => return Ok(Err(what)),
        };
        columns.push(ColumnDef {
            name: column.get_name()?.to_string()?,
            ty,
            nullable: column.get_nullable(),
            bitmap_index: match column.get_bitmap_index()? {
                manifest_capnp::BitmapIndex::Auto => BitmapIndex::Auto,
                manifest_capnp::BitmapIndex::Declared => BitmapIndex::Declared,
                manifest_capnp::BitmapIndex::None => BitmapIndex::None,
            },
            sql_type: column.get_sql_type()?.to_string()?,
        });
    }
    let def = TableDef {
        name: from.get_name()?.to_string()?,
        columns,
        shard_key: from.get_shard_key()?.iter().collect(),
        sort_key: from.get_sort_key()?.iter().collect(),
        reference: from.get_reference(),
        partitions,
    };
    Ok(def.check().map(|()| def).map_err(|e| e.to_string()))
}

/// The outer error is the message's, the inner one the content's.
fn read_table(from: table::Reader<'_>, root: &Path) -> capnp::Result<std::result::Result<Table, String>> {
    let def = match read_definition(from, from.get_partitions()?.len())? {
        Ok(def) => def,
        Err(what) => return Ok(Err(what)),
    };
    let (def, mut partitions) = (Arc::new(def), Vec::new());
    for (number, partition) in from.get_partitions()?.iter().enumerate() {
        match read_partition(partition, &def, root, from.get_id(), number)? {
            Ok(partition) => partitions.push(Arc::new(partition)),
            Err(what) => return Ok(Err(what)),
        }
    }
    if partitions.is_empty() {
        return Ok(Err(format!("table '{}' has no partition", def.name)));
    }
    Ok(Ok(Table::new(from.get_id(), def, partitions)))
}

fn read_partition(
    from: partition::Reader<'_>,
    def: &Arc<TableDef>,
    root: &Path,
    table: u64,
    number: usize,
) -> capnp::Result<std::result::Result<Partition, String>> {
    let mut partition = Partition::default();
    for entry in from.get_segments()? {
        let rows = entry.get_rows() as usize;
        if rows == 0 || rows > crate::MAX_SEGMENT_ROWS {
            return Ok(Err(format!("segment {} of table '{}' has {rows} rows", entry.get_id(), def.name)));
        }
        let written = Written { length: entry.get_length(), footer_checksum: entry.get_footer_checksum() };
        let path = segment_path(root, table, number, entry.get_id());
        partition.segments.push(Arc::new(Segment::new(entry.get_id(), rows, path, written, def)));
    }
    Ok(Ok(partition))
}
