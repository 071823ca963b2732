//! Compressed column segments on disk: encodings, zone maps, bitmap indexes, partitions, the data directory.
//!
//! A [`Database`] is one locked data directory with a catalog of tables and a log of commits. A [`Table`] is an immutable snapshot: per
//! [`Partition`] a list of [`Segment`]s, each one mmapped file of up to 2^20 rows, with the rows that are deleted, and the rows that
//! are in memory only. A [`Column`] of a segment filters and reads itself in its encoded
//! form. Rows are addressed in blocks of [`BLOCK_ROWS`].
//!
//! Column types are the canonical Arrow types of the plan (`Utf8View` for strings, `Decimal64` up to 18 digits, `Decimal128` above,
//! `Date32`, `Timestamp(Microsecond)`, `Binary`, integers, floats, `Boolean`).

mod address;
mod alter;
mod bitmap_index;
mod checksum;
mod clock;
mod database;
mod definition;
pub mod disk;
pub mod encoding;
mod error;
mod keys;
mod log;
mod memory;
mod native;
pub mod predicate;
mod segment;
mod sharding;
mod sketch;
mod statistics;
mod summary;
mod table;
mod types;
mod writer;
mod zone;

pub use address::{address_in_partition, partition_of_address};
pub use alter::{AlterTable, Layout};
pub use bitmap_index::ValueIndex;
pub use checksum::checksum;
pub use clock::{Clock, MAX_MOMENT};
pub use database::{
    BackupFile, BackupSource, CheckReport, CopyReceiver, CopySource, Damage, Database, FORMAT_VERSION, FileReceiver, Hold,
    LogRecord, MergePace, MergeState, MergeStatus, Position, Replication, Savepoint, SegmentFile, Snapshot, Transaction,
    decode_definition, encode_definition, lock_file,
};
pub use definition::{BitmapIndex, ColumnDef, Durability, MAX_PARTITIONS, MAX_SEGMENT_ROWS, Options, TableDef, UniqueKey};
pub use encoding::{Encoded, EncodedColumn, Encoding, PreparedPredicate, encode, encode_as};
pub use error::{Error, Result};
pub use predicate::{Datum, KeySet, Predicate};
pub use segment::{Column, ColumnInfo, FilterCounters, PreparedFilter, Segment};
pub use sharding::{partition_of, rows_by_partition, shard_hashes};
pub use sketch::Sketch;
pub use statistics::{ColumnStatistics, TableStatistics};
pub use table::{Partition, Scanned, Stored, Table};
pub use types::is_storable;
pub use writer::{Origin, RowNames, RowNumbers, TableWriter, conform};
pub use zone::{Verdict, Zone};

/// Rows of a block, the unit of zone maps, bit-packing and random access.
pub const BLOCK_ROWS: usize = 1024;
