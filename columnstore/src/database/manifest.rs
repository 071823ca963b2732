//! The manifest: what exists at one moment, its LSN. What came later is in the log; now and then a new manifest takes its place.
//!
//! ```text
//! magic "STOAMANI", u32 version, u32 zero, u64 length of the message, the message, u64 checksum of all before
//! ```

use std::sync::Arc;

use capnp::message::{Builder, ReaderOptions};
use roaring::{RoaringBitmap, RoaringTreemap};
use stoa_schema::manifest_capnp::{self, manifest, partition, table, unique_key};

use crate::Result;
use crate::alter::{Layout, StoredColumn};
use crate::checksum::checksum;
use crate::database::catalog::{Catalog, Files};
use crate::definition::{BitmapIndex, ColumnDef, TableDef, UniqueKey};
use crate::encoding::write_rows;
use crate::log::{self, Entry, InsertedRows, read_entry, treemap_bytes, write_entry};
use crate::memory::MemoryRows;
use crate::segment::{corrupt, io_error};
use crate::table::{Partition, Table};
use crate::types::{read_type, write_type};

const MAGIC: [u8; 8] = *b"STOAMANI";
const VERSION: u32 = 1;
const HEADER: usize = 24;

/// Name of the manifest in the data directory.
pub(crate) const MANIFEST: &str = "manifest";
/// Its name while it is being written.
pub(crate) const TEMPORARY: &str = "manifest.new";

impl Catalog {
    /// Replaces the manifest of the data directory, for good when this returns. Until the rename the old one stands, whatever
    /// goes wrong; after an error either may stand.
    pub(crate) fn store(&self, first_log: u64, fsync: bool) -> Result<()> {
        let Files { disk, root } = &*self.files;
        let (path, temporary) = (root.join(MANIFEST), root.join(TEMPORARY));
        let bytes = self.encode(first_log)?;
        // One that a crash left.
        let _ = disk.remove(&temporary);
        let write = || -> std::io::Result<()> {
            let file = disk.create(&temporary)?;
            file.append(&bytes)?;
            if fsync { file.sync() } else { Ok(()) }
        };
        if let Err(source) = write() {
            let _ = disk.remove(&temporary);
            return Err(io_error(&temporary)(source));
        }
        disk.rename(&temporary, &path).map_err(io_error(&path))?;
        if fsync { disk.sync_folder(root).map_err(io_error(root)) } else { Ok(()) }
    }

    /// Reads the manifest of a data directory: its state, and the number of the first log file with what came later.
    pub(crate) fn load(files: &Arc<Files>) -> Result<(Catalog, u64)> {
        let path = files.root.join(MANIFEST);
        let bytes = files.disk.read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => corrupt(&path, "the file is missing"),
            _ => io_error(&path)(e),
        })?;
        Catalog::decode(&bytes, files).map_err(|what| corrupt(&path, &what))
    }

    pub(crate) fn encode(&self, first_log: u64) -> Result<Vec<u8>> {
        let mut message = Builder::new_default();
        let mut root = message.init_root::<manifest::Builder<'_>>();
        root.set_sequence(self.sequence);
        root.set_next_table_id(self.next_table_id);
        root.set_next_segment_id(self.next_segment_id);
        root.set_first_log(first_log);
        root.set_term(self.term);
        root.set_checksum(self.checksum);
        let mut tables = root.reborrow().init_tables(self.tables.len() as u32);
        for (i, table) in self.tables.values().enumerate() {
            write_table(table, tables.reborrow().get(i as u32))?;
        }
        let pending = self.pending();
        let mut bodies = root.reborrow().init_pending(pending.len() as u32);
        pending.iter().enumerate().for_each(|(i, body)| bodies.set(i as u32, body));
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
        Ok(out)
    }

    pub(crate) fn decode(bytes: &[u8], files: &Arc<Files>) -> std::result::Result<(Catalog, u64), String> {
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
        let mut catalog = Catalog::new(Arc::clone(files));
        catalog.sequence = from.get_sequence();
        (catalog.term, catalog.checksum) = (from.get_term(), from.get_checksum());
        for table in from.get_tables().map_err(damaged)? {
            let table = read_table(table, files).map_err(damaged)??;
            catalog.tables.insert(table.name().to_lowercase(), Arc::new(table));
        }
        for view in from.get_views().map_err(damaged)? {
            let text = |t: capnp::Result<capnp::text::Reader<'_>>| t.and_then(|t| Ok(t.to_string()?)).map_err(damaged);
            let name = text(view.get_name())?;
            catalog.views.insert(name.to_lowercase(), (name, text(view.get_sql())?));
        }
        for body in from.get_pending().map_err(damaged)? {
            for change in log::decode_changes(body.map_err(damaged)?)? {
                catalog.apply(&change).map_err(|e| format!("a prepared transaction cannot be read ({e})"))?;
            }
        }
        (catalog.next_table_id, catalog.next_segment_id) = (from.get_next_table_id(), from.get_next_segment_id());
        (catalog.definitions, catalog.stored) = (0, 0);
        Ok((catalog, from.get_first_log()))
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

pub(crate) fn write_definition(def: &TableDef, mut to: table::Builder<'_>) {
    to.set_name(&def.name);
    to.set_reference(def.reference);
    to.set_next_column(def.layout.next);
    to.set_version(def.layout.version);
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
        if let Some(StoredColumn { number, initial }) = def.layout.columns.get(i) {
            out.set_number(*number);
            initial.iter().for_each(|blob| out.set_initial(blob));
        }
    }
    let mut shard_key = to.reborrow().init_shard_key(def.shard_key.len() as u32);
    def.shard_key.iter().enumerate().for_each(|(i, ordinal)| shard_key.set(i as u32, *ordinal));
    let mut sort_key = to.reborrow().init_sort_key(def.sort_key.len() as u32);
    def.sort_key.iter().enumerate().for_each(|(i, ordinal)| sort_key.set(i as u32, *ordinal));
    let mut keys = to.init_unique_keys(def.unique_keys.len() as u32);
    for (i, key) in def.unique_keys.iter().enumerate() {
        let mut out = keys.reborrow().get(i as u32);
        out.set_name(&key.name);
        let mut columns = out.init_columns(key.columns.len() as u32);
        key.columns.iter().enumerate().for_each(|(i, ordinal)| columns.set(i as u32, *ordinal));
    }
}

