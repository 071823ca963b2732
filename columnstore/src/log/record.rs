//! What a record says, in memory and as a message.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::buffer::Buffer;
use arrow::ipc::reader::read_record_batch;
use capnp::message::{Builder, HeapAllocator, ReaderOptions};
use roaring::{RoaringBitmap, RoaringTreemap};
use stoa_schema::log_capnp::{change, outcome, prepared, record};
use stoa_schema::manifest_capnp::segment_entry;

use crate::Result;
use crate::database::{read_definition, write_definition};
use crate::definition::TableDef;
use crate::encoding::{read_rows, write_rows};
use crate::segment::{Segment, Written};

/// A change of what a data directory holds. Tables are named by their numbers.
#[derive(Clone)]
pub(crate) enum Change {
    /// A new table, empty.
    CreateTable { id: u64, def: Arc<TableDef> },
    /// A table goes.
    DropTable(u64),
    /// A view, new or replaced.
    CreateView { name: String, sql: String },
    /// A view goes.
    DropView(String),
    /// Rows come into memory.
    Insert { table: u64, partition: usize, rows: InsertedRows },
    /// Loaded segments come.
    Attach { table: u64, partition: usize, segments: Vec<Entry> },
    /// Rows go. All addresses are of one partition.
    Delete { table: u64, partition: usize, rows: RoaringTreemap },
    /// Rows in memory before a number, and those of some segments, are in other segments from now on.
    Rewrite { table: u64, partition: usize, through: u64, removed: Vec<u64>, segments: Vec<Entry> },
    /// Another definition.
    AlterTable { id: u64, def: Arc<TableDef> },
    /// All rows go.
    TruncateTable(u64),
    /// A transaction may make these changes, which are none of this kind or the next ones.
    Prepare { transaction: u64, decider: u32, changes: Vec<Change> },
    /// What a transaction prepared is made, or never will be.
    Resolve { transaction: u64, commit: bool },
    /// Whether a transaction commits.
    Decide { transaction: u64, commit: bool },
    /// Decisions that nobody will ask for any more.
    Forget(Vec<u64>),
}

/// A segment as the manifest and the log name it.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) rows: usize,
    pub(crate) written: Written,
    pub(crate) deleted: RoaringBitmap,
    /// Numbers of the file's columns, where they are not those of the table as it is defined.
    pub(crate) columns: Option<Arc<[u32]>>,
    /// The segment itself, where it was just written.
    pub(crate) segment: Option<Arc<Segment>>,
}

impl Entry {
    pub(crate) fn of(segment: &Arc<Segment>, deleted: RoaringBitmap) -> Entry {
        let (id, rows, written) = (segment.id(), segment.rows(), segment.written());
        let columns = segment.foreign_columns().cloned();
        Entry { id, rows, written, deleted, columns, segment: Some(Arc::clone(segment)) }
    }
}

/// Rows of canonical columns, and how the log has them.
#[derive(Clone)]
pub(crate) struct InsertedRows {
    /// Where they were not read from the log.
    columns: Option<Arc<[ArrayRef]>>,
    stored: StoredRows,
}

#[derive(Clone)]
enum StoredRows {
    /// As [`write_rows`] writes them.
    Plain(Arc<[u8]>),
    /// A record batch of Arrow IPC: its message, and its body. Version 2 of the data directory has these.
    Ipc { batch: Arc<[u8]>, body: Arc<[u8]> },
}

impl InsertedRows {
    /// Encodes rows.
    pub(crate) fn new(columns: Arc<[ArrayRef]>) -> Result<InsertedRows> {
        let stored = StoredRows::Plain(write_rows(&columns)?.into());
        Ok(InsertedRows { columns: Some(columns), stored })
    }

    /// Rows as a message has them: `rows`, or in earlier versions `batch` and `body`.
    pub(crate) fn stored(rows: &[u8], batch: &[u8], body: &[u8]) -> InsertedRows {
        let stored = match rows {
            [] => StoredRows::Ipc { batch: batch.into(), body: body.into() },
            rows => StoredRows::Plain(rows.into()),
        };
        InsertedRows { columns: None, stored }
    }

