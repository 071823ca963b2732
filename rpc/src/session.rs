//! What a coordinator offers to clients and to other coordinators, as blocking calls.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::admin::{AdminCommand, AdminReply};
use crate::peer::PeerService;
use crate::{Result, RowOrigin};

pub use crate::parameter::Parameter;

/// A coordinator.
pub trait CoordinatorService: Send + Sync {
    /// A session of a user. Whoever does not know the cluster's secret needs a password, even where everybody may enter who does.
    ///
    /// # Errors
    /// If user and password do not fit, or there is no such database.
    fn enter(&self, login: &Login, knows_secret: bool) -> Result<Arc<dyn SessionService>>;

    /// What it offers to other coordinators.
    fn peer(&self) -> Arc<dyn PeerService>;
}

/// Statements that a connection may have under way: one of a session runs, the others wait.
pub const MAX_STATEMENTS: usize = 64;
/// Prepared statements that a connection may hold.
pub const MAX_PREPARED: usize = 128;
/// Bytes of the text of a prepared statement.
pub const MAX_PREPARED_BYTES: usize = 1 << 16;
/// Numbers of transactions that one question about a statement may have.
pub const MAX_TRANSACTIONS: usize = 1024;
/// Within so long a client that lost its coordinator has found out what came of its statement, or gives up. Outcomes are kept for longer.
pub const FINDS_OUT_WITHIN: Duration = Duration::from_secs(30);
/// The bit that numbers have which clients and coordinators choose at random for transactions that clients know.
pub const RANDOM: u64 = 1 << 63;

/// Who enters.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// Name of the user; empty: `root`.
    pub user: String,
    /// The password; may be empty.
    pub password: String,
    /// The database whose tables statements name; empty: `stoa`.
    pub database: String,
    /// The session before had a transaction open, which was lost with its coordinator: statements fail up to its end.
    pub lost: bool,
}

/// A number for a transaction that a client may ask for: nobody guesses it, and no coordinator makes it by itself.
#[must_use]
pub fn random_number() -> u64 {
    RandomState::new().build_hasher().finish() | RANDOM
}

/// What came of a statement whose coordinator was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatementOutcome {
    /// All of it was done.
    Committed,
    /// It changed nothing, and never will: it can be run again.
    Never,
    /// Why that cannot be found out.
    Unknown(String),
}

/// Set when a call is to end: by the caller, or because the caller is gone.
pub type Cancelled = Arc<AtomicBool>;

/// A session. Of its statements, prepared ones too, one runs at a time, in the order in which they come in.
pub trait SessionService: Send + Sync {
    /// Runs statements in order up to the first that fails; ends soon after `cancelled` is set.
    ///
    /// # Errors
    /// The first error of a statement or of `answer`.
    fn execute(&self, sql: &str, answer: &mut dyn Answer, cancelled: &Cancelled) -> Result<()>;

    /// Runs a plan: a message of `plan.capnp` without exchanges.
    ///
    /// # Errors
    /// If the plan is none, or as [`SessionService::execute`].
    fn execute_plan(&self, plan: &[u8], answer: &mut dyn Answer, cancelled: &Cancelled) -> Result<()>;

    /// Prepares one statement; its parameters are written as `?`.
    ///
    /// # Errors
    /// If the text cannot be parsed or is not one statement.
    fn prepare(&self, sql: &str) -> Result<Arc<dyn PreparedService>>;

    /// Takes rows for a table, all or none. `statement`: a number for its transaction, with which its client asks what came of it; 0: it
    /// will not ask.
    ///
    /// # Errors
    /// If there is no such table.
    fn load(&self, table: &str, statement: u64) -> Result<Box<dyn TableLoad>>;

    /// What came of a statement whose coordinator was lost, by its text (of a load: empty) and all numbers under which something of it may
    /// have been decided. What was not committed under one of them never will be.
    ///
    /// # Errors
    /// If the numbers are none that a client may ask for.
    fn outcome(&self, sql: &str, transactions: &[u64], cancelled: &Cancelled) -> Result<StatementOutcome>;