fn write_table(from: &Table, mut to: table::Builder<'_>) -> Result<()> {
    to.set_id(from.id);
    write_definition(&from.def, to.reborrow());
    let mut partitions = to.init_partitions(from.partitions.len() as u32);
    for (i, partition) in from.partitions.iter().enumerate() {
        let mut out = partitions.reborrow().get(i as u32);
        let mut segments = out.reborrow().init_segments(partition.segments.len() as u32);
        for (j, stored) in partition.segments.iter().enumerate() {
            let deleted = stored.deleted.as_ref().map(|deleted| RoaringBitmap::clone(deleted)).unwrap_or_default();
            write_entry(&Entry::of(&stored.segment, deleted), segments.reborrow().get(j as u32));
        }
        let memory = &partition.memory;
        out.set_first_row(memory.first());
        if !memory.deleted().is_empty() {
            out.set_deleted(&treemap_bytes(memory.deleted()));
        }
        let mut runs = out.init_memory(memory.runs().len() as u32);
        for (j, run) in memory.runs().iter().enumerate() {
            runs.reborrow().get(j as u32).set_rows(&write_rows(&run.columns)?);
        }
    }
    Ok(())
}

fn read_key(from: unique_key::Reader<'_>) -> capnp::Result<UniqueKey> {
    Ok(UniqueKey { name: from.get_name()?.to_string()?, columns: from.get_columns()?.iter().collect() })
}

/// The outer error is the message's, the inner one the content's.
pub(crate) fn read_definition(from: table::Reader<'_>, partitions: u32) -> capnp::Result<std::result::Result<TableDef, String>> {
    let mut columns = Vec::new();
    let mut layout = Layout { columns: vec![], next: from.get_next_column(), version: from.get_version() };
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
        if layout.next > 0 {
            let initial = column.get_initial()?;
            let initial = (!initial.is_empty()).then(|| initial.into());
            layout.columns.push(StoredColumn { number: column.get_number(), initial });
        }
    }
    let def = TableDef {
        name: from.get_name()?.to_string()?,
        columns,
        shard_key: from.get_shard_key()?.iter().collect(),
        sort_key: from.get_sort_key()?.iter().collect(),
        unique_keys: from.get_unique_keys()?.iter().map(read_key).collect::<capnp::Result<_>>()?,
        reference: from.get_reference(),
        partitions,
        layout,
    };
    Ok(def.check().map(|()| def).map_err(|e| e.to_string()))
}

/// The outer error is the message's, the inner one the content's.
fn read_table(from: table::Reader<'_>, files: &Arc<Files>) -> capnp::Result<std::result::Result<Table, String>> {
    let def = match read_definition(from, from.get_partitions()?.len())? {
        Ok(def) => def,
        Err(what) => return Ok(Err(what)),
    };
    let (def, mut partitions) = (Arc::new(def), Vec::new());
    for (number, partition) in from.get_partitions()?.iter().enumerate() {
        match read_partition(partition, &def, files, (from.get_id(), number))? {
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
    files: &Arc<Files>,
    (table, number): (u64, usize),
) -> capnp::Result<std::result::Result<Partition, String>> {
    let mut partition = Partition { memory: MemoryRows::starting_at(from.get_first_row()), ..Partition::default() };
    for entry in from.get_segments()? {
        match read_entry(entry)? {
            Ok(entry) => partition.segments.push(files.stored(def, table, number, &entry)),
            Err(what) => return Ok(Err(format!("table '{}': {what}", def.name))),
        }
    }
    for run in from.get_memory()? {
        let rows = InsertedRows::stored(run.get_rows()?, run.get_batch()?, run.get_body()?).columns(def);
        if let Err(what) = rows.and_then(|rows| partition.memory.push(rows).map_err(|e| e.to_string())) {
            return Ok(Err(format!("table '{}': {what}", def.name)));
        }
    }
    if let bytes @ [_, ..] = from.get_deleted()? {
        let Ok(deleted) = RoaringTreemap::deserialize_from(bytes) else {
            return Ok(Err(format!("table '{}': deleted rows cannot be read", def.name)));
        };
        let here = partition.memory.first()..partition.memory.next();
        partition.memory.delete(deleted.iter().filter(|number| here.contains(number)));
    }
    Ok(Ok(partition))
}
