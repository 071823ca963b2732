//! A client of Stoa clusters: SQL and plans in, Arrow out.
//!
//! ```no_run
//! use stoa_client::{Client, Options};
//!
//! let client = Client::connect(&Options { addresses: vec!["127.0.0.1:3306".into()], ..Options::default() })?;
//! let result = client.query("SELECT 1 + 1 AS two")?;
//! println!("{}", arrow::util::pretty::pretty_format_batches(&result.batches).unwrap());
//! # Ok::<(), stoa_client::Failure>(())
//! ```
//!
//! Calls block. A client may be shared by threads; its statements run one after the other, so that those that are to run at the same time
//! need a client each, and one that is asked for while rows of another are read waits until all were.
//!
//! When its coordinator goes away the next call enters another one. A statement that was under way is looked after by the client: it asks
//! another coordinator what came of it. What was committed is done; what was not is run again, unless parts of a result were handed on
//! already. Only of several statements in one text, and of those that define or administer something, it is not known then how far they
//! came, and the error says so. A transaction that was open is gone with its coordinator: its statements fail up to its end.

mod answer;
mod load;
mod prepared;
mod sessions;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use stoa_rpc::admin::AdminReply;
use stoa_rpc::ipc::read_chunk;
use stoa_rpc::session::SessionService;

use answer::{Outputs, Parts};
use sessions::{Sessions, told};

pub use load::Loader;
pub use prepared::Prepared;
pub use stoa_rpc::admin::{AdminCommand, Grant, Password, UserCommand};
pub use stoa_rpc::session::{Cancelled, HowFar, Login, Parameter};
pub use stoa_rpc::{Failure, FailureKind, Result, Security, Tls, TlsFiles};

/// Where to connect, and as whom.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Coordinators, HOST:PORT; the first that answers serves.
    pub addresses: Vec<String>,
    /// User, password, database.
    pub login: Login,
    /// The cluster's secret, and TLS.
    pub security: Security,
}

/// A connection to a cluster.
pub struct Client(Arc<Sessions>);

/// What a statement gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Rows.
    Rows(Rows),
    /// A word for people.
    Text(String),
    /// A plan: a line an operator and its notes.
    Plan(String),
}

/// A part of what statements give, as it comes.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// The rows of a statement follow: their columns.
    Columns(SchemaRef),
    /// Rows.
    Rows(Vec<RecordBatch>),
    /// A word for people.
    Text(String),
    /// A plan: a line an operator and its notes.
    Plan(String),
}

/// Rows with their columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// Names and types.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
}

impl Client {
    /// Connects to the first coordinator that answers.
    ///
    /// # Errors
    /// If none does, or it refuses.
    pub fn connect(options: &Options) -> Result<Client> {
        Ok(Client(Arc::new(Sessions::connect(options)?)))
    }

    /// The address of the coordinator that serves.
    #[must_use]
    pub fn address(&self) -> String {
        self.0.address()
    }

    /// Runs statements in order and hands what each gave to `each`; ends soon after `cancelled` is set.
    ///
    /// # Errors
    /// The first error of a statement or of `each`.
    pub fn execute(&self, sql: &str, cancelled: &Cancelled, each: &mut dyn FnMut(Output) -> Result<()>) -> Result<()> {
        let mut outputs = Outputs::new(each);
        self.0.run(Some(sql), &mut outputs, cancelled, &|session, answer| session.execute(sql, answer, cancelled))?;
        outputs.flush()
    }

    /// As [`Client::execute`], but hands rows to `each` as they come. As long as `each` does not return the cluster makes no more of
    /// them than it may keep, so that a result may be larger than the memory of anybody.
    ///
    /// # Errors
    /// The first error of a statement or of `each`; retryable if a node failed after rows had come.
    pub fn stream(&self, sql: &str, cancelled: &Cancelled, each: &mut dyn FnMut(Part) -> Result<()>) -> Result<()> {
        self.stream_to(sql, cancelled, Parts::new(each, None))
    }

    /// As [`Client::stream`], and gives `follow` what tells how far the statements are: what is done, and of how much, as the coordinator
    /// said last. It says so of what takes longer than a second.
    ///
    /// # Errors
    /// As [`Client::stream`].
    pub fn stream_followed(
        &self,
        sql: &str,
        cancelled: &Cancelled,
        follow: &mut dyn FnMut(HowFar),
        each: &mut dyn FnMut(Part) -> Result<()>,
    ) -> Result<()> {
        self.stream_to(sql, cancelled, Parts::new(each, Some(follow)))
    }

    fn stream_to(&self, sql: &str, cancelled: &Cancelled, mut parts: Parts<'_>) -> Result<()> {
        self.0.run(Some(sql), &mut parts, cancelled, &|session, answer| session.execute(sql, answer, cancelled))
    }

    /// Runs exactly one query.
    ///
    /// # Errors
    /// If the statement gives no rows, or fails.
    pub fn query(&self, sql: &str) -> Result<Rows> {
        rows_of("statement", |each| self.execute(sql, &Cancelled::default(), each))
    }

    /// Prepares one statement; each of its parameters is written as `?`.
    ///
    /// # Errors
    /// If the text cannot be parsed, is not one statement, or the connection has too many prepared statements.
    pub fn prepare(&self, sql: &str) -> Result<Prepared> {
        Prepared::new(&self.0, sql)
    }

    /// Runs a plan: a message of `plan.capnp`, neither optimized nor distributed.
    ///
    /// # Errors
    /// If the plan is none, or fails.
    pub fn query_plan(&self, plan: &[u8]) -> Result<Rows> {
        rows_of("plan", |each| {
            let (mut outputs, cancelled) = (Outputs::new(each), Cancelled::default());
            self.0.run(None, &mut outputs, &cancelled, &|session, answer| session.execute_plan(plan, answer, &cancelled))?;
            outputs.flush()
        })
    }

    /// The columns of a table. The metadata `stoa.type` of a field is its type as declared.
    ///
    /// # Errors
    /// If there is no such table.
    pub fn describe(&self, table: &str) -> Result<SchemaRef> {
        Ok(read_chunk(self.0.ask(|session| session.describe(table))?)?.0)
    }

    /// Names of tables and views.
    ///
    /// # Errors
    /// If no coordinator can be reached.
    pub fn names(&self) -> Result<Vec<String>> {
        self.0.ask(|session| session.names())
    }

    /// Administers the cluster.
    ///
    /// # Errors
    /// Those of the statement that does the same.
    pub fn admin(&self, command: &AdminCommand) -> Result<Output> {
        let session = self.0.session()?;
        match told(&session, session.admin(command, &Cancelled::default()))? {
            AdminReply::Said(text) => Ok(Output::Text(text)),
            AdminReply::Listing(rows) => {
                let (schema, batches) = read_chunk(rows)?;
                Ok(Output::Rows(Rows { schema, batches }))
            }
        }
    }

    /// Takes rows for a table: all or none.
    ///
    /// # Errors
    /// If there is no such table.
    pub fn load(&self, table: &str) -> Result<Loader> {
        Loader::new(&self.0, table)
    }
}

/// The last rows that something gives.
fn rows_of(what: &str, run: impl FnOnce(&mut dyn FnMut(Output) -> Result<()>) -> Result<()>) -> Result<Rows> {
    let mut rows = None;
    run(&mut |output| {
        if let Output::Rows(these) = output {
            rows = Some(these);
        }
        Ok(())
    })?;
    rows.ok_or_else(|| Failure::new(FailureKind::User, format!("the {what} gives no rows")))
}
