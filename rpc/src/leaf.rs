//! What a leaf offers, as blocking calls. A leaf implements it; [`crate::LeafPool`] gives it for leaves elsewhere.

use std::sync::Arc;
use std::time::Duration;

use crate::backup::{BackupPlace, BackupSetup, LeafBackup};
pub use crate::leaf_transaction::{InDoubt, LeafTransaction, NumberedRows, TransactionSetup};
use crate::replication::{FedCopy, Holdings, Orders, Position, Report};
use crate::{ChunkSink, Result, RowOrigin, Running};

/// A leaf.
pub trait LeafService: Send + Sync {
    /// What it has.
    ///
    /// # Errors
    /// If it is not there.
    fn status(&self) -> Result<Vec<DatabaseStatus>>;

    /// Prepares for the fragments of a query, which ends when what this returns is dropped.
    ///
    /// # Errors
    /// If the database is not here or the leaf has no room for another query.
    fn begin(&self, setup: QuerySetup) -> Result<Arc<dyn LeafQuery>>;

    /// Begins a query, starts the only fragment that it has here, and ends it with that.
    ///
    /// # Errors
    /// As [`LeafService::begin`].
    fn query(&self, setup: QuerySetup, fragment: FragmentRequest) -> Result<Running> {
        Ok(self.begin(setup)?.start(fragment))
    }

    /// How far a query is here: morsels that are done, and morsels of what has begun; nothing if the query is not here.
    ///
    /// # Errors
    /// If it does not answer.
    fn progress(&self, query: u64) -> Result<(u64, u64)>;

    /// Takes rows of another fragment for a query that has begun here; they count once [`Delivery::finish`] was called.
    ///
    /// # Errors
    /// If no such query has begun.
    fn receive(&self, query: u64, number: u32) -> Result<Box<dyn Delivery>>;

    /// Creates or drops something.
    ///
    /// # Errors
    /// If that cannot be; nothing has changed then.
    fn change(&self, change: Change) -> Result<()>;

    /// Takes rows for one partition of a table.
    ///
    /// # Errors
    /// If there is no such table or partition here.
    fn load(&self, database: &str, table: &str, ordinal: u32) -> Result<Box<dyn Load>>;

    /// Statistics of the tables of a database over these partitions: a message of `statistics.capnp`.
    ///
    /// # Errors
    /// If the database or a partition is not here.
    fn statistics(&self, database: &str, ordinals: &[u32]) -> Result<Vec<u8>>;

    /// Begins to change rows. Dropped before it is prepared or committed, the transaction has changed nothing.
    ///
    /// # Errors
    /// If the database or a partition is not here, or the leaf has no room for another transaction.
    fn begin_transaction(&self, setup: TransactionSetup) -> Result<Arc<dyn LeafTransaction>>;

    /// Makes what a transaction prepared in a partition, which counts from a moment on, or drops it. Nothing happens if it is not
    /// prepared, or was resolved before.
    ///
    /// # Errors
    /// If that cannot be stored, or others that come before it are in doubt.
    fn resolve(&self, database: &str, ordinal: u32, transaction: u64, commit: Option<u64>) -> Result<()>;

    /// Whether a transaction commits that a partition decides on, and from which moment it counts; one that it does not know never will
    /// from now on.
    ///
    /// # Errors
    /// If that cannot be stored.
    fn outcome(&self, database: &str, ordinal: u32, transaction: u64) -> Result<Option<u64>>;

    /// Forgets decisions of a partition that nobody will ask for any more.
    ///
    /// # Errors
    /// If that cannot be stored.
    fn forget(&self, database: &str, ordinal: u32, transactions: &[u64]) -> Result<()>;

    /// Transactions that are prepared here and whose outcome the leaf does not know.
    ///
    /// # Errors
    /// If it is not there.
    fn in_doubt(&self) -> Result<Vec<InDoubt>>;

    /// Flushes or merges the partitions of a table that are here.
    ///
    /// # Errors
    /// If there is no such table, or it cannot be written.
    fn optimize(&self, database: &str, table: &str, how: OptimizeHow) -> Result<()>;

    /// How each partition of each table of a database stands.
    ///
    /// # Errors
    /// If the database is not here.
    fn merge_status(&self, database: &str) -> Result<Vec<MergeStatus>>;

