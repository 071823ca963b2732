//! The embedded engine: one data directory, the SQL front end, the optimizer and the executor in one process.
//!
//! It joins a [`Session`], which a cluster's coordinator has too, with one data directory in the place of the leaves.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stoa_columnstore::{Database, Options, TableDef};
use stoa_coordinator::{Embedded, Rows, Session};
use stoa_exec::{CancelToken, Progress, QueryResult, Settings};

use crate::Result;
use crate::args::EngineArgs;

pub use stoa_coordinator::Outcome;
pub(crate) use stoa_coordinator::{definition, sql_type_name};

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

/// An open data directory.
pub struct Engine {
    store: Arc<Embedded>,
    session: Session,
    directory: PathBuf,
    threads: usize,
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
        Engine::with_setup(args.data(), &setup)
    }

    /// Opens a data directory, or makes one.
    ///
    /// # Errors
    /// If it cannot be read or made, another process uses it, or another version wrote it.
    pub fn with_setup(directory: &Path, setup: &Setup) -> Result<Engine> {
        let (storage, settings) = (setup.storage.clone(), setup.settings.clone());
        let store = Arc::new(Embedded::open(directory, storage, settings, setup.threads, setup.memory_limit)?);
        let session = Session::new(store.clone());
        Ok(Engine { store, session, directory: directory.to_owned(), threads: setup.threads })
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
        self.session.run(sql, cancel, progress, each)
    }

    /// Runs one query.
    ///
    /// # Errors
    /// If the text is not exactly one query, or it fails.
    pub fn query(&self, sql: &str, cancel: &CancelToken) -> Result<QueryResult> {
        Ok(self.session.query(sql, cancel)?)
    }

    /// Takes rows for a table.
    ///
    /// # Errors
    /// If there is no such table.
    pub fn rows(&self, table: &str) -> Result<Box<dyn Rows>> {
        Ok(self.session.store().rows(table)?)
    }

    /// Takes the first rows of a new table, which is there once they are.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn create_table_rows(&self, def: TableDef) -> Result<Box<dyn Rows>> {
        Ok(self.session.store().create_table_rows(def)?)
    }

    /// The data directory's tables.
    #[must_use]
    pub fn database(&self) -> &Arc<Database> {
        self.store.database()
    }

    /// The data directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The worker threads.
    #[must_use]
    pub fn pool(&self) -> &rayon::ThreadPool {
        self.store.pool()
    }

    /// Number of worker threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn bytes_on_disk(&self) -> u64 {
        self.database().tables().iter().map(|t| t.bytes_on_disk()).sum()
    }

    /// Names of tables and views.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.session.names()
    }
}