    /// The rows as columns of a table; `Err` says what is wrong.
    pub(crate) fn columns(&self, def: &TableDef) -> std::result::Result<Arc<[ArrayRef]>, String> {
        if let Some(columns) = &self.columns {
            return Ok(Arc::clone(columns));
        }
        let unreadable = |e: &dyn std::fmt::Display| format!("rows cannot be read ({e})");
        let (batch, body) = match &self.stored {
            StoredRows::Plain(rows) => {
                let columns = read_rows(def.columns.iter().map(|column| &column.ty), rows);
                return Ok(columns.map_err(|e| unreadable(&e))?.into());
            }
            StoredRows::Ipc { batch, body } => (batch, body),
        };
        let message = arrow::ipc::root_as_message(batch).map_err(|e| unreadable(&e))?;
        let header = message.header_as_record_batch().ok_or("rows cannot be read: there are none")?;
        let buffer = Buffer::from_slice_ref(&**body);
        let read = read_record_batch(&buffer, header, def.schema(), &Default::default(), None, &message.version());
        Ok(read.map_err(|e| unreadable(&e))?.columns().into())
    }

    /// Bytes of them in a message.
    fn bytes(&self) -> usize {
        match &self.stored {
            StoredRows::Plain(rows) => rows.len(),
            StoredRows::Ipc { batch, body } => batch.len() + body.len(),
        }
    }
}

/// The message of some changes.
pub(crate) fn encode_changes(changes: &[Change]) -> Vec<u8> {
    // Most are a row or two: their message is one segment of about their size.
    let rows = |change: &Change| if let Change::Insert { rows, .. } = change { rows.bytes() } else { 0 };
    let words = 32 + changes.iter().map(|change| 16 + rows(change) / 8).sum::<usize>();
    let mut message = Builder::new(HeapAllocator::new().first_segment_words(u32::try_from(words).unwrap_or(u32::MAX)));
    encode_list(changes, message.init_root::<record::Builder<'_>>().init_changes(changes.len() as u32));
    capnp::serialize::write_message_to_words(&message)
}

fn encode_list(changes: &[Change], mut to: capnp::struct_list::Builder<'_, change::Owned>) {
    for (i, change) in changes.iter().enumerate() {
        encode_change(change, to.reborrow().get(i as u32));
    }
}

fn encode_change(change: &Change, mut to: change::Builder<'_>) {
    match change {
        Change::CreateTable { id, def } => {
            let mut table = to.init_create_table();
            table.set_id(*id);
            table.reborrow().init_partitions(def.partitions);
            write_definition(def, table);
        }
        Change::DropTable(id) => to.set_drop_table(*id),
        Change::CreateView { name, sql } => {
            let mut view = to.init_create_view();
            view.set_name(name);
            view.set_sql(sql);
        }
        Change::DropView(name) => to.set_drop_view(name),
        Change::Insert { table, partition, rows } => {
            let mut insert = to.init_insert();
            insert.set_table(*table);
            insert.set_partition(*partition as u32);
            match &rows.stored {
                StoredRows::Plain(rows) => insert.set_rows(rows),
                StoredRows::Ipc { batch, body } => {
                    insert.set_batch(batch);
                    insert.set_body(body);
                }
            }
        }
        Change::Attach { table, partition, segments } => {
            let mut attach = to.init_attach();
            attach.set_table(*table);
            attach.set_partition(*partition as u32);
            let mut list = attach.init_segments(segments.len() as u32);
            segments.iter().enumerate().for_each(|(i, entry)| write_entry(entry, list.reborrow().get(i as u32)));
        }
        Change::Delete { table, partition, rows } => {
            let mut delete = to.init_delete();
            delete.set_table(*table);
            delete.set_partition(*partition as u32);
            delete.set_rows(&treemap_bytes(rows));
        }
        Change::Rewrite { table, partition, through, removed, segments } => {
            let mut rewrite = to.init_rewrite();
            rewrite.set_table(*table);
            rewrite.set_partition(*partition as u32);
            rewrite.set_through(*through);
            let mut list = rewrite.reborrow().init_removed(removed.len() as u32);
            removed.iter().enumerate().for_each(|(i, id)| list.set(i as u32, *id));
            let mut list = rewrite.init_segments(segments.len() as u32);
            segments.iter().enumerate().for_each(|(i, entry)| write_entry(entry, list.reborrow().get(i as u32)));
        }
        Change::AlterTable { id, def } => {
            let mut table = to.init_alter_table();
            table.set_id(*id);
            table.reborrow().init_partitions(def.partitions);
            write_definition(def, table);
        }
        Change::TruncateTable(id) => to.set_truncate_table(*id),
        Change::Prepare { .. } | Change::Resolve { .. } | Change::Decide { .. } | Change::Forget(_) => encode_pending(change, to),
    }
}

/// The changes that are about transactions over several directories.
fn encode_pending(change: &Change, mut to: change::Builder<'_>) {
    let outcome = |mut to: outcome::Builder<'_>, transaction: u64, commit: bool| {
        to.set_transaction(transaction);
        to.set_commit(commit);
    };
    match change {
        Change::Prepare { transaction, decider, changes } => {
            let mut prepared = to.init_prepare();
            prepared.set_transaction(*transaction);
            prepared.set_decider(*decider);
            encode_list(changes, prepared.init_changes(changes.len() as u32));
        }
        Change::Resolve { transaction, commit } => outcome(to.init_resolve(), *transaction, *commit),
        Change::Decide { transaction, commit } => outcome(to.init_decide(), *transaction, *commit),
        Change::Forget(transactions) => {
            let mut list = to.reborrow().init_forget(transactions.len() as u32);
            transactions.iter().enumerate().for_each(|(i, id)| list.set(i as u32, *id));
        }
        _ => {}
    }
}

