//! What a session needs of the place where the tables are.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use stoa_columnstore::{AlterTable, MergeStatus, Table, TableDef};
use stoa_exec::{CancelToken, Profile, Progress, QueryResult, TakeResult};
use stoa_plan::{Query, TableStatistics};

use stoa_sql::{ClusterStatement, Optimize, Statement, UserStatement};

use crate::retry::RetryLimit;
use crate::session::{PlanBasis, Plans};
use crate::{Error, Outcome, Result};

/// Tables, views, and who runs queries over them.
pub trait Store: Send + Sync {
    /// The definition of a table; names are compared without regard to case.
    fn table(&self, name: &str) -> Option<Arc<TableDef>>;

    /// All tables.
    fn tables(&self) -> Vec<Arc<TableDef>>;

    /// All views: name and text.
    fn views(&self) -> Vec<(String, String)>;

    /// What the optimizer asks for, as far as it is known.
    fn statistics(&self, table: &str) -> Option<TableStatistics>;

    /// Bytes on disk of a table.
    fn bytes(&self, table: &str) -> u64;

    /// Makes a table.
    ///
    /// # Errors
    /// If a table or view of this name is there, or it cannot be stored.
    fn create_table(&self, def: TableDef) -> Result<()>;

    /// Drops a table.
    ///
    /// # Errors
    /// If there is none and `if_exists` is not set.
    fn drop_table(&self, name: &str, if_exists: bool) -> Result<()>;

    /// Makes a view.
    ///
    /// # Errors
    /// If the name is taken, by a view unless `or_replace` is set.
    fn create_view(&self, name: &str, sql: &str, or_replace: bool) -> Result<()>;

    /// Drops a view.
    ///
    /// # Errors
    /// If there is none and `if_exists` is not set.
    fn drop_view(&self, name: &str, if_exists: bool) -> Result<()>;

    /// Runs a statement that manages a cluster.
    ///
    /// # Errors
    /// Its own; where there is no cluster, that.
    fn cluster(&self, statement: &ClusterStatement, cancel: &CancelToken) -> Result<Outcome> {
        let _ = (statement, cancel);
        let way_out = "connect to one with --connect HOST:PORT";
        Err(Error::Invalid(format!("this is a data directory and the statement manages a cluster: {way_out}")))
    }

    /// Runs a statement about users.
    ///
    /// # Errors
    /// Its own; where there is no cluster, that.
    fn users(&self, statement: &UserStatement) -> Result<Outcome> {
        let _ = statement;
        let way_out = "connect to a cluster with --connect HOST:PORT";
        Err(Error::Invalid(format!(
            "this is a data directory, which belongs to whoever can read it, and has no users: {way_out}"
        )))
    }

    /// Whether the session may run a statement, as far as that does not depend on what it reads.
    ///
    /// # Errors
    /// If it may not, with what would allow it.
    fn check(&self, statement: &Statement) -> Result<()> {
        let _ = statement;
        Ok(())
    }

    /// Whether the session may read a table or view.
    ///
    /// # Errors
    /// If it may not, with what would allow it.
    fn may_read(&self, name: &str) -> Result<()> {
        let _ = name;
        Ok(())
    }

    /// Has a statement that changes the catalog run by whoever decides on it, and gives what that one says; `None`: it runs here.
    ///
    /// # Errors
    /// Those of the statement, or that nobody can decide now.
    fn forward(&self, sql: &str, cancel: &CancelToken) -> Result<Option<Outcome>> {
        let _ = (sql, cancel);
        Ok(None)
    }

    /// The version of the catalog that the store goes by.
    fn version(&self) -> u64 {
        0
    }

    /// Learns what others have decided: whether the catalog is newer than a version then.
    fn catch_up(&self, known: u64) -> bool {
        let _ = known;
        false
    }

    /// What EXPLAIN says of the partitions that a query reads, if they are not all.
    fn reads(&self, query: &Query) -> Option<String> {
        let _ = query;
        None
    }

    /// Plans that were made lately.
    fn plans(&self) -> &Plans;

    /// What plans made now hang on; `None` if that is not known.
    fn plan_basis(&self) -> Option<PlanBasis>;

    /// Leaves between which rows of queries move; 1: they do not.
    fn leaves(&self) -> usize;

    /// Cuts an optimized query into fragments.
    fn distribute(&self, query: Query) -> Query;

    /// Runs a distributed query, again if nodes fail under it.
    ///
    /// # Errors
    /// Those of the query.
    fn execute(&self, query: &Query, cancel: &CancelToken, progress: &Progress) -> Result<QueryResult>;

