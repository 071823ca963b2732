//! What a coordinator offers to clients: sessions on its databases.

use std::sync::Arc;
use std::time::Duration;

use stoa_columnstore::RowNames;
use stoa_exec::{CancelToken, Progress};
use stoa_plan::codec::decode;
use stoa_rpc::admin::{AdminCommand, AdminReply};
use stoa_rpc::ipc::{chunk, read_chunk, write_chunks};
use stoa_rpc::peer::{Decided, ForLeader, ListedProcess, PeerService, PeerStatus};
use stoa_rpc::session::{
    Answer, AnswerPart, Cancelled, CoordinatorService, Login, MAX_TRANSACTIONS, PreparedService, RANDOM, SessionService,
    StatementOutcome, TableLoad,
};
use stoa_rpc::{Failure, FailureKind, Result, RowOrigin};

use crate::access::{self, Asker};
use crate::catalog::Privilege;
use crate::cluster::{Cluster, Shared};
use crate::prepared::ClientStatement;
use crate::session::Effect;
use crate::statements::Statements;
use crate::store::existing;
use crate::{Error, Membership, Outcome, Processes, Rows, Session, Store};

/// The database of clients that name none.
pub const DEFAULT_DATABASE: &str = "stoa";

/// The user of clients that name none.
pub const ROOT: &str = "root";

/// A coordinator.
#[derive(Clone)]
pub struct Coordinator {
    shared: Shared,
    membership: Arc<Membership>,
    statements: Statements,
}

impl Coordinator {
    /// A coordinator over a catalog and leaves, which lists what runs in `processes` and warns of statements that take longer than
    /// `slow`.
    #[must_use]
    pub fn new(shared: Shared, membership: Arc<Membership>, processes: Arc<Processes>, slow: Duration) -> Coordinator {
        let statements = Statements::new(processes, membership.clone(), slow);
        Coordinator { shared, membership, statements }
    }

    /// A user of another coordinator.
    fn asker<'a>(&self, user: &'a str) -> Asker<'a> {
        Asker { catalog: self.membership.catalog(), user, database: "" }
    }

    /// Takes no more statements: clients go to another coordinator.
    pub fn close(&self) {
        self.statements.close();
    }

    /// Whether it serves, or why not.
    ///
    /// # Errors
    /// Why not.
    pub fn healthy(&self) -> std::result::Result<(), String> {
        self.ready().map_err(|failure| failure.message)?;
        let leader = self.membership.consensus().ok().and_then(|consensus| consensus.leader());
        leader.map(drop).ok_or_else(|| "no coordinator leads the cluster".to_owned())
    }

    /// A coordinator that has no part in a cluster, or not yet the catalog of it, serves nobody.
    fn ready(&self) -> Result<()> {
        let consensus = self.membership.consensus().map_err(Error::into_failure)?;
        if consensus.catalog().coordinators.contains_key(&consensus.id()) {
            return Ok(());
        }
        let what = format!("the coordinator {} is only joining its cluster, or was removed from it", self.membership.address());
        Err(Failure::new(FailureKind::Retryable, what))
    }
}

impl CoordinatorService for Coordinator {
    fn enter(&self, login: &Login, knows_secret: bool) -> Result<Arc<dyn SessionService>> {
        self.ready()?;
        let catalog = self.membership.catalog();
        match self.let_in(login, knows_secret) {
            // Strangers cost nobody anything else before there are users.
            Err(failure) if !knows_secret && catalog.users.is_empty() => Err(failure),
            // The user, or the database, may have been made a moment ago through another coordinator.
            Err(_) if self.shared.control.catch_up(catalog.version) => self.let_in(login, knows_secret),
            done => done,
        }
    }

    fn peer(&self) -> Arc<dyn PeerService> {
        Arc::new(self.clone())
    }
}

impl Coordinator {
    fn let_in(&self, login: &Login, knows_secret: bool) -> Result<Arc<dyn SessionService>> {
        let name = if login.database.is_empty() { DEFAULT_DATABASE } else { &login.database };
        let user = if login.user.is_empty() { ROOT } else { &login.user };
        access::enter(&self.membership.catalog(), user, &login.password, knows_secret).map_err(Error::into_failure)?;
        // The default database may be missing: somebody has to make it. Any other must be there.
        let store = if name == DEFAULT_DATABASE {
            Cluster::named(name, user, &self.shared)
        } else {
            Cluster::open(name, user, &self.shared).map_err(Error::into_failure)?
        };
        let (user, database) = (user.to_owned(), name.to_lowercase());
        let (membership, statements, cluster) = (self.membership.clone(), self.statements.clone(), Arc::new(store));
        let session = Session::new(cluster.clone());
        if login.lost {
            session.lose();
        }
        Ok(Arc::new(ClientSession { session, cluster, membership, statements, user, database }))
    }
}

impl PeerService for Coordinator {
    fn consensus(&self, message: Vec<u8>, _: Duration) -> Result<Vec<u8>> {
        Ok(self.membership.consensus().map_err(Error::into_failure)?.handle(message))
    }