    /// Whether a transaction is open.
    fn in_transaction(&self) -> bool;

    /// Whether the coordinator is shutting down: what it refuses another one may do.
    fn closing(&self) -> bool {
        false
    }

    /// The columns of a table: an Arrow IPC stream without rows.
    ///
    /// # Errors
    /// If there is no such table.
    fn describe(&self, table: &str) -> Result<Vec<u8>>;

    /// Names of tables and views.
    ///
    /// # Errors
    /// If the coordinator cannot tell.
    fn names(&self) -> Result<Vec<String>>;

    /// Runs a command that administers the cluster; ends soon after `cancelled` is set.
    ///
    /// # Errors
    /// Those of the statement that does the same.
    fn admin(&self, command: &AdminCommand, cancelled: &Cancelled) -> Result<AdminReply>;
}

/// A prepared statement.
pub trait PreparedService: Send + Sync {
    /// How many values it takes.
    fn parameters(&self) -> u32;

    /// Runs it with a value for each parameter, in their order; ends soon after `cancelled` is set.
    ///
    /// # Errors
    /// If the values are too many or too few or do not fit, or as [`SessionService::execute`].
    fn execute(&self, values: &[Parameter], answer: &mut dyn Answer, cancelled: &Cancelled) -> Result<()>;
}

/// Takes what statements give.
pub trait Answer {
    /// Takes a part; waits if it has too many.
    ///
    /// # Errors
    /// If no more is wanted: the statement ends.
    fn part(&mut self, part: AnswerPart) -> Result<()>;

    /// Whether it wants to know how far the statements are.
    fn follows(&self) -> bool {
        false
    }

    /// Gets what tells how far they are.
    fn follow(&mut self, how_far: HowFar) {
        let _ = how_far;
    }

    /// What its client knows of the transactions of the call, if it asks what came of them when the coordinator is lost.
    fn decisions(&self) -> Option<Arc<dyn Decisions>> {
        None
    }
}

/// The numbers of the transactions of a call, as its client knows them.
pub trait Decisions: Send + Sync {
    /// That of the first transaction, which the client chose.
    fn number(&self) -> u64;

    /// A transaction of this number is about to be decided.
    ///
    /// # Errors
    /// If the client does not know it now: it must not be decided then.
    fn note(&self, transaction: u64) -> Result<()>;
}

/// Tells how far something is: what is done, and of how much, which may grow.
pub type HowFar = Arc<dyn Fn() -> (u64, u64) + Send + Sync>;

/// A part of what statements give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerPart {
    /// The rows of a statement follow: an Arrow IPC stream with their columns and none of them.
    Columns(Vec<u8>),
    /// Rows: an Arrow IPC stream.
    Rows(Vec<u8>),
    /// What a statement without rows says.
    Text(String),
    /// A plan: a line an operator and its notes.
    Plan(String),
}

impl AnswerPart {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            AnswerPart::Columns(bytes) | AnswerPart::Rows(bytes) => bytes.len(),
            AnswerPart::Text(text) | AnswerPart::Plan(text) => text.len(),
        }
    }
}

/// Rows on their way into a table. Dropped before [`TableLoad::finish`], nothing of them stays.
pub trait TableLoad: Send {
    /// Takes a chunk: an Arrow IPC stream. Without `origin` its rows follow those before; the first of all is row 1. The numbers in
    /// `origin` are not looked at.
    ///
    /// # Errors
    /// If a row does not fit the table, of this chunk or of one before.
    fn write(&mut self, chunk: Vec<u8>, origin: Option<RowOrigin>) -> Result<()>;

    /// Waits until all chunks were taken.
    ///
    /// # Errors
    /// As [`TableLoad::write`].
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// Makes all rows visible; how many they are.
    ///
    /// # Errors
    /// If that cannot be, or a row did not fit.
    fn finish(&mut self) -> Result<u64>;
}