    /// Takes orders; how its copies stand.
    ///
    /// # Errors
    /// If it is not there.
    fn heartbeat(&self, orders: &Arc<Orders>) -> Result<Report>;

    /// The copy of a partition that is here, to be fed by the master of a term, and its last record. Whoever fed it before is refused.
    ///
    /// # Errors
    /// If the copy has a master of a later term, or is none that is fed.
    fn feed(&self, database: &str, ordinal: u32, term: u64) -> Result<(Arc<dyn FedCopy>, Position)>;

    /// Gives a copy of a partition up: its files go. Nothing happens if there is none.
    ///
    /// # Errors
    /// If the copy has a role.
    fn drop_partition(&self, database: &str, ordinal: u32) -> Result<()>;

    /// Begins a backup: commits to its partitions wait from now on, a few seconds at most.
    ///
    /// # Errors
    /// If a partition does not have its master here.
    fn backup(&self, setup: BackupSetup) -> Result<Arc<dyn LeafBackup>>;

    /// Makes a partition that is here, and empty, what it was in a backup.
    ///
    /// # Errors
    /// If it is not empty, or the backup cannot be read; it is empty then.
    fn restore(&self, database: &str, ordinal: u32, from: &BackupPlace) -> Result<()>;

    /// All that it has of which a catalog can be made again.
    ///
    /// # Errors
    /// If it cannot be read.
    fn holdings(&self) -> Result<Holdings>;
}

/// What is done to a table by [`LeafService::optimize`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptimizeHow {
    /// What the background would merge by and by.
    Merge,
    /// All segments of a partition into one run.
    Full,
    /// Rows in memory go to segments.
    Flush,
}

/// How a partition of a table stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeStatus {
    /// The table.
    pub table: String,
    /// The partition, or [`REFERENCE`].
    pub ordinal: u32,
    /// Its segments.
    pub segments: u64,
    /// Those that are to be merged.
    pub to_merge: u64,
    /// Rows that are in memory only.
    pub rows_in_memory: u64,
    /// Rows that are deleted and still take room.
    pub deleted_rows: u64,
    /// What happens to it: idle, flushing, merging, waiting, failed; empty if the leaf does not say.
    pub state: String,
    /// Why what was tried last failed; empty if it did not.
    pub error: String,
}

/// A query on a leaf. Calls may come from several threads at once.
pub trait LeafQuery: Send + Sync + 'static {
    /// Runs a fragment; its rows go to `sink` or to other leaves. Returns when they are there.
    ///
    /// # Errors
    /// Those of the fragment, of the other leaves, of the sink.
    fn run(&self, fragment: FragmentRequest, sink: &mut dyn ChunkSink) -> Result<RunProfile>;

    /// Starts a fragment: several are waited for by [`crate::gather`].
    fn start(self: Arc<Self>, fragment: FragmentRequest) -> Running {
        Running::beside(move |sink| self.run(fragment, sink))
    }

    /// Stops what runs, soon.
    fn cancel(&self);
}

/// Rows on their way to a query.
pub trait Delivery: ChunkSink + Send {
    /// No more will come.
    ///
    /// # Errors
    /// If the query has ended.
    fn finish(&mut self) -> Result<()>;
}

/// Rows on their way into a partition. Dropped before they are committed, nothing of them stays.
pub trait Load: Send {
    /// Takes a chunk. Without `origin` its rows follow those before, or nobody knows where they came from.
    ///
    /// # Errors
    /// If a row does not fit the table, or cannot be stored.
    fn write(&mut self, chunk: Vec<u8>, origin: Option<RowOrigin>) -> Result<()>;

    /// Makes all rows durable; none is visible yet.
    ///
    /// # Errors
    /// If they cannot be stored.
    fn prepare(&mut self) -> Result<()>;

    /// Makes all rows visible.
    ///
    /// # Errors
    /// If that cannot be stored; nothing is visible then.
    fn commit(&mut self) -> Result<()>;
}

/// The `ordinal` that names the copy of REFERENCE tables in [`LeafService::load`].
pub const REFERENCE: u32 = u32::MAX;

/// A database on a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseStatus {
    /// Its name.
    pub name: String,
    /// The partitions that are here.
    pub ordinals: Vec<u32>,
    /// Bytes of their segments.
    pub bytes: u64,
}