pub(crate) fn write_entry(from: &Entry, mut to: segment_entry::Builder<'_>) {
    to.set_id(from.id);
    to.set_rows(from.rows as u64);
    to.set_length(from.written.length);
    to.set_footer_checksum(from.written.footer_checksum);
    if !from.deleted.is_empty() {
        to.set_deleted(&bitmap_bytes(&from.deleted));
    }
    if let Some(numbers) = &from.columns {
        let mut columns = to.init_columns(numbers.len() as u32);
        numbers.iter().enumerate().for_each(|(i, number)| columns.set(i as u32, *number));
    }
}

/// The outer error is the message's, the inner one the content's.
pub(crate) fn read_entry(from: segment_entry::Reader<'_>) -> capnp::Result<std::result::Result<Entry, String>> {
    let rows = from.get_rows() as usize;
    if rows == 0 || rows > crate::MAX_SEGMENT_ROWS {
        return Ok(Err(format!("segment {} has {rows} rows", from.get_id())));
    }
    let deleted = match from.get_deleted()? {
        [] => RoaringBitmap::new(),
        bytes => match RoaringBitmap::deserialize_from(bytes) {
            Ok(deleted) if deleted.max().is_none_or(|last| (last as usize) < rows) => deleted,
            _ => return Ok(Err(format!("the deleted rows of segment {} cannot be read", from.get_id()))),
        },
    };
    let written = Written { length: from.get_length(), footer_checksum: from.get_footer_checksum() };
    let columns: Vec<u32> = from.get_columns()?.iter().collect();
    let columns = (!columns.is_empty()).then(|| columns.into());
    Ok(Ok(Entry { id: from.get_id(), rows, written, deleted, columns, segment: None }))
}

fn bitmap_bytes(bitmap: &RoaringBitmap) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(bitmap.serialized_size());
    // Writing to memory does not fail.
    let _ = bitmap.serialize_into(&mut bytes);
    bytes
}

pub(crate) fn treemap_bytes(bitmap: &RoaringTreemap) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(bitmap.serialized_size());
    // Writing to memory does not fail.
    let _ = bitmap.serialize_into(&mut bytes);
    bytes
}

/// The changes of a record's body; `Err` says what is wrong.
pub(crate) fn decode_changes(body: &[u8]) -> std::result::Result<Vec<Change>, String> {
    let damaged = |e: capnp::Error| format!("a record cannot be read ({e})");
    let mut options = ReaderOptions::new();
    options.traversal_limit_in_words(Some(body.len().saturating_mul(2)));
    let message = capnp::serialize::read_message(body, options).map_err(damaged)?;
    let record = message.get_root::<record::Reader<'_>>().map_err(damaged)?;
    record.get_changes().map_err(damaged)?.iter().map(|change| decode_change(change).map_err(damaged)?).collect()
}

