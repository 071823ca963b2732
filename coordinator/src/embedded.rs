//! A data directory in this process as a [`Store`].

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use stoa_columnstore::{AlterTable, Database, MergeStatus, Options, RowNames, Savepoint, Snapshot, Table, TableDef, TableWriter};
use stoa_exec::{CancelToken, MemoryBudget, Profile, Progress, QueryContext, QueryResult, Settings, TakeResult, stream_query};
use stoa_plan::{Query, TableStatistics, distribute};
use stoa_sql::Optimize;

use crate::session::{PlanBasis, Plans};
use crate::{Error, Result, Rows, Store, Transaction, backup};

/// One data directory, and the threads and the memory that queries over it may use.
pub struct Embedded {
    database: Arc<Database>,
    workers: Workers,
    plans: Plans,
}

/// Threads, and what a query may use.
#[derive(Clone)]
struct Workers {
    pool: Arc<rayon::ThreadPool>,
    settings: Settings,
    memory_limit: usize,
}

impl Workers {
    fn run(
        &self,
        query: &Query,
        tables: &dyn stoa_exec::Storage,
        cancel: &CancelToken,
        progress: &Progress,
    ) -> Result<QueryResult> {
        let context = self.context(cancel);
        Ok(self.pool.install(|| stoa_exec::execute_with(query, tables, &context, progress))?)
    }

    /// As [`Workers::run`]; nobody but who takes the rows waits for that.
    fn stream(
        &self,
        query: &Query,
        tables: &dyn stoa_exec::Storage,
        cancel: &CancelToken,
        progress: &Progress,
        take: &mut TakeResult<'_>,
    ) -> Result<Profile> {
        Ok(stream_query(query, tables, &self.context(cancel), progress, &self.pool, take)?)
    }

    fn context(&self, cancel: &CancelToken) -> QueryContext {
        QueryContext { settings: self.settings.clone(), cancel: cancel.clone(), memory: MemoryBudget::new(self.memory_limit) }
    }
}

impl Embedded {
    /// Opens a data directory, or makes one.
    ///
    /// # Errors
    /// If it cannot be read or made, another process uses it, or another version wrote it.
    pub fn open(directory: &Path, storage: Options, settings: Settings, threads: usize, memory_limit: usize) -> Result<Embedded> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("stoa-worker-{i}"))
            .build()
            .map_err(|e| Error::Invalid(format!("cannot start {threads} threads: {e}")))?;
        let database = Database::open(directory, storage)?;
        Ok(Embedded { database, workers: Workers { pool: Arc::new(pool), settings, memory_limit }, plans: Plans::default() })
    }

    /// The data directory's tables.
    #[must_use]
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// The worker threads.
    #[must_use]
    pub fn pool(&self) -> &rayon::ThreadPool {
        &self.workers.pool
    }
}

impl Store for Embedded {
    fn table(&self, name: &str) -> Option<Arc<TableDef>> {
        self.database.table(name).map(|table| table.def.clone())
    }

    fn tables(&self) -> Vec<Arc<TableDef>> {
        self.database.tables().iter().map(|table| table.def.clone()).collect()
    }

    fn views(&self) -> Vec<(String, String)> {
        self.database.views()
    }

    fn statistics(&self, table: &str) -> Option<TableStatistics> {
        self.database.table(table).map(|table| stoa_exec::table_statistics(&table))
    }

    fn bytes(&self, table: &str) -> u64 {
        self.database.table(table).map_or(0, |table| table.bytes_on_disk())
    }

    fn create_table(&self, def: TableDef) -> Result<()> {
        self.database.create_table(def)?;
        Ok(())
    }

    fn drop_table(&self, name: &str, if_exists: bool) -> Result<()> {
        self.database.drop_table(name, if_exists)?;
        Ok(())
    }

    fn create_view(&self, name: &str, sql: &str, or_replace: bool) -> Result<()> {
        Ok(self.database.create_view(name, sql, or_replace)?)
    }

    fn drop_view(&self, name: &str, if_exists: bool) -> Result<()> {
        self.database.drop_view(name, if_exists)?;
        Ok(())
    }

    fn plans(&self) -> &Plans {
        &self.plans
    }

    /// Loads, flushes and merges change statistics; small writes do not change them by much.
    fn plan_basis(&self) -> Option<PlanBasis> {
        let (definitions, statistics) = self.database.plan_versions();
        Some(PlanBasis { scope: String::new(), definitions, statistics })
    }

    fn leaves(&self) -> usize {
        1
    }

    fn distribute(&self, query: Query) -> Query {
        distribute::distribute(query)
    }

    fn execute(&self, query: &Query, cancel: &CancelToken, progress: &Progress) -> Result<QueryResult> {
        self.workers.run(query, &Tables(self.database.snapshot()), cancel, progress)
    }

    fn stream(&self, query: &Query, cancel: &CancelToken, progress: &Progress, take: &mut TakeResult<'_>) -> Result<Profile> {
        self.workers.stream(query, &Tables(self.database.snapshot()), cancel, progress, take)
    }

    fn create_table_rows(&self, def: TableDef) -> Result<Box<dyn Rows>> {
        let writer = self.database.create_table_writer(def)?;
        Ok(Box::new(Writer { writer, pool: self.workers.pool.clone() }))
    }

    fn rows(&self, table: &str) -> Result<Box<dyn Rows>> {
        let writer = self.database.writer(table)?;
        Ok(Box::new(Writer { writer, pool: self.workers.pool.clone() }))
    }

    fn begin(&self) -> Result<Box<dyn Transaction>> {
        let few = self.insert_rows() as u64;
        let transaction = self.database.begin();
        Ok(Box::new(EmbeddedTransaction { transaction, savepoint: None, rows: 0, few, workers: self.workers.clone() }))
    }

