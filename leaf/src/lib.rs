//! A leaf: the partitions that it stores, the fragments of queries that it runs over them.
//!
//! ```text
//! DIR/LOCK
//! DIR/catalog                            the last catalog that the coordinators gave it to keep
//! DIR/databases/<database>/<ordinal>/    a data directory for each copy of a partition; `<ordinal>-<n>` when it was made anew
//! DIR/databases/<database>/reference/    one for the leaf's copy of the REFERENCE tables
//! ```
//!
//! A partition is a data directory of its own, so that it can be made, dropped, copied and moved without the others. To a query the
//! partitions that it was told to read look like one table. What the module keeps true:
//! - A query ends, and what it holds here is freed, when whoever began it lets it go: by choice or because its connection broke.
//! - Its memory, rows from other leaves included, is within one budget; going past it is that query's error.

mod backup;
mod databases;
mod kept;
mod load;
mod partition;
mod query;
mod received;
mod replication;
mod routes;
mod runner;
mod transaction;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use stoa_columnstore::{Options, lock_file};
use stoa_exec::{Admission, AdmissionLimits, Settings};
use stoa_plan::codec::encode_statistics;
use stoa_rpc::backup::{BackupPlace, BackupSetup, LeafBackup};
use stoa_rpc::leaf::{
    Change, DatabaseStatus, Delivery, InDoubt, LeafQuery, LeafService, LeafTransaction, Load, MergeStatus, OptimizeHow,
    QuerySetup, TransactionSetup,
};
use stoa_rpc::replication::{FedCopy, Holdings, Orders, Position, Report};
use stoa_rpc::{Failure, FailureKind, LeafPool, Result};

use databases::Databases;
use kept::Kept;
pub use kept::kept_catalog;
pub use partition::parse_folder;
pub use replication::{FedCopies, is_lost, report_lost};
use replication::{Outlet, Pace, Receiving};
use runner::Runner;

/// How a leaf is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Worker threads of all queries together.
    pub threads: usize,
    /// Bytes that all queries may hold here together.
    pub memory_limit: usize,
    /// Bytes that one query may hold here.
    pub query_memory: usize,
    /// How many queries may be here.
    pub queries: AdmissionLimits,
    /// Settings of queries.
    pub settings: Settings,
    /// Settings of storage.
    pub storage: Options,
    /// Bytes a second of copies of partitions that are made anew on other leaves, all together; `None`: as fast as it goes.
    pub copy_rate: Option<u64>,
}

/// A leaf.
pub struct Leaf {
    databases: Databases,
    runner: Arc<Runner>,
    /// Leads to the other copies of partitions.
    outlet: Arc<Outlet>,
    /// Another one after every start.
    incarnation: u64,
    heard: Mutex<Heard>,
    kept: Arc<Kept>,
    /// Locked as long as the leaf lives.
    _lock: File,
}

/// What this leaf heard from the coordinator that leads, and told it.
#[derive(Default)]
struct Heard {
    /// The version of the orders that are kept to.
    version: u64,
    /// The last report.
    sequence: u64,
    /// When it last got orders.
    at: Option<Instant>,
}

impl Leaf {
    /// Opens the directory of a leaf, or makes one. `peers` leads to the other leaves for queries, `copies` to feed their copies of
    /// partitions.
    ///
    /// # Errors
    /// If another process has it, or a partition in it cannot be read.
    pub fn open(directory: &Path, setup: Setup, peers: LeafPool, copies: LeafPool) -> Result<Leaf> {
        let lock = lock(directory)?;
        let databases = Databases::open(&directory.join("databases"), &setup.storage)?;
        let kept = Kept::open(directory, setup.storage.fsync);
        let outlet = Arc::new(Outlet { peers: copies, pace: Pace::new(setup.copy_rate) });
        let runner = Arc::new(Runner::new(setup, peers)?);
        // Later than that of any process that had the directory before.
        let incarnation = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_micros() as u64);
        Ok(Leaf { databases, runner, outlet, incarnation, heard: Mutex::default(), kept, _lock: lock })
    }

    /// Which queries are here, and the memory of all of them.
    #[must_use]
    pub fn admission(&self) -> &Arc<Admission> {
        &self.runner.admission
    }

    /// Ends the queries that are here.
    pub fn cancel_all(&self) {
        self.runner.cancel_all();
    }
}