/// The outer error is the message's, the inner one the content's.
fn decode_change(from: change::Reader<'_>) -> capnp::Result<std::result::Result<Change, String>> {
    let definition = |table: stoa_schema::manifest_capnp::table::Reader<'_>| {
        let partitions = table.get_partitions()?.len();
        Ok::<_, capnp::Error>((table.get_id(), read_definition(table, partitions)?.map(Arc::new)))
    };
    Ok(Ok(match from.which()? {
        change::CreateTable(table) => match definition(table?)? {
            (id, Ok(def)) => Change::CreateTable { id, def },
            (_, Err(what)) => return Ok(Err(what)),
        },
        change::DropTable(id) => Change::DropTable(id),
        change::CreateView(view) => {
            let view = view?;
            Change::CreateView { name: view.get_name()?.to_string()?, sql: view.get_sql()?.to_string()? }
        }
        change::DropView(name) => Change::DropView(name?.to_string()?),
        change::Insert(rows) => {
            let rows = rows?;
            let (table, partition) = (rows.get_table(), rows.get_partition() as usize);
            let rows = InsertedRows::stored(rows.get_rows()?, rows.get_batch()?, rows.get_body()?);
            Change::Insert { table, partition, rows }
        }
        change::Attach(attach) => {
            let attach = attach?;
            let segments = match attach.get_segments()?.iter().map(read_entry).collect::<capnp::Result<_>>()? {
                Ok(segments) => segments,
                Err(what) => return Ok(Err(what)),
            };
            Change::Attach { table: attach.get_table(), partition: attach.get_partition() as usize, segments }
        }
        change::Delete(delete) => {
            let delete = delete?;
            let Ok(rows) = RoaringTreemap::deserialize_from(delete.get_rows()?) else {
                return Ok(Err("deleted rows cannot be read".into()));
            };
            Change::Delete { table: delete.get_table(), partition: delete.get_partition() as usize, rows }
        }
        change::Rewrite(rewrite) => {
            let rewrite = rewrite?;
            let segments = match rewrite.get_segments()?.iter().map(read_entry).collect::<capnp::Result<_>>()? {
                Ok(segments) => segments,
                Err(what) => return Ok(Err(what)),
            };
            let removed = rewrite.get_removed()?.iter().collect();
            let (table, partition) = (rewrite.get_table(), rewrite.get_partition() as usize);
            Change::Rewrite { table, partition, through: rewrite.get_through(), removed, segments }
        }
        change::AlterTable(table) => match definition(table?)? {
            (id, Ok(def)) => Change::AlterTable { id, def },
            (_, Err(what)) => return Ok(Err(what)),
        },
        change::TruncateTable(id) => Change::TruncateTable(id),
        change::Prepare(prepared) => return decode_prepare(prepared?),
        change::Resolve(outcome) => {
            let outcome = outcome?;
            Change::Resolve { transaction: outcome.get_transaction(), commit: outcome.get_commit() }
        }
        change::Decide(outcome) => {
            let outcome = outcome?;
            Change::Decide { transaction: outcome.get_transaction(), commit: outcome.get_commit() }
        }
        change::Forget(transactions) => Change::Forget(transactions?.iter().collect()),
    }))
}

fn decode_prepare(from: prepared::Reader<'_>) -> capnp::Result<std::result::Result<Change, String>> {
    let changes: std::result::Result<Vec<Change>, String> =
        from.get_changes()?.iter().map(decode_prepared).collect::<capnp::Result<_>>()?;
    let (transaction, decider) = (from.get_transaction(), from.get_decider());
    Ok(changes.map(|changes| Change::Prepare { transaction, decider, changes }))
}

/// A change within a prepared transaction.
fn decode_prepared(from: change::Reader<'_>) -> capnp::Result<std::result::Result<Change, String>> {
    match from.which()? {
        change::Prepare(_) | change::Resolve(_) | change::Decide(_) | change::Forget(_) => {
            Ok(Err("a prepared transaction holds another one".into()))
        }
        _ => decode_change(from),
    }
}