    fn execute_over(&self, query: &Query, table: Table, cancel: &CancelToken) -> Result<QueryResult> {
        self.workers.run(query, &OneTable(Arc::new(table)), cancel, &Progress::default())
    }

    fn alter_table(&self, table: &str, change: AlterTable) -> Result<()> {
        Ok(self.database.alter_table(table, &change)?)
    }

    fn truncate(&self, table: &str, _: &CancelToken) -> Result<()> {
        Ok(self.database.truncate_table(table)?)
    }

    fn optimize(&self, table: &str, how: Optimize) -> Result<()> {
        Ok(self.workers.pool.install(|| match how {
            Optimize::Flush => self.database.flush_table(table),
            Optimize::Merge => self.database.optimize_table(table, false),
            Optimize::Full => self.database.optimize_table(table, true),
        })?)
    }

    fn merge_status(&self) -> Result<Vec<MergeStatus>> {
        Ok(self.database.merge_status())
    }

    fn backup(&self, database: Option<&str>, to: &str, anew: bool, cancel: &CancelToken) -> Result<String> {
        without_name(database)?;
        backup::backup(&self.database, to, anew, cancel)
    }

    fn restore(&self, database: Option<&str>, _: Option<&str>, from: &str, cancel: &CancelToken) -> Result<String> {
        without_name(database)?;
        backup::restore(&self.database, from, cancel)
    }

    fn insert_rows(&self) -> usize {
        self.database.options().flush_rows
    }
}

fn without_name(database: Option<&str>) -> Result<()> {
    let what = |name| format!("a data directory is one database without a name: leave '{name}' out");
    database.map_or(Ok(()), |name| Err(Error::Invalid(what(name))))
}

struct EmbeddedTransaction {
    transaction: stoa_columnstore::Transaction,
    savepoint: Option<Savepoint>,
    /// Rows that it added, also those that were undone.
    rows: u64,
    /// So many rows become segments.
    few: u64,
    workers: Workers,
}

impl Transaction for EmbeddedTransaction {
    fn execute(&self, query: &Query, cancel: &CancelToken, progress: &Progress) -> Result<QueryResult> {
        self.workers.run(query, &Seen(&self.transaction), cancel, progress)
    }

    fn stream(&self, query: &Query, cancel: &CancelToken, progress: &Progress, take: &mut TakeResult<'_>) -> Result<Profile> {
        self.workers.stream(query, &Seen(&self.transaction), cancel, progress, take)
    }

    fn table(&self, name: &str) -> Option<Arc<TableDef>> {
        Some(self.transaction.table(name)?.def.clone())
    }

    fn insert(&mut self, table: &str, batch: &RecordBatch) -> Result<u64> {
        self.rows += batch.num_rows() as u64;
        Ok(self.transaction.insert(table, batch, RowNames::default())?)
    }

    fn duplicates(&self, table: &str, batch: &RecordBatch) -> Result<Vec<(usize, u64)>> {
        Ok(self.transaction.duplicates(table, batch, RowNames::default())?)
    }

    fn read(&self, table: &str, addresses: &[u64]) -> Result<Vec<ArrayRef>> {
        Ok(self.transaction.read(table, addresses)?)
    }

    fn delete(&mut self, table: &str, addresses: &[u64]) -> Result<u64> {
        Ok(self.transaction.delete(table, addresses)?)
    }

    fn savepoint(&mut self) {
        self.savepoint = Some(self.transaction.savepoint());
    }

    fn undo(&mut self) {
        if let Some(savepoint) = self.savepoint.take() {
            self.transaction.undo(savepoint);
        }
    }

    /// A commit of few rows waits for the disk and for others, together with as many as there are: no worker has to wait for it.
    fn commit(self: Box<Self>, _: &CancelToken) -> Result<()> {
        let EmbeddedTransaction { transaction, rows, few, workers, .. } = *self;
        if rows < few {
            return Ok(transaction.commit()?);
        }
        Ok(workers.pool.install(|| transaction.commit())?)
    }
}

/// The tables as a transaction sees them.
struct Seen<'a>(&'a stoa_columnstore::Transaction);

impl stoa_exec::Storage for Seen<'_> {
    fn table(&self, name: &str) -> stoa_exec::Result<Arc<Table>> {
        self.0.table(name).ok_or_else(|| stoa_columnstore::Error::NoSuchTable(name.to_owned()).into())
    }
}

/// One table, whatever its name.
pub(crate) struct OneTable(pub(crate) Arc<Table>);

impl stoa_exec::Storage for OneTable {
    fn table(&self, _name: &str) -> stoa_exec::Result<Arc<Table>> {
        Ok(self.0.clone())
    }
}

struct Tables(Snapshot);

impl stoa_exec::Storage for Tables {
    fn table(&self, name: &str) -> stoa_exec::Result<Arc<Table>> {
        self.0.table(name).ok_or_else(|| stoa_columnstore::Error::NoSuchTable(name.to_owned()).into())
    }
}

struct Writer {
    writer: TableWriter,
    pool: Arc<rayon::ThreadPool>,
}

impl Rows for Writer {
    fn table(&self) -> &TableDef {
        &self.writer.table().def
    }

    fn number_rows(&mut self, file: &str, unit: &'static str, first: u64) {
        self.writer.number_rows(file, unit, first);
    }

    fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        Ok(self.writer.push(batch)?)
    }

    fn finish(self: Box<Self>) -> Result<u64> {
        let Writer { writer, pool } = *self;
        Ok(pool.install(|| writer.finish())?)
    }
}
