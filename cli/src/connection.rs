//! Where the commands run their SQL: a data directory in this process, or a cluster.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use stoa_client::{Client, Loader, Login, Output, Part, Security, Tls, TlsFiles};
use stoa_columnstore::{RowNames, TableDef, conform};
use stoa_coordinator::{Outcome, Rows};
use stoa_exec::{CancelToken, Profile, Progress};

use crate::args::EngineArgs;
use crate::engine::Engine;
use crate::{Error, Result};

/// A place that runs SQL.
pub enum Connection {
    /// A data directory.
    Embedded(Engine),
    /// A cluster.
    Cluster(Box<ClusterConnection>),
}

/// A cluster, and threads to read files with.
pub struct ClusterConnection {
    client: Arc<Client>,
    pool: rayon::ThreadPool,
}

impl ClusterConnection {
    /// Administers the cluster.
    ///
    /// # Errors
    /// Those of the command.
    pub fn admin(&self, command: &stoa_client::AdminCommand) -> Result<Outcome> {
        Ok(outcome(self.client.admin(command)?))
    }
}

fn outcome(output: Output) -> Outcome {
    match output {
        Output::Rows(rows) => Outcome::Rows { schema: rows.schema, batches: rows.batches },
        Output::Text(text) => Outcome::Done(text),
        Output::Plan(text) => Outcome::Plan(text),
    }
}

fn outcome_of(part: Part) -> Outcome {
    match part {
        Part::Columns(schema) => Outcome::Rows { schema, batches: vec![] },
        Part::Rows(batches) => Outcome::More(batches),
        Part::Text(text) => Outcome::Done(text),
        Part::Plan(text) => Outcome::Plan(text),
    }
}

impl Connection {
    /// Opens what the command line names: the cluster of `--connect`, or the data directory of `--data`.
    ///
    /// # Errors
    /// If it cannot be reached or opened.
    pub fn open(args: &EngineArgs) -> Result<Connection> {
        if args.connect.is_empty() {
            return Ok(Connection::Embedded(Engine::open(args)?));
        }
        let (user, password, database) = (args.user.clone(), args.password.clone(), args.database.clone());
        let login = Login { user, password, database, ..Login::default() };
        let tls = Tls::load(&TlsFiles { ca: args.tls_ca.clone(), ..TlsFiles::default() })?;
        let security = Security::new(args.secret.clone()).with(tls);
        let client = Client::connect(&stoa_client::Options { addresses: args.connect.clone(), login, security })?;
        let threads = args.threads.unwrap_or(0);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|e| Error::Invalid(format!("cannot start threads: {e}")))?;
        Ok(Connection::Cluster(Box::new(ClusterConnection { client: Arc::new(client), pool })))
    }

    /// Runs statements in order and hands each one's outcome to `each`, rows as they come; another thread may watch `progress`.
    ///
    /// # Errors
    /// The first error of a statement or of `each`; what ran before it stays done.
    pub fn run(
        &self,
        sql: &str,
        cancel: &CancelToken,
        progress: &Progress,
        each: &mut dyn FnMut(Outcome) -> Result<()>,
    ) -> Result<()> {
        let cluster = match self {
            Connection::Embedded(engine) => return engine.run_with(sql, cancel, progress, each),
            Connection::Cluster(cluster) => cluster,
        };
        let mut failed = None;
        let mut follow = |how_far| progress.follow(how_far);
        let ran = cluster.client.stream_followed(sql, cancel.flag(), &mut follow, &mut |part| {
            each(outcome_of(part)).map_err(|error| {
                let failure = stoa_rpc::Failure::new(stoa_rpc::FailureKind::User, error.to_string());
                failed = Some(error);
                failure
            })
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(ran?),
        }
    }

    /// The rows of one query, and what it did where it ran in this process.
    ///
    /// # Errors
    /// If it gives no rows, or fails.
    pub fn query(&self, sql: &str) -> Result<(Vec<RecordBatch>, Option<Profile>)> {
        match self {
            Connection::Embedded(engine) => {
                let result = engine.query(sql, &CancelToken::default())?;
                Ok((result.batches, Some(result.profile)))
            }
            Connection::Cluster(cluster) => Ok((cluster.client.query(sql)?.batches, None)),
        }
    }

    /// Runs statements for what they do.
    ///
    /// # Errors
    /// The first error of a statement.
    pub fn execute(&self, sql: &str) -> Result<()> {
        self.run(sql, &CancelToken::default(), &Progress::default(), &mut |_| Ok(()))
    }

    /// Whether there is a table of this name.
    ///
    /// # Errors
    /// If the cluster cannot tell.
    pub fn has_table(&self, name: &str) -> Result<bool> {
        match self {
            Connection::Embedded(engine) => Ok(engine.database().table(name).is_some()),
            Connection::Cluster(cluster) => Ok(cluster.client.names()?.iter().any(|other| other.eq_ignore_ascii_case(name))),
        }
    }

    /// Takes rows for a table.
    ///
    /// # Errors
    /// If there is no such table.
    pub fn rows(&self, table: &str) -> Result<Box<dyn Rows>> {
        match self {
            Connection::Embedded(engine) => Ok(engine.rows(table)?),
            Connection::Cluster(cluster) => Ok(Box::new(cluster.rows(table, false)?)),
        }
    }

    /// Takes rows for a new table, which is there once they are. On a cluster the empty table is there before them.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn create_table_rows(&self, def: TableDef) -> Result<Box<dyn Rows>> {
        match self {
            Connection::Embedded(engine) => Ok(engine.create_table_rows(def)?),
            Connection::Cluster(cluster) => {
                self.execute(&create_statement(&def))?;
                Ok(Box::new(cluster.rows(&def.name, true)?))
            }
        }
    }

    /// Names of tables and views; none if the cluster cannot tell.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        match self {
            Connection::Embedded(engine) => engine.names(),
            Connection::Cluster(cluster) => cluster.client.names().unwrap_or_default(),
        }
    }

    /// Bytes of all segments.
    ///
    /// # Errors
    /// If the cluster cannot tell.
    pub fn bytes_on_disk(&self) -> Result<u64> {
        match self {
            Connection::Embedded(engine) => Ok(engine.bytes_on_disk()),
            Connection::Cluster(cluster) => {
                let tables = cluster.client.query("SHOW TABLES")?;
                let texts = tables.batches.iter().filter_map(|b| b.column_by_name("Bytes")?.as_string_view_opt());
                Ok(texts.flat_map(|column| column.iter().flatten().filter_map(|text| text.parse::<u64>().ok())).sum())
            }
        }
    }

    /// Threads to read files with.
    #[must_use]
    pub fn pool(&self) -> &rayon::ThreadPool {
        match self {
            Connection::Embedded(engine) => engine.pool(),
            Connection::Cluster(cluster) => &cluster.pool,
        }
    }

    /// What it is connected to, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Connection::Embedded(engine) => engine.directory().display().to_string(),
            Connection::Cluster(cluster) => format!("the cluster at {}", cluster.client.address()),
        }
    }
}

