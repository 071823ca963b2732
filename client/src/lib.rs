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
//! need a client each, and one that is asked for while rows of another are read waits until all were. When its coordinator goes away the next call enters another one; a call that was
//! under way fails, because nobody can know how far it came, and what was prepared is gone.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use stoa_rpc::admin::AdminReply;
use stoa_rpc::ipc::{read_chunk, write_chunks};
use stoa_rpc::session::{Answer, AnswerPart, PreparedService, SessionService, TableLoad};
use stoa_rpc::{Io, SessionClient};

pub use stoa_rpc::admin::AdminCommand;
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
pub struct Client {
    io: Io,
    options: Options,
    session: Mutex<Arc<SessionClient>>,
}

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
        let io = Io::start("stoa-client")?;
        let session = SessionClient::connect(&io, &options.addresses, &options.security, &options.login)?;
        Ok(Client { io, options: options.clone(), session: Mutex::new(Arc::new(session)) })
    }

    /// The address of the coordinator that serves.
    #[must_use]
    pub fn address(&self) -> String {
        self.session.lock().address().to_owned()
    }

    /// The session; a new one on any coordinator if the last has broken.
    fn session(&self) -> Result<Arc<SessionClient>> {
        let mut session = self.session.lock();
        if !session.alive() {
            let options = &self.options;
            *session = Arc::new(SessionClient::connect(&self.io, &options.addresses, &options.security, &options.login)?);
        }
        Ok(session.clone())
    }

    /// Runs statements in order and hands what each gave to `each`; ends soon after `cancelled` is set.
    ///
    /// # Errors
    /// The first error of a statement or of `each`.
    pub fn execute(&self, sql: &str, cancelled: &Cancelled, each: &mut dyn FnMut(Output) -> Result<()>) -> Result<()> {
        let mut outputs = Outputs { rows: None, each };
        let session = self.session()?;
        ran(&session, session.execute(sql, &mut outputs, cancelled))?;
        outputs.flush()
    }

    /// As [`Client::execute`], but hands rows to `each` as they come. As long as `each` does not return the cluster makes no more of
    /// them than it may keep, so that a result may be larger than the memory of anybody.
    ///
    /// # Errors
    /// The first error of a statement or of `each`; retryable if a node failed after rows had come.
    pub fn stream(&self, sql: &str, cancelled: &Cancelled, each: &mut dyn FnMut(Part) -> Result<()>) -> Result<()> {
        let session = self.session()?;
        ran(&session, session.execute(sql, &mut Parts { each, follow: None }, cancelled))
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
        let session = self.session()?;
        ran(&session, session.execute(sql, &mut Parts { each, follow: Some(follow) }, cancelled))
    }

    /// Runs exactly one query.
    ///
    /// # Errors
    /// If the statement gives no rows, or fails.
    pub fn query(&self, sql: &str) -> Result<Rows> {
        rows_of("statement", |each| self.execute(sql, &Cancelled::default(), each))
    }

    /// Prepares one statement; each of its parameters is written as `?`. It stays with the session of now.
    ///
    /// # Errors
    /// If the text cannot be parsed, is not one statement, or the connection has too many prepared statements.
    pub fn prepare(&self, sql: &str) -> Result<Prepared> {
        let session = self.session()?;
        let statement = told(&session, session.prepare(sql))?;
        Ok(Prepared { session, statement })
    }

    /// Runs a plan: a message of `plan.capnp`, neither optimized nor distributed.
    ///
    /// # Errors
    /// If the plan is none, or fails.
    pub fn query_plan(&self, plan: &[u8]) -> Result<Rows> {
        rows_of("plan", |each| {
            let mut outputs = Outputs { rows: None, each };
            let session = self.session()?;
            told(&session, session.execute_plan(plan, &mut outputs, &Cancelled::default()))?;
            outputs.flush()
        })
    }

    /// The columns of a table. The metadata `stoa.type` of a field is its type as declared.
    ///
    /// # Errors
    /// If there is no such table.
    pub fn describe(&self, table: &str) -> Result<SchemaRef> {
        let session = self.session()?;
        Ok(read_chunk(told(&session, session.describe(table))?)?.0)
    }

    /// Names of tables and views.
    ///
    /// # Errors
    /// If no coordinator can be reached.
    pub fn names(&self) -> Result<Vec<String>> {
        let session = self.session()?;
        told(&session, session.names())
    }

    /// Administers the cluster.
    ///
    /// # Errors
    /// Those of the statement that does the same.
    pub fn admin(&self, command: &AdminCommand) -> Result<Output> {
        let session = self.session()?;
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
        let session = self.session()?;
        Ok(Loader(told(&session, session.load(table))?))
    }
}