/// What a leaf must know of a query before its fragments come.
#[derive(Clone, Debug)]
pub struct QuerySetup {
    /// Its number, unique in the cluster.
    pub query: u64,
    /// The database whose tables it reads.
    pub database: String,
    /// The address by which others know this leaf.
    pub address: String,
    /// The partitions that this leaf reads.
    pub ordinals: Vec<u32>,
    /// What it reads is as it was at this moment, on all leaves; 0: as it is now.
    pub moment: u64,
}

/// A fragment to run.
#[derive(Clone, Debug)]
pub struct FragmentRequest {
    /// A message of `plan.capnp`.
    pub plan: Vec<u8>,
    /// Where the rows go.
    pub destination: RowDestination,
    /// Run-time filters that the plan names.
    pub filters: Vec<Filter>,
}

/// The keys of a run-time filter; see `leaf.capnp`.
#[derive(Clone, Debug)]
pub struct Filter {
    /// As the plan names it.
    pub id: u32,
    /// Smallest key.
    pub min: i64,
    /// Largest key.
    pub max: i64,
    /// How many keys.
    pub keys: u64,
    /// Which.
    pub members: FilterMembers,
}

/// The members of a [`Filter`].
#[derive(Clone, Debug)]
pub enum FilterMembers {
    /// All of its range.
    All,
    /// A bit a value of its range.
    Bits(Vec<u64>),
    /// A blocked Bloom filter: a power of two of words.
    Bloom(Vec<u64>),
}

/// Where the rows of a fragment go.
#[derive(Clone, Debug)]
pub enum RowDestination {
    /// Back to the caller.
    Caller,
    /// To all of these leaves, which receive them under this number.
    Leaves {
        /// The number.
        number: u32,
        /// Addresses, HOST:PORT.
        addresses: Vec<String>,
    },
    /// Each to one of these leaves, which receive them under this number.
    Shuffle {
        /// The number.
        number: u32,
        /// The columns by whose hash a row belongs to a partition, as positions.
        keys: Vec<u32>,
        /// Addresses, HOST:PORT.
        addresses: Vec<String>,
        /// For each partition the leaf that its rows go to, as a position in `addresses`.
        owners: Vec<u32>,
    },
}

/// What a fragment did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunProfile {
    /// Per plan node.
    pub nodes: Vec<NodeProfile>,
    /// Wall-clock time.
    pub wall: Duration,
    /// Most bytes that the query held.
    pub peak_memory: u64,
    /// Bytes of rows that it sent, to wherever they went.
    pub sent_bytes: u64,
}

/// What a plan node did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeProfile {
    /// Its number in the plan.
    pub node: u32,
    /// Rows that it gave.
    pub rows: u64,
    /// Batches that it gave.
    pub batches: u64,
    /// Time in it, summed over threads.
    pub cpu: Duration,
    /// Most bytes that it held.
    pub memory: u64,
    /// Segments, segments skipped, blocks, blocks skipped, blocks decided by an index, rows, rows selected, values decoded.
    pub scan: Option<[u64; 8]>,
    /// Strategies and the like.
    pub notes: Vec<String>,
}

/// A change of what a leaf has.
#[derive(Clone, Debug)]
pub enum Change {
    /// Makes partitions of a database, and the database if it is not there.
    CreatePartitions {
        /// The database.
        database: String,
        /// Their numbers.
        ordinals: Vec<u32>,
    },
    /// Drops a database with all that it has.
    DropDatabase(String),
    /// Makes a table in every partition of a database that is here.
    CreateTable {
        /// The database.
        database: String,
        /// A message of `manifest.capnp`'s Table.
        definition: Vec<u8>,
    },
    /// Drops a table, if it is there.
    DropTable {
        /// The database.
        database: String,
        /// The table.
        table: String,
    },
    /// Removes all rows of a table.
    TruncateTable {
        /// The database.
        database: String,
        /// The table.
        table: String,
    },
    /// Gives a table a later version of its definition; nothing happens where it has that, or a later one.
    AlterTable {
        /// The database.
        database: String,
        /// A message of `manifest.capnp`'s Table.
        definition: Vec<u8>,
    },
}