fn lock(directory: &Path) -> Result<File> {
    let made = std::fs::create_dir_all(directory);
    made.map_err(|e| Failure::new(FailureKind::Fatal, format!("{}: {e}", directory.display())))?;
    lock_file(&directory.join("LOCK")).map_err(|e| storage_failure(&e))?.ok_or_else(|| {
        Failure::new(FailureKind::User, format!("another process has the data directory {} open", directory.display()))
    })
}

impl LeafService for Leaf {
    fn status(&self) -> Result<Vec<DatabaseStatus>> {
        Ok(self.databases.status())
    }

    fn begin(&self, setup: QuerySetup) -> Result<Arc<dyn LeafQuery>> {
        let tables = self.databases.tables(&setup.database, &setup.ordinals, setup.moment)?;
        self.runner.begin(setup, tables)
    }

    fn progress(&self, query: u64) -> Result<(u64, u64)> {
        Ok(self.runner.query(query).map_or((0, 0), |query| query.progress()))
    }

    fn receive(&self, query: u64, number: u32) -> Result<Box<dyn Delivery>> {
        Ok(Box::new(received::Incoming::new(self.runner.query(query)?, number)))
    }

    fn change(&self, change: Change) -> Result<()> {
        match change {
            Change::CreatePartitions { database, ordinals } => self.databases.create(&database, &ordinals),
            Change::DropDatabase(name) => self.databases.drop_database(&name),
            Change::CreateTable { database, definition } => self.databases.create_table(&database, &definition),
            Change::DropTable { database, table } => self.databases.drop_table(&database, &table),
            Change::TruncateTable { database, table } => self.databases.truncate_table(&database, &table),
            Change::AlterTable { database, definition } => self.databases.alter_table(&database, &definition),
        }
    }

    fn load(&self, database: &str, table: &str, ordinal: u32) -> Result<Box<dyn Load>> {
        let partition = self.databases.partition(database, ordinal)?;
        let writer = partition.writer(table).map_err(|e| storage_failure(&e))?;
        Ok(Box::new(load::PartitionLoad::new(writer, None, self.runner.pool.clone())))
    }

    fn statistics(&self, database: &str, ordinals: &[u32]) -> Result<Vec<u8>> {
        let summaries = self.databases.tables(database, ordinals, 0)?.summaries();
        encode_statistics(&summaries).map_err(|e| Failure::new(FailureKind::Fatal, e.to_string()))
    }

    fn begin_transaction(&self, setup: TransactionSetup) -> Result<Arc<dyn LeafTransaction>> {
        let parts = self.databases.parts(&setup.database)?;
        Ok(Arc::new(transaction::Transaction::begin(setup, &parts, &self.runner)?))
    }

    fn resolve(&self, database: &str, ordinal: u32, transaction: u64, commit: Option<u64>) -> Result<()> {
        self.databases.partition(database, ordinal)?.resolve(transaction, commit).map_err(|e| storage_failure(&e))
    }

    fn outcome(&self, database: &str, ordinal: u32, transaction: u64) -> Result<Option<u64>> {
        self.databases.partition(database, ordinal)?.outcome(transaction).map_err(|e| storage_failure(&e))
    }

    fn forget(&self, database: &str, ordinal: u32, transactions: &[u64]) -> Result<()> {
        self.databases.partition(database, ordinal)?.forget(transactions).map_err(|e| storage_failure(&e))
    }

    fn in_doubt(&self) -> Result<Vec<InDoubt>> {
        Ok(self.databases.in_doubt())
    }