fn create_statement(def: &TableDef) -> String {
    let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
    let columns: Vec<String> = def
        .columns
        .iter()
        .map(|c| format!("{} {}{}", quoted(&c.name), c.sql_type, if c.nullable { "" } else { " NOT NULL" }))
        .collect();
    format!("CREATE TABLE {} ({})", quoted(&def.name), columns.join(", "))
}

impl ClusterConnection {
    fn rows(&self, table: &str, created: bool) -> Result<ClusterRows> {
        let def = TableDef::from_described(table, &*self.client.describe(table)?);
        let loader = Some(self.client.load(table)?);
        let names = RowNames::default();
        Ok(ClusterRows { client: self.client.clone(), def, loader, names, created })
    }
}

/// Rows for a table of a cluster. They are checked here, where it is known which line of which file they are.
struct ClusterRows {
    client: Arc<Client>,
    def: TableDef,
    loader: Option<Loader>,
    names: RowNames,
    /// The table was made for these rows and goes without them.
    created: bool,
}

impl Rows for ClusterRows {
    fn table(&self) -> &TableDef {
        &self.def
    }

    fn number_rows(&mut self, file: &str, unit: &'static str, first: u64) {
        self.names = RowNames { unit, first };
        if let Some(loader) = &mut self.loader {
            loader.number_rows(file, unit == RowNames::LINES, first);
        }
    }

    fn push(&mut self, batch: &RecordBatch) -> stoa_coordinator::Result<()> {
        let rows = conform(&self.def, batch, self.names)?;
        self.names.first = self.names.first.saturating_add(rows.num_rows() as u64);
        match &mut self.loader {
            Some(loader) => Ok(loader.push(&rows)?),
            None => Err(stoa_coordinator::Error::Invalid("this load has ended".into())),
        }
    }

    fn finish(mut self: Box<Self>) -> stoa_coordinator::Result<u64> {
        let loader = self.loader.take().ok_or_else(|| stoa_coordinator::Error::Invalid("this load has ended".into()))?;
        let rows = loader.finish()?;
        self.created = false;
        Ok(rows)
    }
}

impl Drop for ClusterRows {
    fn drop(&mut self) {
        if self.created {
            // The load failed and that is what is told.
            let drop = format!("DROP TABLE IF EXISTS `{}`", self.def.name.replace('`', "``"));
            let _ = self.client.execute(&drop, &stoa_client::Cancelled::default(), &mut |_| Ok(()));
        }
    }
}
