//! A session on a coordinator elsewhere, as the [`SessionService`] that it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use capnp::capability::Rc;
use capnp_rpc::new_client;
use stoa_schema::common_capnp::done as done_result;
use stoa_schema::coordinator_capnp::{
    answer, described, entered, gate, load, loaded, loading, outcome, prepared, prepared_statement, session,
};
use tokio::sync::{mpsc, oneshot};

use crate::admin::{AdminCommand, AdminReply};
use crate::client::{LONG, Line, Remote, SHORT, answer, connect, say_hello};
use crate::io::gone;
use crate::session::{
    Answer, AnswerPart, Cancelled, Decisions, Login, Parameter, PreparedService, SessionService, StatementOutcome, TableLoad,
};
use crate::{FINDS_OUT, Failure, FailureKind, Heard, Io, Result, RowOrigin, Security, done, origin, parameter, parts, pump};

/// Parts of an answer that wait for the thread that takes them.
const QUEUED: usize = 2;
/// Chunks of a load that are on their way: one is taken while the next one is sent and made.
const WRITES: usize = 2;
/// Who waits for an answer and does not look for it for so long has slept: the process was stopped, or the machine.
const SLEPT: Duration = Duration::from_secs(10);

/// A session.
pub struct SessionClient {
    remote: Remote<session::Client>,
    address: String,
    link: Arc<Link>,
    /// The coordinator finds out what came of statements of others.
    finds_out: bool,
}

/// What a session and its statements know of their connection.
#[derive(Default)]
struct Link {
    line: Arc<Line>,
    /// A transaction is open.
    open: AtomicBool,
    /// The coordinator is shutting down, and did not even begin the last statement.
    refused: AtomicBool,
    /// This side slept while a statement ran: how long ago its coordinator was lost is not known.
    slept: AtomicBool,
}

impl Link {
    /// What a call gave; if the connection broke under it that is known from now on.
    fn heard<T>(&self, answer: std::result::Result<T, capnp::Error>) -> Result<T> {
        answer.map_err(|error| {
            let failure = Failure::from(error);
            if failure.kind == FailureKind::Retryable {
                self.line.end();
            }
            failure
        })
    }

    /// What came of statements; a coordinator that refuses them is left.
    fn ran(&self, result: done_result::Reader<'_>, refused: bool) -> Result<()> {
        if refused {
            self.refused.store(true, Ordering::Relaxed);
            self.line.end();
        }
        done::read(result)
    }
}

impl SessionClient {
    /// Enters the first coordinator of these that answers, in their order.
    ///
    /// # Errors
    /// If none can be reached, or the first that can refuses.
    pub fn connect(io: &Io, addresses: &[String], security: &Security, login: &Login) -> Result<SessionClient> {
        let mut last = Failure::new(FailureKind::User, "no coordinator was named");
        for address in addresses {
            match SessionClient::enter(io, address, security, login) {
                Err(failure) if failure.kind == FailureKind::Retryable => last = failure,
                other => return other,
            }
        }
        Err(last)
    }

    fn enter(io: &Io, address: &str, security: &Security, login: &Login) -> Result<SessionClient> {
        let (own, to, security, login) = (io.clone(), address.to_owned(), security.clone(), login.clone());
        io.call(move || async move {
            let link = Link::default();
            let gate: gate::Client = connect(&to, &security, link.line.clone(), true).await?;
            let mut request = gate.enter_request();
            request.get().set_lost(login.lost);
            request.get().set_user(&login.user);
            request.get().set_password(&login.password);
            request.get().set_database(&login.database);
            say_hello(request.get().init_hello(), &security);
            let response = answer(&to, &security, SHORT, request.send().promise).await?;
            let result = response.get()?.get_result()?;
            let session = match result.which().map_err(capnp::Error::from)? {
                entered::Session(session) => session?,
                entered::Failure(failure) => return Err(Failure::read(failure?)?),
            };
            let (remote, finds_out) = (Remote::new(own, session), result.get_minor() >= FINDS_OUT);
            link.open.store(login.lost && finds_out, Ordering::Relaxed);
            Ok(SessionClient { remote, address: to, link: Arc::new(link), finds_out })
        })
    }

    /// The coordinator's address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether the connection still stands.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.link.line.stands()
    }

    /// Counts the connection as broken from now on.
    pub fn leave(&self) {
        self.link.line.end();
    }

    /// Whether the coordinator takes numbers for statements, and answers [`SessionService::outcome`].
    #[must_use]
    pub fn finds_out(&self) -> bool {
        self.finds_out
    }

    /// Whether the coordinator is shutting down, and did not even begin the last statement.
    #[must_use]
    pub fn refused(&self) -> bool {
        self.link.refused.load(Ordering::Relaxed)
    }

    /// Whether this side slept while a statement ran: outcomes may be forgotten since.
    #[must_use]
    pub fn slept(&self) -> bool {
        self.link.slept.load(Ordering::Relaxed)
    }
}