    fn optimize(&self, database: &str, table: &str, how: OptimizeHow) -> Result<()> {
        self.runner.pool.install(|| self.databases.optimize(database, table, how))
    }

    fn merge_status(&self, database: &str) -> Result<Vec<MergeStatus>> {
        self.databases.merge_status(database)
    }

    fn heartbeat(&self, orders: &Arc<Orders>) -> Result<Report> {
        let mut heard = self.heard.lock();
        let supersedes = orders.supersedes > 0 && orders.supersedes == heard.version;
        if orders.version >= heard.version.max(1) || supersedes {
            let (incarnation, sequence) = orders.processed;
            let processed = if incarnation == self.incarnation { sequence } else { 0 };
            self.databases.order(orders, processed, &self.outlet);
            heard.version = orders.version;
            if !orders.catalog.is_empty() {
                self.kept.keep(orders.version, orders.catalog.clone());
            }
        }
        heard.at = Some(Instant::now());
        heard.sequence += 1;
        let copies = self.databases.report(heard.sequence);
        let (free, rate, kept) = (self.databases.free(), self.outlet.pace.rate(), self.kept.version());
        Ok(Report { incarnation: self.incarnation, sequence: heard.sequence, version: heard.version, copies, free, rate, kept })
    }

    fn feed(&self, database: &str, ordinal: u32, term: u64) -> Result<(Arc<dyn FedCopy>, Position)> {
        let copy = self.databases.copy(database, ordinal)?;
        let (feeder, position) = copy.feed(term)?;
        Ok((Arc::new(Receiving::new(copy, feeder)), position))
    }

    fn drop_partition(&self, database: &str, ordinal: u32) -> Result<()> {
        self.databases.drop_partition(database, ordinal)
    }

    fn backup(&self, setup: BackupSetup) -> Result<Arc<dyn LeafBackup>> {
        let parts = self.databases.parts(&setup.database)?;
        Ok(Arc::new(backup::Backup::begin(&setup, &parts)?))
    }

    fn restore(&self, database: &str, ordinal: u32, from: &BackupPlace) -> Result<()> {
        backup::restore(&self.databases.without_role(database, ordinal)?, ordinal, from)
    }

    fn holdings(&self) -> Result<Holdings> {
        let silent = self.heard.lock().at.map_or(Duration::MAX, |at| at.elapsed());
        Ok(Holdings { catalog: self.kept.catalog(), copies: self.databases.held(), silent })
    }
}

/// A storage error as a failure of a call.
fn storage_failure(error: &stoa_columnstore::Error) -> Failure {
    use stoa_columnstore::Error;
    let kind = match error {
        Error::Conflict(_) => FailureKind::Conflict,
        Error::DuplicateKey(_) => FailureKind::DuplicateKey,
        Error::Altered(_) => FailureKind::Altered,
        Error::NotMaster(_) | Error::Unsettled(_) | Error::Passed { .. } => FailureKind::Retryable,
        error if error.is_users() => FailureKind::User,
        _ => FailureKind::Fatal,
    };
    let moment = if let Error::Passed { first } = error { *first } else { 0 };
    Failure { moment, ..Failure::new(kind, error.to_string()) }
}

/// An error of execution as a failure of a call.
#[allow(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn failure(error: stoa_exec::Error) -> Failure {
    use stoa_exec::error::Severity;
    let kind = match &error {
        stoa_exec::Error::Memory { .. } => FailureKind::Memory,
        stoa_exec::Error::Cancelled => FailureKind::Cancelled,
        stoa_exec::Error::Storage(stoa_columnstore::Error::Altered(_)) => FailureKind::Altered,
        other => match other.severity() {
            Severity::User => FailureKind::User,
            Severity::Retryable => FailureKind::Retryable,
            Severity::Fatal => FailureKind::Fatal,
        },
    };
    Failure::new(kind, error.to_string())
}