    fn decide(&self, statement: &ForLeader, cancelled: &Cancelled) -> Result<Decided> {
        if !self.membership.consensus().map_err(Error::into_failure)?.is_leader() {
            return Ok(Decided::NotLeader);
        }
        let session = Session::new(Arc::new(Cluster::named(&statement.database, &statement.user, &self.shared)));
        let (mut text, mut rows) = (String::new(), None);
        let mut each = |outcome| {
            match (outcome, &mut rows) {
                (Outcome::Done(said) | Outcome::Plan(said), _) => text = said,
                (Outcome::Rows { schema, batches }, rows) => *rows = Some((schema, batches)),
                (Outcome::More(more), Some((_, batches))) => batches.extend(more),
                (Outcome::More(_), None) => {}
            }
            Ok::<(), Error>(())
        };
        let cancel = CancelToken::from(cancelled.clone());
        let run = || session.run(&statement.sql, &cancel, &Progress::default(), &mut each).map_err(Error::into_failure);
        self.statements.run(&statement.user, &statement.database, &statement.sql, cancelled, run)?;
        let rows = rows.map_or(Ok(vec![]), |(schema, batches)| chunk(&schema, &batches))?;
        Ok(Decided::Done { text, rows, version: self.membership.catalog().version })
    }

    fn adopt(&self, node: u64) -> Result<()> {
        self.membership.adopt(node).map_err(Error::into_failure)
    }

    fn status(&self) -> Result<PeerStatus> {
        let leader = self.membership.consensus().ok().and_then(|consensus| consensus.leader());
        let leader = leader.map(|member| member.address).unwrap_or_default();
        let node = self.membership.number().map_or(0, |id| id.0);
        Ok(PeerStatus { node, leader, version: self.membership.catalog().version })
    }

    fn processes(&self, user: &str) -> Result<Vec<ListedProcess>> {
        Ok(self.shared.control.own_processes(&self.asker(user)))
    }

    fn kill(&self, user: &str, number: u64) -> Result<bool> {
        Ok(self.shared.control.kill_own(number, &self.asker(user)))
    }
}

struct ClientSession {
    session: Session,
    /// Its store.
    cluster: Arc<Cluster>,
    membership: Arc<Membership>,
    statements: Statements,
    user: String,
    database: String,
}

impl ClientSession {
    fn asker(&self) -> Asker<'_> {
        Asker { catalog: self.membership.catalog(), user: &self.user, database: &self.database }
    }
}

impl SessionService for ClientSession {
    fn execute(&self, sql: &str, answer: &mut dyn Answer, cancelled: &Cancelled) -> Result<()> {
        let (cancel, progress) = (CancelToken::from(cancelled.clone()), followed(answer));
        let _call = self.cluster.witness().begin(answer.decisions()).map_err(Error::into_failure)?;
        let mut each = |outcome| send(answer, outcome);
        let run = || self.session.run(sql, &cancel, &progress, &mut each).map_err(Told::into_failure);
        self.statements.run(&self.user, &self.database, sql, cancelled, run)
    }

    fn execute_plan(&self, plan: &[u8], answer: &mut dyn Answer, cancelled: &Cancelled) -> Result<()> {
        let query = decode(plan).map_err(|e| Failure::new(FailureKind::User, e.to_string()))?;
        let _call = self.cluster.witness().begin(None).map_err(Error::into_failure)?;
        let (cancel, progress) = (CancelToken::from(cancelled.clone()), followed(answer));
        let mut each = |outcome| send(answer, outcome);
        let run = || self.session.run_plan(&query, &cancel, &progress, &mut each).map_err(Told::into_failure);
        self.statements.run(&self.user, &self.database, "(a plan)", cancelled, run)
    }

    fn prepare(&self, sql: &str) -> Result<Arc<dyn PreparedService>> {
        let prepared = self.session.prepare(sql).map_err(Error::into_failure)?;
        let (session, statements, witness) = (self.session.clone(), self.statements.clone(), self.cluster.witness().clone());
        let (user, database) = (self.user.clone(), self.database.clone());
        Ok(Arc::new(ClientStatement { session, witness, statements, user, database, prepared }))
    }

    fn load(&self, table: &str, statement: u64) -> Result<Box<dyn TableLoad>> {
        let begin = || {
            self.asker().check_table(Privilege::Insert, table)?;
            self.cluster.beside(statement)?.rows(table)
        };
        let begin = || self.session.informed(begin);
        let rows = self.cluster.retry_limit().persist(&CancelToken::default(), begin).map_err(Error::into_failure)?;
        Ok(Box::new(ClientLoad { rows: Some(rows), file: String::new() }))
    }

