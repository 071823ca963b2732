//! What a table is declared as, and the settings of a data directory.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::alter::Layout;
use crate::database::MergePace;
use crate::types::is_storable;
use crate::{Error, Result};

/// Most rows that a segment may have.
pub const MAX_SEGMENT_ROWS: usize = 1 << 20;

/// Most partitions that a table may have.
pub const MAX_PARTITIONS: u32 = 1 << 14;

/// Name of a field's metadata that holds the type as declared.
const SQL_TYPE: &str = "stoa.type";
/// Name of the metadata of rows on their way that holds the revision of the definition that they are of.
const REVISION: &str = "stoa.revision";

/// Whether a column has a bitmap per distinct value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BitmapIndex {
    /// Where the writer finds that it is small beside the column itself.
    #[default]
    Auto,
    /// In every segment with few enough distinct values, whatever its size.
    Declared,
    /// Never.
    None,
}

/// A column as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDef {
    /// Its name, as written.
    pub name: String,
    /// Its canonical Arrow type.
    pub ty: DataType,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Its bitmap index.
    pub bitmap_index: BitmapIndex,
    /// Its type as declared in SQL, e.g. `VARCHAR(25)`.
    pub sql_type: String,
}

impl ColumnDef {
    /// The most characters of a string (bytes of a binary value) that the declared type allows, as `VARCHAR(25)` does.
    #[must_use]
    pub fn max_length(&self) -> Option<usize> {
        if !matches!(self.ty, DataType::Utf8View | DataType::Binary) {
            return None;
        }
        let (_, length) = self.sql_type.split_once('(')?;
        length[..length.find(|c: char| !c.is_ascii_digit())?].parse().ok()
    }
}

/// Columns whose values no two rows share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UniqueKey {
    /// Its name; `PRIMARY` is that of the primary key.
    pub name: String,
    /// Ordinals of its columns; the shard key's are among them.
    pub columns: Vec<u32>,
}

/// A table as declared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableDef {
    /// Its name, as written; names are compared without regard to case.
    pub name: String,
    /// Its columns.
    pub columns: Vec<ColumnDef>,
    /// Ordinals of the columns whose hash chooses a row's partition. None: batches go round robin.
    pub shard_key: Vec<u32>,
    /// Ordinals of the columns that every segment is sorted by.
    pub sort_key: Vec<u32>,
    /// Its unique keys; the primary key is the first.
    pub unique_keys: Vec<UniqueKey>,
    /// Whether every leaf has the whole table; it has one partition then.
    pub reference: bool,
    /// Number of partitions; 0 takes the data directory's default.
    pub partitions: u32,
    /// Which columns of the stored rows its columns are; the default for a new table.
    pub layout: Layout,
}

impl TableDef {
    /// The ordinal of a column, by its name without regard to case.
    #[must_use]
    pub fn ordinal(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name))
    }

    /// The table's columns as an Arrow schema of canonical types.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        let fields: Vec<Field> = self.columns.iter().map(|c| Field::new(&c.name, c.ty.clone(), c.nullable)).collect();
        Arc::new(Schema::new(fields))
    }

    /// [`TableDef::schema`] with the types as declared in the fields' metadata, for those who send rows.
    #[must_use]
    pub fn described_schema(&self) -> SchemaRef {
        let field = |c: &ColumnDef| {
            let metadata = [(SQL_TYPE.to_owned(), c.sql_type.clone())];
            Field::new(&c.name, c.ty.clone(), c.nullable).with_metadata(metadata.into())
        };
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }

    /// A table of the columns that [`TableDef::described_schema`] gave, as far as those who send rows need it.
    #[must_use]
    pub fn from_described(name: &str, schema: &Schema) -> TableDef {
        let column = |field: &Arc<Field>| ColumnDef {
            name: field.name().clone(),
            ty: field.data_type().clone(),
            nullable: field.is_nullable(),
            bitmap_index: BitmapIndex::Auto,
            sql_type: field.metadata().get(SQL_TYPE).cloned().unwrap_or_default(),
        };
        let columns = schema.fields().iter().map(column).collect();
        TableDef { name: name.to_owned(), columns, ..TableDef::default() }
    }

    /// Rows of this table's columns that say so, for [`TableDef::check_rows`] where they arrive.
    ///
    /// # Errors
    /// If they are not of these columns.
    pub fn marked(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let metadata = [(REVISION.to_owned(), self.revision().to_string())].into();
        let schema = Schema::clone(&rows.schema()).with_metadata(metadata);
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::new(schema), rows.columns().to_vec(), &options)?)
    }

    /// Refuses rows of another definition of the table; those that do not say are of any.
    ///
    /// # Errors
    /// [`Error::Altered`].
    pub fn check_rows(&self, rows: &RecordBatch) -> Result<()> {
        let schema = rows.schema();
        let revision = schema.metadata().get(REVISION).map(|text| text.parse().map_err(|_| Error::Altered(self.name.clone())));
        self.check_revision(revision.transpose()?.unwrap_or(0))
    }

    /// Refuses a definition that cannot be stored.
    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |what: String| Err(Error::Invalid(format!("table '{}': {what}", self.name)));
        if self.name.is_empty() {
            return invalid("a table needs a name".into());
        }
        if self.columns.is_empty() {
            return invalid("a table needs at least one column".into());
        }
        for (i, column) in self.columns.iter().enumerate() {
            if !is_storable(&column.ty) {
                return invalid(format!("column '{}' has type {}, which cannot be stored", column.name, column.ty));
            }
            if self.columns[..i].iter().any(|c| c.name.eq_ignore_ascii_case(&column.name)) {
                return invalid(format!("column '{}' is there twice", column.name));
            }
        }
        let unique = self.unique_keys.iter().map(|key| (key.name.as_str(), &key.columns));
        for (what, key) in [("SHARD KEY", &self.shard_key), ("SORT KEY", &self.sort_key)].into_iter().chain(unique) {
            for (i, &ordinal) in key.iter().enumerate() {
                if ordinal as usize >= self.columns.len() || key[..i].contains(&ordinal) {
                    return invalid(format!("{what} names a column that is not there, or one twice"));
                }
            }
        }
        for key in &self.unique_keys {
            if !self.reference && (self.shard_key.is_empty() || self.shard_key.iter().any(|c| !key.columns.contains(c))) {
                return invalid(format!("unique key '{}' must contain the columns of the SHARD KEY", key.name));
            }
        }
        if let Err(what) = self.check_layout() {
            return invalid(what);
        }
        if self.partitions > MAX_PARTITIONS {
            return invalid(format!("{} partitions are more than the most, {MAX_PARTITIONS}", self.partitions));
        }
        Ok(())
    }
}