impl SessionService for SessionClient {
    fn execute(&self, sql: &str, answer: &mut dyn Answer, cancelled: &Cancelled) -> Result<()> {
        let (sql, link) = (sql.to_owned(), self.link.clone());
        let (server, parts) = AnswerServer::of(answer);
        let outcome = self.remote.start(move |session| async move {
            let mut request = session.execute_request();
            request.get().set_sql(&sql);
            request.get().set_progress(server.heard.is_some());
            request.get().set_statement(server.number());
            request.get().set_whole(true);
            request.get().set_answer(new_client(server));
            let response = link.heard(request.send().promise.await)?;
            let results = response.get()?;
            link.open.store(results.get_open(), Ordering::Relaxed);
            Ok((parts::read(results.get_parts()?)?, link.ran(results.get_result()?, results.get_refused())))
        });
        drain(&self.link, parts, outcome, answer, cancelled)
    }

    fn execute_plan(&self, plan: &[u8], answer: &mut dyn Answer, cancelled: &Cancelled) -> Result<()> {
        let (plan, link) = (plan.to_vec(), self.link.clone());
        let (server, parts) = AnswerServer::of(answer);
        let outcome = self.remote.start(move |session| async move {
            let mut request = session.execute_plan_request();
            request.get().set_plan(&plan);
            request.get().set_progress(server.heard.is_some());
            request.get().set_whole(true);
            request.get().set_answer(new_client(server));
            let response = link.heard(request.send().promise.await)?;
            let results = response.get()?;
            Ok((parts::read(results.get_parts()?)?, link.ran(results.get_result()?, results.get_refused())))
        });
        drain(&self.link, parts, outcome, answer, cancelled)
    }

    fn prepare(&self, sql: &str) -> Result<Arc<dyn PreparedService>> {
        let (sql, io, link) = (sql.to_owned(), self.remote.io().clone(), self.link.clone());
        let statement = self.remote.call(SHORT, move |session| async move {
            let mut request = session.prepare_request();
            request.get().set_sql(&sql);
            let response = link.heard(request.send().promise.await)?;
            match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                prepared::Done(done) => {
                    let remote = Remote::new(io, done.get_statement()?);
                    Ok(RemoteStatement { remote, parameters: done.get_parameters(), link })
                }
                prepared::Failure(failure) => Err(Failure::read(failure?)?),
            }
        })?;
        Ok(Arc::new(statement))
    }

    fn load(&self, table: &str, statement: u64) -> Result<Box<dyn TableLoad>> {
        let (table, io, link) = (table.to_owned(), self.remote.io().clone(), self.link.clone());
        let load = self.remote.call(SHORT, move |session| async move {
            let mut request = session.load_request();
            request.get().set_table(&table);
            request.get().set_statement(statement);
            let response = link.heard(request.send().promise.await)?;
            match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                loading::Load(load) => {
                    Ok(RemoteLoad { remote: Remote::new(io, load?), link, sent: VecDeque::new(), failed: false })
                }
                loading::Failure(failure) => Err(Failure::read(failure?)?),
            }
        })?;
        Ok(Box::new(load))
    }

    fn outcome(&self, sql: &str, transactions: &[u64], cancelled: &Cancelled) -> Result<StatementOutcome> {
        let (sql, transactions, link) = (sql.to_owned(), transactions.to_vec(), self.link.clone());
        let outcome = self.remote.start(move |session| async move {
            let mut request = session.outcome_request();
            request.get().set_sql(&sql);
            request.get().set_transactions(&transactions[..])?;
            let response = link.heard(request.send().promise.await)?;
            let results = response.get()?;
            link.open.store(results.get_open(), Ordering::Relaxed);
            Ok(match results.get_result()?.which().map_err(capnp::Error::from)? {
                outcome::Committed(()) => StatementOutcome::Committed,
                outcome::Never(()) => StatementOutcome::Never,
                outcome::Unknown(why) => StatementOutcome::Unknown(why?.to_string().map_err(capnp::Error::from)?),
                outcome::Failure(failure) => return Err(Failure::read(failure?)?),
            })
        });
        wait(outcome, cancelled)
    }

    fn in_transaction(&self) -> bool {
        self.link.open.load(Ordering::Relaxed)
    }

    fn describe(&self, table: &str) -> Result<Vec<u8>> {
        let (table, link) = (table.to_owned(), self.link.clone());
        self.remote.call(SHORT, move |session| async move {
            let mut request = session.describe_request();
            request.get().set_table(&table);
            let response = link.heard(request.send().promise.await)?;
            match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                described::Columns(columns) => Ok(columns?.to_vec()),
                described::Failure(failure) => Err(Failure::read(failure?)?),
            }
        })
    }

    fn names(&self) -> Result<Vec<String>> {
        let link = self.link.clone();
        self.remote.call(SHORT, |session| async move {
            let response = link.heard(session.names_request().send().promise.await)?;
            let names = response.get()?.get_names()?;
            Ok(names.iter().map(|n| Ok(n?.to_string()?)).collect::<capnp::Result<_>>()?)
        })
    }

    fn admin(&self, command: &AdminCommand, cancelled: &Cancelled) -> Result<AdminReply> {
        let command = command.clone();
        let outcome = self.remote.start(move |session| async move {
            let admin = session.admin_request().send().pipeline.get_admin();
            crate::admin_client::call(admin, command).await
        });
        wait(outcome, cancelled)
    }
}

