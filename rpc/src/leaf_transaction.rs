//! The part of a transaction that is on a leaf.

use std::sync::Arc;

use crate::Result;
use crate::leaf::{LeafQuery, Load};

/// Changes of rows on a leaf. What is said to be of an ordinal may be of [`crate::leaf::REFERENCE`]. Calls come one after the other.
pub trait LeafTransaction: Send + Sync {
    /// A query, of this number, that sees what the transaction sees now.
    ///
    /// # Errors
    /// If the leaf has no room for another query.
    fn query(&self, query: u64) -> Result<Arc<dyn LeafQuery>>;

    /// Adds rows.
    ///
    /// # Errors
    /// If a row does not fit or has a unique key that is there. Nothing was added then.
    fn insert(&self, table: &str, ordinal: u32, rows: NumberedRows) -> Result<()>;

    /// Deletes rows, all of one partition.
    ///
    /// # Errors
    /// If a row is not there.
    fn delete(&self, table: &str, ordinal: u32, addresses: &[u64]) -> Result<()>;

    /// Deletes rows by their values, as many as the chunk has.
    ///
    /// # Errors
    /// If a row is not there.
    fn delete_rows(&self, table: &str, ordinal: u32, chunk: Vec<u8>) -> Result<()>;

    /// Takes many rows, which are of the transaction once the load is prepared. The transaction commits them, not the load, and does
    /// nothing else with the table there.
    ///
    /// # Errors
    /// If there is no such table or partition here.
    fn load(&self, table: &str, ordinal: u32) -> Result<Box<dyn Load>>;

    /// Removes all rows of a table, those too that others add until the commit.
    ///
    /// # Errors
    /// If there is no such table.
    fn truncate(&self, table: &str, ordinal: u32) -> Result<()>;

    /// Which of these rows have a unique key that is there: the place in the chunk, and the address of the row that is there.
    ///
    /// # Errors
    /// If two of the rows have the same key.
    fn duplicates(&self, table: &str, ordinal: u32, rows: NumberedRows) -> Result<Vec<(u32, u64)>>;

    /// Rows by their addresses, in that order, as a chunk.
    ///
    /// # Errors
    /// If a row is not there.
    fn read(&self, table: &str, ordinal: u32, addresses: &[u64]) -> Result<Vec<u8>>;

    /// Begins a statement.
    ///
    /// # Errors
    /// If the transaction has ended.
    fn savepoint(&self) -> Result<()>;

    /// Undoes what the statement did.
    ///
    /// # Errors
    /// If the transaction has ended.
    fn undo(&self) -> Result<()>;

    /// Makes the changes of some partitions last, to be resolved; `decider` is the partition that will decide. The earliest moment from
    /// which they may count; 0: there are none.
    ///
    /// # Errors
    /// If another transaction came first. Some may be prepared then: they must be resolved.
    fn prepare(&self, ordinals: &[u32], decider: u32) -> Result<u64>;

    /// Commits the changes of one partition; `deciding`: and with them the transaction everywhere. `prepared` is the latest moment that
    /// [`LeafTransaction::prepare`] gave, 0 without any. The moment from which the transaction counts.
    ///
    /// # Errors
    /// If another transaction came first, or the transaction was given up.
    fn commit(&self, ordinal: u32, deciding: bool, prepared: u64) -> Result<u64>;
}

/// What a leaf must know of a transaction.
#[derive(Clone, Debug)]
pub struct TransactionSetup {
    /// Its number, unique in the cluster for ever.
    pub transaction: u64,
    /// The database whose rows it changes.
    pub database: String,
    /// The address by which others know this leaf.
    pub address: String,
    /// The partitions that it may read and change here.
    pub ordinals: Vec<u32>,
    /// What it sees is as it was at this moment; 0: as it is now.
    pub moment: u64,
    /// It reads nothing: what it sees matters only when it prepares or commits.
    pub blind: bool,
}

/// Rows, each with its number in messages.
#[derive(Clone, Debug)]
pub struct NumberedRows {
    /// An Arrow IPC stream.
    pub chunk: Vec<u8>,
    /// As many as rows.
    pub numbers: Vec<u32>,
}

/// A transaction that is prepared in a partition and not resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InDoubt {
    /// The database.
    pub database: String,
    /// The partition that waits, or [`crate::leaf::REFERENCE`].
    pub ordinal: u32,
    /// The transaction.
    pub transaction: u64,
    /// The partition that decides.
    pub decider: u32,
}
