//! A leaf that writes down what it is asked.

use std::sync::Arc;

use parking_lot::Mutex;
use stoa_rpc::backup::{BackupPlace, BackupSetup, Copied, FrozenPartition, LeafBackup};
use stoa_rpc::leaf::{
    Change, DatabaseStatus, Delivery, InDoubt, LeafQuery, LeafService, LeafTransaction, Load, MergeStatus, OptimizeHow,
    QuerySetup, TransactionSetup,
};
use stoa_rpc::replication::{FedCopy, Holdings, Orders, Position, Record, Report};
use stoa_rpc::{Failure, FailureKind, Result, RowOrigin};

/// See the module.
#[derive(Clone, Default)]
pub struct Scribe(pub Arc<Mutex<Vec<String>>>);

impl Scribe {
    fn note<T: Default>(&self, what: impl std::fmt::Debug) -> Result<T> {
        self.0.lock().push(format!("{what:?}"));
        Ok(T::default())
    }
}

fn not_asked<T>() -> Result<T> {
    Err(Failure::new(FailureKind::Fatal, "nobody asks this"))
}

impl LeafService for Scribe {
    fn status(&self) -> Result<Vec<DatabaseStatus>> {
        Ok(vec![])
    }

    fn begin(&self, _: QuerySetup) -> Result<Arc<dyn LeafQuery>> {
        not_asked()
    }

    fn progress(&self, query: u64) -> Result<(u64, u64)> {
        self.note(("progress", query))
    }

    fn receive(&self, _: u64, _: u32) -> Result<Box<dyn Delivery>> {
        not_asked()
    }

    fn change(&self, change: Change) -> Result<()> {
        self.note(change)
    }

    fn load(&self, database: &str, table: &str, ordinal: u32) -> Result<Box<dyn Load>> {
        self.note::<()>(("load", database, table, ordinal))?;
        Ok(Box::new(self.clone()))
    }

    fn statistics(&self, database: &str, ordinals: &[u32]) -> Result<Vec<u8>> {
        self.note(("statistics", database, ordinals))
    }

    fn begin_transaction(&self, _: TransactionSetup) -> Result<Arc<dyn LeafTransaction>> {
        not_asked()
    }

    fn resolve(&self, database: &str, ordinal: u32, transaction: u64, commit: Option<u64>) -> Result<()> {
        self.note(("resolve", database, ordinal, transaction, commit))
    }

    fn outcome(&self, database: &str, ordinal: u32, transaction: u64) -> Result<Option<u64>> {
        self.note(("outcome", database, ordinal, transaction))
    }

    fn forget(&self, database: &str, ordinal: u32, transactions: &[u64]) -> Result<()> {
        self.note(("forget", database, ordinal, transactions))
    }

    fn in_doubt(&self) -> Result<Vec<InDoubt>> {
        Ok(vec![])
    }

    fn optimize(&self, database: &str, table: &str, how: OptimizeHow) -> Result<()> {
        self.note(("optimize", database, table, how))
    }

    fn merge_status(&self, database: &str) -> Result<Vec<MergeStatus>> {
        self.note(("merge_status", database))
    }

    fn heartbeat(&self, orders: &Arc<Orders>) -> Result<Report> {
        self.note(orders)
    }

    fn feed(&self, database: &str, ordinal: u32, term: u64) -> Result<(Arc<dyn FedCopy>, Position)> {
        self.note::<()>(("feed", database, ordinal, term))?;
        Ok((Arc::new(self.clone()), Position::default()))
    }

    fn drop_partition(&self, database: &str, ordinal: u32) -> Result<()> {
        self.note(("drop_partition", database, ordinal))
    }

    fn backup(&self, setup: BackupSetup) -> Result<Arc<dyn LeafBackup>> {
        self.note::<()>(setup)?;
        Ok(Arc::new(self.clone()))
    }

    fn restore(&self, database: &str, ordinal: u32, from: &BackupPlace) -> Result<()> {
        self.note(("restore", database, ordinal, from))
    }

    fn holdings(&self) -> Result<Holdings> {
        self.note("holdings")
    }
}

impl FedCopy for Scribe {
    fn write(&self, records: Vec<Record>) -> Result<Position> {
        self.note(records)
    }

    fn file(&self, name: &str, data: Vec<u8>, last: bool) -> Result<()> {
        self.note(("file", name, data, last))
    }

    fn copy_anew(&self) -> Result<()> {
        self.note("copy_anew")
    }

    fn finish_copy(&self) -> Result<Position> {
        self.note("finish_copy")
    }
}

impl LeafBackup for Scribe {
    fn freeze(&self) -> Result<Vec<FrozenPartition>> {
        self.note("freeze")
    }

    fn committed(&self, ordinal: u32, transactions: &[u64]) -> Result<Vec<u64>> {
        self.note(("committed", ordinal, transactions))
    }

    fn copy(&self, ordinal: u32, to: &BackupPlace, anew: bool, committed: &[u64]) -> Result<Copied> {
        self.note(("copy", ordinal, to, anew, committed))
    }

    fn cancel(&self) {}
}

impl Load for Scribe {
    fn write(&mut self, chunk: Vec<u8>, origin: Option<RowOrigin>) -> Result<()> {
        self.note(("load write", chunk, origin))
    }

    fn prepare(&mut self) -> Result<()> {
        self.note("load prepare")
    }

    fn commit(&mut self) -> Result<()> {
        self.note("load commit")
    }
}