/// Waits for a call that answers at once, or until nobody wants it.
fn wait<T>(outcome: tokio::sync::oneshot::Receiver<Result<T>>, cancelled: &Cancelled) -> Result<T> {
    let (_, nothing) = mpsc::channel::<()>(1);
    pump::drain(nothing, outcome, &mut |_| match cancelled.load(Ordering::Relaxed) {
        true => Err(Failure::cancelled()),
        false => Ok(()),
    })
}

/// A prepared statement of a session elsewhere.
struct RemoteStatement {
    remote: Remote<prepared_statement::Client>,
    parameters: u32,
    link: Arc<Link>,
}

impl PreparedService for RemoteStatement {
    fn parameters(&self) -> u32 {
        self.parameters
    }

    fn execute(&self, values: &[Parameter], answer: &mut dyn Answer, cancelled: &Cancelled) -> Result<()> {
        let (values, link) = (values.to_vec(), self.link.clone());
        let (server, parts) = AnswerServer::of(answer);
        let outcome = self.remote.start(move |statement| async move {
            let mut request = statement.execute_request();
            let count = u32::try_from(values.len()).map_err(|_| Failure::new(FailureKind::User, "too many values"))?;
            parameter::write(&values, request.get().init_parameters(count));
            request.get().set_progress(server.heard.is_some());
            request.get().set_statement(server.number());
            request.get().set_whole(true);
            request.get().set_answer(new_client(server));
            let response = link.heard(request.send().promise.await)?;
            let results = response.get()?;
            link.open.store(results.get_open(), Ordering::Relaxed);
            Ok((parts::read(results.get_parts()?)?, link.ran(results.get_result()?, results.get_refused())))
        });
        drain(&self.link, parts, outcome, answer, cancelled)
    }
}

/// The parts that a result took along, and how the call ended.
type Ended = (Vec<AnswerPart>, Result<()>);

fn drain(
    link: &Link,
    parts: mpsc::Receiver<AnswerPart>,
    ended: tokio::sync::oneshot::Receiver<Result<Ended>>,
    answer: &mut dyn Answer,
    cancelled: &Cancelled,
) -> Result<()> {
    let mut awake = Awake::new(link);
    let mut take = |part| {
        awake.look();
        match part {
            _ if cancelled.load(Ordering::Relaxed) => Err(Failure::cancelled()),
            Some(part) => answer.part(part),
            None => Ok(()),
        }
    };
    let ran = pump::drain(parts, ended, &mut take)
        .and_then(|(last, ran)| last.into_iter().try_for_each(|part| take(Some(part))).and(ran));
    ran.inspect_err(|_| awake.look())
}

/// Notices that this side slept while it waited for an answer.
struct Awake<'a> {
    link: &'a Link,
    /// When it looked last, by a clock that stands while the machine sleeps and one that does not.
    last: (Instant, SystemTime),
}

impl Awake<'_> {
    fn new(link: &Link) -> Awake<'_> {
        link.slept.store(false, Ordering::Relaxed);
        Awake { link, last: (Instant::now(), SystemTime::now()) }
    }

    fn look(&mut self) {
        let now = (Instant::now(), SystemTime::now());
        let passed = now.0.duration_since(self.last.0).max(now.1.duration_since(self.last.1).unwrap_or_default());
        if passed > SLEPT {
            self.link.slept.store(true, Ordering::Relaxed);
        }
        self.last = now;
    }
}

/// What the coordinator writes its answer to: parts go into a bounded queue.
struct AnswerServer {
    parts: mpsc::Sender<AnswerPart>,
    /// How far the statements are, if that is wanted.
    heard: Option<Arc<Heard>>,
    /// The transactions of the call.
    decisions: Option<Arc<dyn Decisions>>,
}