/// When a commit of rows counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When the log is on disk.
    #[default]
    Sync,
    /// When the operating system has it: a crash of the machine may lose the last tenth of a second, wholly and from the end.
    Async,
}

/// Settings of an open data directory. They do not change what is stored already.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rows of a full segment, 1 to [`MAX_SEGMENT_ROWS`]. `STOA_SEGMENT_ROWS`.
    pub segment_rows: usize,
    /// Partitions of a table that does not say. `STOA_PARTITIONS`; otherwise one a core.
    pub default_partitions: u32,
    /// Rows in memory of a partition that make the flusher seal them into a segment. `STOA_FLUSH_ROWS`.
    pub flush_rows: usize,
    /// Bytes of rows in memory of a partition that do so.
    pub flush_bytes: usize,
    /// Bytes of rows that one merge has in memory at most, as long as a single segment is not larger. `STOA_MERGE_BYTES`.
    pub merge_bytes: u64,
    /// How background merges rest, together with all directories that are opened with a clone of these. `STOA_MERGE_REST`.
    pub merge_pace: MergePace,
    /// Bytes of the log that make a checkpoint. `STOA_CHECKPOINT_BYTES`.
    pub checkpoint_bytes: u64,
    /// Flushes, merges and writes a manifest after every commit, before it returns: for tests. `STOA_EAGER_MAINTENANCE=1`.
    pub eager_maintenance: bool,
    /// When commits of rows are acknowledged; all others are when they are on disk. `STOA_DURABILITY=async`.
    pub durability: Durability,
    /// How long states stay that are not the newest any more, for readers of several directories ([`crate::Database::snapshot_at`]).
    pub keep_shown: Duration,
    /// Whether commits wait for the disk. Only tests that open thousands of directories turn it off. `STOA_FSYNC=0`.
    pub fsync: bool,
}

impl Default for Options {
    fn default() -> Options {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        Options {
            segment_rows: MAX_SEGMENT_ROWS,
            default_partitions: cores,
            flush_rows: 1 << 16,
            flush_bytes: 64 << 20,
            merge_bytes: 256 << 20,
            merge_pace: MergePace::resting(1.0),
            checkpoint_bytes: 256 << 20,
            eager_maintenance: false,
            durability: Durability::Sync,
            keep_shown: Duration::ZERO,
            fsync: true,
        }
    }
}

impl Options {
    /// The defaults, overridden by the environment.
    #[must_use]
    pub fn from_env() -> Options {
        let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<usize>().ok()).filter(|n| *n > 0);
        let defaults = Options::default();
        Options {
            segment_rows: number("STOA_SEGMENT_ROWS").map_or(defaults.segment_rows, |n| n.min(MAX_SEGMENT_ROWS)),
            default_partitions: number("STOA_PARTITIONS")
                .map_or(defaults.default_partitions, |n| n.min(MAX_PARTITIONS as usize) as u32),
            flush_rows: number("STOA_FLUSH_ROWS").unwrap_or(defaults.flush_rows),
            flush_bytes: defaults.flush_bytes,
            merge_bytes: number("STOA_MERGE_BYTES").map_or(defaults.merge_bytes, |n| n as u64),
            merge_pace: match std::env::var("STOA_MERGE_REST").ok().and_then(|v| v.parse().ok()) {
                Some(rest) => MergePace::resting(rest),
                None => defaults.merge_pace,
            },
            checkpoint_bytes: number("STOA_CHECKPOINT_BYTES").map_or(defaults.checkpoint_bytes, |n| n as u64),
            eager_maintenance: std::env::var("STOA_EAGER_MAINTENANCE").is_ok_and(|v| v == "1"),
            durability: match std::env::var("STOA_DURABILITY") {
                Ok(word) if word.eq_ignore_ascii_case("async") => Durability::Async,
                _ => defaults.durability,
            },
            keep_shown: defaults.keep_shown,
            fsync: std::env::var("STOA_FSYNC").map_or(defaults.fsync, |v| v != "0"),
        }
    }
}