    fn outcome(&self, sql: &str, transactions: &[u64], cancelled: &Cancelled) -> Result<StatementOutcome> {
        if transactions.len() > MAX_TRANSACTIONS || transactions.iter().any(|transaction| transaction & RANDOM == 0) {
            let what = format!("a client asks for the numbers that it chose or was told, {MAX_TRANSACTIONS} of them at most");
            return Err(Failure::new(FailureKind::User, what));
        }
        let effect = if sql.is_empty() { Effect::Once } else { self.session.effect(sql) };
        let outcome = match effect {
            Effect::Nothing => StatementOutcome::Never,
            Effect::Unclear(why) => StatementOutcome::Unknown(why.to_owned()),
            Effect::Once => {
                let cancel = CancelToken::from(cancelled.clone());
                self.cluster.outcome(transactions, &cancel).map_err(Error::into_failure)?
            }
        };
        if outcome == StatementOutcome::Committed {
            self.session.find();
        }
        Ok(outcome)
    }

    fn in_transaction(&self) -> bool {
        self.session.in_transaction()
    }

    fn closing(&self) -> bool {
        self.statements.closed()
    }

    fn describe(&self, table: &str) -> Result<Vec<u8>> {
        let find = || {
            self.asker().check_described(table)?;
            existing(&**self.session.store(), table)
        };
        let def = self.session.informed(find).map_err(Error::into_failure)?;
        chunk(&def.described_schema(), &[])
    }

    fn names(&self) -> Result<Vec<String>> {
        Ok(self.session.names())
    }

    fn admin(&self, command: &AdminCommand, cancelled: &Cancelled) -> Result<AdminReply> {
        let mut reply = AdminReply::Said(String::new());
        let mut each = |outcome| {
            match outcome {
                Outcome::Done(text) | Outcome::Plan(text) => reply = AdminReply::Said(text),
                Outcome::Rows { schema, batches } => reply = AdminReply::Listing(chunk(&schema, &batches)?),
                // Listings are made at once.
                Outcome::More(_) => {}
            }
            Ok::<(), Error>(())
        };
        let (sql, cancel) = (command.sql(), CancelToken::from(cancelled.clone()));
        let run = || self.session.run(&sql, &cancel, &Progress::default(), &mut each).map_err(Error::into_failure);
        self.statements.run(&self.user, &self.database, &sql, cancelled, run)?;
        Ok(reply)
    }
}

/// An error of a statement, or of telling what it gave.
pub(crate) enum Told {
    Statement(Error),
    Answer(Failure),
}

impl From<Error> for Told {
    fn from(error: Error) -> Told {
        Told::Statement(error)
    }
}

impl Told {
    pub fn into_failure(self) -> Failure {
        match self {
            Told::Statement(error) => error.into_failure(),
            Told::Answer(failure) => failure,
        }
    }
}

/// How far statements are, for their client if it wants to know.
pub(crate) fn followed(answer: &mut dyn Answer) -> Progress {
    let progress = Progress::default();
    if answer.follows() {
        let told = progress.clone();
        answer.follow(Arc::new(move || told.now()));
    }
    progress
}

/// Hands on what a statement gave.
pub(crate) fn send(answer: &mut dyn Answer, outcome: Outcome) -> std::result::Result<(), Told> {
    let sent = match outcome {
        Outcome::Done(text) => answer.part(AnswerPart::Text(text)),
        Outcome::Plan(text) => answer.part(AnswerPart::Plan(text)),
        Outcome::Rows { schema, batches } => chunk(&schema, &[])
            .and_then(|columns| answer.part(AnswerPart::Columns(columns)))
            .and_then(|()| write_chunks(&batches, &mut |chunk| answer.part(AnswerPart::Rows(chunk)))),
        Outcome::More(batches) => write_chunks(&batches, &mut |chunk| answer.part(AnswerPart::Rows(chunk))),
    };
    sent.map_err(Told::Answer)
}

/// A client's load.
struct ClientLoad {
    /// Nothing once it has ended or failed.
    rows: Option<Box<dyn Rows>>,
    /// The file that the rows of the last chunk are of.
    file: String,
}

impl ClientLoad {
    /// A failure of rows with the file that they are of: the client may be at the next one already.
    fn named(&self, error: Error) -> Failure {
        let failure = error.into_failure();
        if failure.kind != FailureKind::User || self.file.is_empty() || failure.message.contains(&self.file) {
            return failure;
        }
        Failure { message: format!("{}: {}", self.file, failure.message), ..failure }
    }
}

impl TableLoad for ClientLoad {
    fn write(&mut self, chunk: Vec<u8>, origin: Option<RowOrigin>) -> Result<()> {
        let rows = self.rows.as_mut().ok_or_else(over)?;
        if let Some(RowOrigin { file, lines, first, .. }) = origin {
            rows.number_rows(&file, if lines { RowNames::LINES } else { RowNames::ROWS }, first);
            self.file = file;
        }
        let (_, batches) = read_chunk(chunk)?;
        let pushed = batches.iter().try_for_each(|batch| rows.push(batch)).map_err(|error| self.named(error));
        if pushed.is_err() {
            // What came before this row does not stay without it.
            self.rows = None;
        }
        pushed
    }

    fn finish(&mut self) -> Result<u64> {
        self.rows.take().ok_or_else(over)?.finish().map_err(Error::into_failure)
    }
}

fn over() -> Failure {
    Failure::new(FailureKind::User, "this load has ended")
}