impl AnswerServer {
    fn of(answer: &mut dyn Answer) -> (AnswerServer, mpsc::Receiver<AnswerPart>) {
        let (parts, receiver) = mpsc::channel(QUEUED);
        let heard = answer.follows().then(Arc::<Heard>::default);
        if let Some(heard) = heard.clone() {
            answer.follow(Arc::new(move || heard.now()));
        }
        (AnswerServer { parts, heard, decisions: answer.decisions() }, receiver)
    }

    /// Of the first transaction; 0: nobody will ask for it.
    fn number(&self) -> u64 {
        self.decisions.as_ref().map_or(0, |decisions| decisions.number())
    }

    async fn put(&self, part: AnswerPart) -> capnp::Result<()> {
        self.parts.send(part).await.map_err(|_| capnp::Error::failed("no more is wanted".into()))
    }
}

impl answer::Server for AnswerServer {
    async fn columns(self: Rc<Self>, params: answer::ColumnsParams, _: answer::ColumnsResults) -> capnp::Result<()> {
        let schema = params.get()?.get_stream()?.to_vec();
        self.put(AnswerPart::Columns(schema)).await
    }

    async fn rows(self: Rc<Self>, params: answer::RowsParams, _: answer::RowsResults) -> capnp::Result<()> {
        let chunk = params.get()?.get_chunk()?.to_vec();
        self.put(AnswerPart::Rows(chunk)).await
    }

    async fn text(self: Rc<Self>, params: answer::TextParams, _: answer::TextResults) -> capnp::Result<()> {
        let params = params.get()?;
        let text = params.get_text()?.to_string()?;
        let part = if params.get_plan() { AnswerPart::Plan(text) } else { AnswerPart::Text(text) };
        self.put(part).await
    }

    async fn progress(self: Rc<Self>, params: answer::ProgressParams, _: answer::ProgressResults) -> capnp::Result<()> {
        let params = params.get()?;
        if let Some(heard) = &self.heard {
            heard.tell(params.get_done(), params.get_total());
        }
        Ok(())
    }

    async fn deciding(self: Rc<Self>, params: answer::DecidingParams, _: answer::DecidingResults) -> capnp::Result<()> {
        let transaction = params.get()?.get_transaction();
        let nobody = || Err(Failure::new(FailureKind::User, "nobody will ask for this transaction"));
        Ok(self.decisions.as_ref().map_or_else(nobody, |decisions| decisions.note(transaction))?)
    }
}

/// A load into a table, by calls of which some are always on their way: what one finds is told by a later one.
struct RemoteLoad {
    remote: Remote<load::Client>,
    link: Arc<Link>,
    /// Chunks that were not answered yet, in order.
    sent: VecDeque<oneshot::Receiver<Result<()>>>,
    /// One of them was not taken: no other call is made.
    failed: bool,
}

impl RemoteLoad {
    /// Waits until no more than so many chunks are not answered.
    fn wait(&mut self, most: usize) -> Result<()> {
        if self.failed {
            return Err(Failure::new(FailureKind::User, "this load has failed"));
        }
        while self.sent.len() > most
            && let Some(first) = self.sent.pop_front()
        {
            first.blocking_recv().unwrap_or_else(|_| Err(gone())).inspect_err(|_| self.failed = true)?;
        }
        Ok(())
    }
}

impl TableLoad for RemoteLoad {
    fn write(&mut self, chunk: Vec<u8>, from: Option<RowOrigin>) -> Result<()> {
        self.wait(WRITES - 1)?;
        let link = self.link.clone();
        self.sent.push_back(self.remote.begin(LONG, move |load| async move {
            let mut request = load.write_request();
            request.get().set_chunk(&chunk);
            if let Some(from) = &from {
                origin::write(from, request.get().init_origin())?;
            }
            let response = link.heard(request.send().promise.await)?;
            done::read(response.get()?.get_result()?)
        }));
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.wait(0)
    }

    fn finish(&mut self) -> Result<u64> {
        self.flush()?;
        let link = self.link.clone();
        let outcome = self.remote.start(move |load| async move {
            let response = link.heard(load.finish_request().send().promise.await)?;
            match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                loaded::Rows(rows) => Ok(rows),
                loaded::Failure(failure) => Err(Failure::read(failure?)?),
            }
        });
        let (_, nothing) = mpsc::channel::<()>(1);
        let mut awake = Awake::new(&self.link);
        pump::drain(nothing, outcome, &mut |_| {
            awake.look();
            Ok(())
        })
        .inspect_err(|_| awake.look())
    }
}
