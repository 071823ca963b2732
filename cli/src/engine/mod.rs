//! The embedded engine: one data directory, the SQL front end, the optimizer and the executor in one process.
//!
//! A statement goes one way: text, [`stoa_sql::Statement`], plan, optimized and distributed plan, rows. DDL and INSERT end in calls of
//! [`Database`]. A cluster's coordinator does the same with leaves in the place of the executor.

mod catalog;
mod ddl;
mod explain;
mod insert;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use stoa_columnstore::{Database, Options};
use stoa_exec::{CancelToken, MemoryBudget, Progress, QueryContext, QueryResult, Settings};
use stoa_plan::{Query, distribute, optimizer};
use stoa_sql::{QueryText, Statement};

use crate::args::EngineArgs;
use crate::{Error, Result};

pub(crate) use ddl::{definition, sql_type_name};

/// How an engine is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Bytes that one query may hold.
    pub memory_limit: usize,
    /// Worker threads.
    pub threads: usize,
    /// Settings of queries.
    pub settings: Settings,
    /// Settings of storage.
    pub storage: Options,
}

impl Setup {
    /// The setup that the environment asks for: all cores, 70% of the memory.
    #[must_use]
    pub fn from_env() -> Setup {
        Setup {
            memory_limit: physical_memory().map_or(4 << 30, |bytes| bytes / 10 * 7),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            settings: Settings::from_env(),
            storage: Options::from_env(),
        }
    }
}

/// Memory of the machine, in bytes, where the operating system tells.
fn physical_memory() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemTotal:"))?;
    line.split_whitespace().nth(1)?.parse::<usize>().ok().map(|kib| kib * 1024)
}

/// What a statement gave.
pub enum Outcome {
    /// Rows.
    Rows {
        /// Names and types of the columns.
        schema: SchemaRef,
        /// The rows.
        batches: Vec<RecordBatch>,
    },
    /// A plan, a line an operator and its notes.
    Plan(String),
    /// Nothing but a word for people.
    Done(String),
}

/// An open data directory.
pub struct Engine {
    database: Arc<Database>,
    directory: PathBuf,
    setup: Setup,
    pool: Arc<rayon::ThreadPool>,
}

impl Engine {
    /// Opens the data directory of a command line.
    ///
    /// # Errors
    /// As [`Engine::with_setup`].
    pub fn open(args: &EngineArgs) -> Result<Engine> {
        let mut setup = Setup::from_env();
        setup.memory_limit = args.memory_limit.unwrap_or(setup.memory_limit);
        setup.threads = args.threads.unwrap_or(setup.threads).max(1);
        Engine::with_setup(&args.data, &setup)
    }

    /// Opens a data directory, or makes one.
    ///
    /// # Errors
    /// If it cannot be read or made, another process uses it, or another version wrote it.
    pub fn with_setup(directory: &Path, setup: &Setup) -> Result<Engine> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(setup.threads)
            .thread_name(|i| format!("stoa-worker-{i}"))
            .build()
            .map_err(|e| Error::Invalid(format!("cannot start {} threads: {e}", setup.threads)))?;
        let database = Database::open(directory, setup.storage.clone())?;
        Ok(Engine { database, directory: directory.to_owned(), setup: setup.clone(), pool: Arc::new(pool) })
    }

    /// Runs statements in order and hands each one's outcome to `each`.
    ///
    /// # Errors
    /// The first error of a statement or of `each`; what ran before it stays done.
    pub fn run(&self, sql: &str, cancel: &CancelToken, each: &mut dyn FnMut(Outcome) -> Result<()>) -> Result<()> {
        self.run_with(sql, cancel, &Progress::default(), each)
    }

    /// As [`Engine::run`]; another thread may watch `progress`.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub fn run_with(
        &self,
        sql: &str,
        cancel: &CancelToken,
        progress: &Progress,
        each: &mut dyn FnMut(Outcome) -> Result<()>,
    ) -> Result<()> {
        for statement in stoa_sql::parse(sql)? {
            each(self.execute(&statement, cancel, progress)?)?;
        }
        Ok(())
    }

    /// Runs one query.
    ///
    /// # Errors
    /// If the text is not exactly one query, or it fails.
    pub fn query(&self, sql: &str, cancel: &CancelToken) -> Result<QueryResult> {
        match stoa_sql::parse(sql)?.as_slice() {
            [Statement::Query(query)] => self.run_plan(&self.plan(query)?, cancel, &Progress::default()),
            _ => Err(Error::Invalid("expected exactly one query".into())),
        }
    }

    /// The data directory's tables.
    #[must_use]
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// The data directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The worker threads.
    #[must_use]
    pub fn pool(&self) -> &rayon::ThreadPool {
        &self.pool
    }

    /// Number of worker threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.setup.threads
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn bytes_on_disk(&self) -> u64 {
        self.database.tables().iter().map(|t| t.bytes_on_disk()).sum()
    }

    /// Names of tables and views.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        stoa_sql::Catalog::names(&catalog::View(&self.database))
    }

    fn execute(&self, statement: &Statement, cancel: &CancelToken, progress: &Progress) -> Result<Outcome> {
        let done = |message: String| Ok(Outcome::Done(message));
        match statement {
            Statement::Query(query) => {
                let result = self.run_plan(&self.plan(query)?, cancel, progress)?;
                Ok(Outcome::Rows { schema: result.schema, batches: result.batches })
            }
            Statement::Explain { query, analyze } => explain::run(self, query, *analyze, cancel),
            Statement::CreateTable(create) => done(ddl::create_table(self, create)?),
            Statement::CreateTableAs { table, query } => done(insert::create_table_as(self, table, query, cancel)?),
            Statement::DropTable { names, if_exists } => done(ddl::drop_tables(self, names, *if_exists)?),
            Statement::CreateView { name, or_replace, query } => done(ddl::create_view(self, name, query, *or_replace)?),
            Statement::DropView { names, if_exists } => done(ddl::drop_views(self, names, *if_exists)?),
            Statement::Insert(insert) => done(insert::insert(self, insert, cancel)?),
            Statement::ShowTables => ddl::show_tables(self),
            Statement::Describe { name } => ddl::describe(self, name),
        }
    }

    /// The optimized and distributed plan of a query.
    fn plan(&self, query: &QueryText) -> Result<Query> {
        self.physical(stoa_sql::bind_query(query, &catalog::View(&self.database))?)
    }

    /// Optimizes and distributes a bound query.
    fn physical(&self, query: Query) -> Result<Query> {
        let query = optimizer::optimize(query, &catalog::View(&self.database))?;
        Ok(distribute::distribute(query))
    }

    fn run_plan(&self, query: &Query, cancel: &CancelToken, progress: &Progress) -> Result<QueryResult> {
        let context = QueryContext {
            settings: self.setup.settings.clone(),
            cancel: cancel.clone(),
            memory: MemoryBudget::new(self.setup.memory_limit),
        };
        let storage = catalog::View(&self.database);
        let run = || self.pool.install(|| stoa_exec::execute_with(query, &storage, &context, progress));
        // A defect in one query is that query's error: the process and the other queries live on, and everything shared is immutable.
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
            Ok(result) => Ok(result?),
            Err(_) => {
                Err(stoa_exec::Error::Internal("a defect stopped this query; please report it with its text".into()).into())
            }
        }
    }
}