    /// As [`Store::execute`], but hands the rows on as they come. It is not run again once rows have been handed on.
    ///
    /// # Errors
    /// Those of the query and of `take`; [`Error::Delivered`] if nodes failed after rows were handed on.
    fn stream(&self, query: &Query, cancel: &CancelToken, progress: &Progress, take: &mut TakeResult<'_>) -> Result<Profile>;

    /// Takes the first rows of a new table, which is there once they are, and not before.
    ///
    /// # Errors
    /// As [`Store::create_table`].
    fn create_table_rows(&self, def: TableDef) -> Result<Box<dyn Rows>>;

    /// Takes rows for a table.
    ///
    /// # Errors
    /// If there is no such table.
    fn rows(&self, table: &str) -> Result<Box<dyn Rows>>;

    /// Begins a transaction on what is committed now.
    ///
    /// # Errors
    /// If there can be none.
    fn begin(&self) -> Result<Box<dyn Transaction>>;

    /// Runs a query over one table that is only in memory.
    ///
    /// # Errors
    /// Those of the query.
    fn execute_over(&self, query: &Query, table: Table, cancel: &CancelToken) -> Result<QueryResult>;

    /// Changes the definition of a table.
    ///
    /// # Errors
    /// If there is no such table, or it cannot be so.
    fn alter_table(&self, table: &str, change: AlterTable) -> Result<()>;

    /// Tells whoever stores the tables how they are now, as far as they can be told.
    fn tell_tables(&self) {}

    /// Removes all rows of a table.
    ///
    /// # Errors
    /// If there is no such table.
    fn truncate(&self, table: &str, cancel: &CancelToken) -> Result<()>;

    /// Flushes or merges a table, as far as somebody asks for more than the background does.
    ///
    /// # Errors
    /// If there is no such table, or it cannot be written.
    fn optimize(&self, table: &str, how: Optimize) -> Result<()>;

    /// How each partition of each table stands.
    ///
    /// # Errors
    /// If that cannot be asked.
    fn merge_status(&self) -> Result<Vec<MergeStatus>>;

    /// Copies a database, otherwise that of the session, as of one moment to a folder or an object store; what was done, for people.
    ///
    /// # Errors
    /// If it cannot be read, or written there.
    fn backup(&self, database: Option<&str>, to: &str, anew: bool, cancel: &CancelToken) -> Result<String>;

    /// Makes a database, otherwise that of the session, what it was in the newest backup in a place, under a new name or its own; what
    /// was done, for people.
    ///
    /// # Errors
    /// If there is something already, or the backup cannot be read.
    fn restore(&self, database: Option<&str>, new_name: Option<&str>, from: &str, cancel: &CancelToken) -> Result<String>;

    /// For how long statements are run again when nodes under them fail.
    fn retry_limit(&self) -> RetryLimit {
        RetryLimit::NEVER
    }

    /// Rows that INSERT gives to a transaction, and so into memory; more are loaded into segments.
    fn insert_rows(&self) -> usize {
        1 << 16
    }
}

/// Statements that change rows, which others see together or not at all. Dropped before [`Transaction::commit`], nothing has happened.
pub trait Transaction: Send {
    /// Runs a query over the state that the transaction sees.
    ///
    /// # Errors
    /// Those of the query.
    fn execute(&self, query: &Query, cancel: &CancelToken, progress: &Progress) -> Result<QueryResult>;

    /// As [`Transaction::execute`], but hands the rows on as they come.
    ///
    /// # Errors
    /// As [`Store::stream`].
    fn stream(&self, query: &Query, cancel: &CancelToken, progress: &Progress, take: &mut TakeResult<'_>) -> Result<Profile>;

    /// Takes the state that the transaction sees, everywhere, if it has not: one that stays open for long needs it from the beginning.
    ///
    /// # Errors
    /// If somebody who has a part of it does not answer.
    fn look(&self) -> Result<()> {
        Ok(())
    }

    /// The definition of a table as the transaction sees it.
    fn table(&self, name: &str) -> Option<Arc<TableDef>>;

    /// Adds rows; columns are matched by position. How many.
    ///
    /// # Errors
    /// If a row does not fit or its unique key is there, naming table, column and row.
    fn insert(&mut self, table: &str, batch: &RecordBatch) -> Result<u64>;

    /// Which rows have a unique key of a row that is there: the row, and the address of that one.
    ///
    /// # Errors
    /// If two of the rows have the same key.
    fn duplicates(&self, table: &str, batch: &RecordBatch) -> Result<Vec<(usize, u64)>>;

    /// Rows by their addresses, in that order: all columns.
    ///
    /// # Errors
    /// If a row is not there.
    fn read(&self, table: &str, addresses: &[u64]) -> Result<Vec<ArrayRef>>;

    /// Deletes rows by their addresses; how many.
    ///
    /// # Errors
    /// If a row is not there.
    fn delete(&mut self, table: &str, addresses: &[u64]) -> Result<u64>;

    /// Begins a statement.
    fn savepoint(&mut self);

    /// Undoes what the statement did.
    fn undo(&mut self);

    /// Makes everything last, and shows it.
    ///
    /// # Errors
    /// If another transaction came first. Nothing has happened then, nor after any other error but [`Error::Unknown`].
    fn commit(self: Box<Self>, cancel: &CancelToken) -> Result<()>;
}

/// Rows on their way into a table: all or none. Dropped before [`Rows::finish`], nothing of them stays.
pub trait Rows: Send {
    /// The table.
    fn table(&self) -> &TableDef;

    /// Errors number the rows pushed from now on anew: the next one is `first`, and rows are called `unit`, `line` for example. `file`:
    /// where they come from; an error of [`Rows::push`] does not say it.
    fn number_rows(&mut self, file: &str, unit: &'static str, first: u64);

    /// Takes rows; columns are matched by position.
    ///
    /// # Errors
    /// If a row does not fit, naming table, column and row.
    fn push(&mut self, batch: &RecordBatch) -> Result<()>;

    /// Makes all rows visible; how many they are.
    ///
    /// # Errors
    /// If they cannot be stored; none is visible then.
    fn finish(self: Box<Self>) -> Result<u64>;
}

/// A table that must be there.
pub(crate) fn existing(store: &dyn Store, name: &str) -> Result<Arc<TableDef>> {
    store.table(name).ok_or_else(|| stoa_columnstore::Error::NoSuchTable(name.to_owned()).into())
}