/// What a call gave. After a failure that may not come again elsewhere the next call of the client enters a coordinator anew.
fn told<T>(session: &SessionClient, outcome: Result<T>) -> Result<T> {
    if outcome.as_ref().is_err_and(|failure| failure.kind == FailureKind::Retryable) {
        session.leave();
    }
    outcome
}

/// As [`told`], of statements: those that change something may have done it before the connection broke.
fn ran<T>(session: &SessionClient, outcome: Result<T>) -> Result<T> {
    let broken = !session.alive();
    told(session, outcome).map_err(|failure| match failure.kind {
        FailureKind::Retryable if broken => {
            let what = "the connection to the coordinator broke while a statement ran: whether it was done is not known";
            Failure::new(FailureKind::Retryable, format!("{what} ({})", failure.message))
        }
        _ => failure,
    })
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

/// A prepared statement. It ends with its session: when the client has to enter another coordinator, prepare it again.
pub struct Prepared {
    session: Arc<SessionClient>,
    statement: Arc<dyn PreparedService>,
}

impl Prepared {
    /// How many values it takes.
    #[must_use]
    pub fn parameters(&self) -> u32 {
        self.statement.parameters()
    }

    /// Runs it with a value for each parameter, in their order, and hands what it gave to `each`; ends soon after `cancelled` is set.
    ///
    /// # Errors
    /// Those of the statement or of `each`; if the values are too many or too few; retryable if the session has ended.
    pub fn execute(&self, values: &[Parameter], cancelled: &Cancelled, each: &mut dyn FnMut(Output) -> Result<()>) -> Result<()> {
        if !self.session.alive() {
            let what = "the session that this statement was prepared in has ended: prepare it again";
            return Err(Failure::new(FailureKind::Retryable, what));
        }
        let mut outputs = Outputs { rows: None, each };
        told(&self.session, self.statement.execute(values, &mut outputs, cancelled))?;
        outputs.flush()
    }

    /// Runs it, if it is a query.
    ///
    /// # Errors
    /// If the statement gives no rows, or as [`Prepared::execute`].
    pub fn query(&self, values: &[Parameter]) -> Result<Rows> {
        rows_of("statement", |each| self.execute(values, &Cancelled::default(), each))
    }
}

/// Rows on their way into a table. Dropped before [`Loader::finish`], nothing of them stays.
pub struct Loader(Box<dyn TableLoad>);

impl Loader {
    /// Adds rows; columns are matched by position and cast to the table's types.
    ///
    /// # Errors
    /// If a row does not fit; nothing of the load stays then.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        write_chunks(std::slice::from_ref(batch), &mut |chunk| self.0.write(chunk))
    }

    /// Makes all rows visible; how many they are.
    ///
    /// # Errors
    /// If they cannot be stored; none is visible then.
    pub fn finish(mut self) -> Result<u64> {
        self.0.finish()
    }
}

/// Puts the parts of an answer together.
struct Outputs<'a> {
    rows: Option<Rows>,
    each: &'a mut dyn FnMut(Output) -> Result<()>,
}

impl Outputs<'_> {
    fn flush(&mut self) -> Result<()> {
        self.rows.take().map_or(Ok(()), |rows| (self.each)(Output::Rows(rows)))
    }
}

impl Answer for Outputs<'_> {
    fn part(&mut self, part: AnswerPart) -> Result<()> {
        match read(part)? {
            Part::Rows(batches) => {
                if let Some(rows) = &mut self.rows {
                    rows.batches.extend(batches);
                }
                Ok(())
            }
            Part::Columns(schema) => {
                self.flush()?;
                self.rows = Some(Rows { schema, batches: vec![] });
                Ok(())
            }
            Part::Text(text) => {
                self.flush()?;
                (self.each)(Output::Text(text))
            }
            Part::Plan(text) => {
                self.flush()?;
                (self.each)(Output::Plan(text))
            }
        }
    }
}

/// Hands parts on.
struct Parts<'a> {
    each: &'a mut dyn FnMut(Part) -> Result<()>,
    follow: Option<&'a mut dyn FnMut(HowFar)>,
}

impl Answer for Parts<'_> {
    fn part(&mut self, part: AnswerPart) -> Result<()> {
        (self.each)(read(part)?)
    }

    fn follows(&self) -> bool {
        self.follow.is_some()
    }

    fn follow(&mut self, how_far: HowFar) {
        if let Some(follow) = &mut self.follow {
            follow(how_far);
        }
    }
}

fn read(part: AnswerPart) -> Result<Part> {
    Ok(match part {
        AnswerPart::Columns(chunk) => Part::Columns(read_chunk(chunk)?.0),
        AnswerPart::Rows(chunk) => Part::Rows(read_chunk(chunk)?.1),
        AnswerPart::Text(text) => Part::Text(text),
        AnswerPart::Plan(text) => Part::Plan(text),
    })
}
