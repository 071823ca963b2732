//! A [`CoordinatorService`] on a port.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use capnp::capability::Rc;
use capnp_rpc::new_client;
use futures_util::future::Either;
use stoa_schema::coordinator_capnp::{answer, gate, load, loaded, prepared_statement, session};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::admin_server::AdminServer;
use crate::done;
use crate::door::{Door, Who};
use crate::io::{Allowance, blocking, gone};
use crate::listen::{Calls, Limits, Listener, listen};
use crate::parameter;
use crate::peer_server::{Guard, PeerServer};
use crate::session::{
    Answer, AnswerPart, Cancelled, CoordinatorService, HowFar, Login, MAX_PREPARED, MAX_PREPARED_BYTES, MAX_STATEMENTS,
    PreparedService, SessionService, TableLoad,
};
use crate::{Failure, FailureKind, Io, MAJOR, MINOR, Result, Security};

/// Parts of an answer that wait for a connection.
const QUEUED: usize = 4;
/// How often a statement that waits for its client looks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(20);
/// A call that runs longer than this tells how far it is.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it tells that.
const TELL: Duration = Duration::from_millis(250);

/// Clients that know the secret and log in at once; the others do so one at a time, so that they hold up nobody else.
const LOGINS: usize = 8;

/// Serves a coordinator on a port.
///
/// # Errors
/// If the address cannot be listened on, or would be open to others without a secret and TLS.
pub fn serve_coordinator(
    io: &Io,
    address: &str,
    security: &Security,
    limits: Limits,
    service: Arc<dyn CoordinatorService>,
) -> Result<Listener> {
    let logins = [1, LOGINS].map(|most| Arc::new(Semaphore::new(most)));
    listen(io, address, security, limits, move |door| {
        let prepared = Arc::new(Semaphore::new(MAX_PREPARED));
        let statements = Allowance::new(MAX_STATEMENTS);
        let gate: gate::Client =
            new_client(GateServer { service: service.clone(), door, logins: logins.clone(), prepared, statements });
        gate.client
    })
}

struct GateServer {
    service: Arc<dyn CoordinatorService>,
    door: Door,
    /// Who may log in now: of those without the secret, and of those with it.
    logins: [Arc<Semaphore>; 2],
    /// How many more statements the connection may prepare.
    prepared: Arc<Semaphore>,
    /// How many statements the connection may have under way.
    statements: Arc<Allowance>,
}

impl GateServer {
    /// Checking a password is work: it waits for its turn before it gets a thread.
    async fn log_in(&self, login: Login, knows_secret: bool) -> Result<SessionServer> {
        let turn = self.logins[usize::from(knows_secret)].clone().acquire_owned().await.map_err(|_| gone())?;
        let service = self.service.clone();
        let session = blocking(move || {
            let _turn = turn;
            service.enter(&login, knows_secret)
        })
        .await?;
        self.door.let_in(Who::Client)?;
        let (calls, room) = (self.door.calls().clone(), self.statements.clone());
        let turns = Turns { calls, room, turn: Arc::default() };
        Ok(SessionServer { session, turns, prepared: self.prepared.clone() })
    }
}

impl gate::Server for GateServer {
    async fn enter(self: Rc<Self>, params: gate::EnterParams, mut results: gate::EnterResults) -> capnp::Result<()> {
        let params = params.get()?;
        let verdict = self.door.check_client(params.get_hello()?)?;
        let login = Login {
            user: params.get_user()?.to_string()?,
            password: params.get_password()?.to_string()?,
            database: params.get_database()?.to_string()?,
        };
        let entered = match verdict {
            Ok(knows_secret) => self.log_in(login, knows_secret).await,
            Err(failure) => Err(failure),
        };
        let mut result = results.get().init_result();
        result.set_major(MAJOR);
        result.set_minor(MINOR);
        match entered {
            Ok(session) => result.set_session(new_client(session)),
            Err(failure) => failure.write(result.init_failure()),
        }
        Ok(())
    }

    async fn peer(self: Rc<Self>, params: gate::PeerParams, mut results: gate::PeerResults) -> capnp::Result<()> {
        let verdict = self.door.check(params.get()?.get_hello()?)?;
        let mut result = results.get().init_result();
        match verdict.and_then(|()| self.door.let_in(Who::Peer)) {
            Ok(()) => result.set_peer(new_client(PeerServer(self.service.peer()))),
            Err(failure) => failure.write(result.init_failure()),
        }
        Ok(())
    }
}

/// The turns of a session's statements: one has the next when it has ended and its answer was taken.
#[derive(Clone)]
struct Turns {
    calls: Calls,
    /// How many statements the connection may have under way.
    room: Arc<Allowance>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// Runs a call that answers in parts when it is its turn: they go out while it runs, and how far it is, if that is wanted. If the caller
/// goes away, it is cancelled.
async fn answered(
    turns: &Turns,
    (to, progress): (answer::Client, bool),
    run: impl FnOnce(&mut dyn Answer, &Cancelled) -> Result<()> + Send + 'static,
) -> Result<()> {
    let _room = turns.room.take("this connection")?;
    let _call = turns.calls.begin();
    // One that is cancelled has its turn until it has ended.
    let turn = turns.turn.clone().lock_owned().await;
    let (sender, parts) = mpsc::channel(QUEUED);
    let cancelled = Cancelled::default();
    let _guard = Guard(cancelled.clone());
    let followed = progress.then(Followed::default);
    let mut sink = QueueAnswer { parts: sender, cancelled: cancelled.clone(), followed: followed.clone() };
    let work = async {
        let run = std::pin::pin!(blocking(move || Ok((run(&mut sink, &cancelled), turn))));
        let send = std::pin::pin!(send(parts, &to));
        match futures_util::future::select(run, send).await {
            // What still waits is for nobody: a client that does not take it holds nothing up.
            Either::Left((Err(failure), _)) => Err(failure),
            Either::Left((Ok((Err(failure), _)), _)) if failure.kind == FailureKind::Cancelled => Err(failure),
            Either::Left((Ok((ran, _turn)), send)) => send.await.and(ran),
            Either::Right((sent, run)) => {
                let ran = run.await.and_then(|(ran, _)| ran);
                sent.and(ran)
            }
        }
    };
    let Some(followed) = followed else { return work.await };
    tokio::select! {
        ran = work => ran,
        never = tell(&followed, &to) => match never {},
    }
}

/// What tells how far the statements of a call are.
type Followed = Arc<OnceLock<HowFar>>;

/// Tells a client how far a call is, again and again once it has taken a while.
async fn tell(followed: &Followed, to: &answer::Client) -> Infallible {
    tokio::time::sleep(PATIENCE).await;
    let mut last = (0, 0);
    loop {
        let now = followed.get().map_or(last, |how_far| how_far());
        if now != last {
            let mut request = to.progress_request();
            request.get().set_done(now.0);
            request.get().set_total(now.1);
            // One that does not take it does not get its rows either: that is told by those.
            let _ = request.send().promise.await;
            last = now;
        }
        tokio::time::sleep(TELL).await;
    }
}

struct SessionServer {
    session: Arc<dyn SessionService>,
    turns: Turns,
    prepared: Arc<Semaphore>,
}

impl SessionServer {
    async fn prepare(&self, sql: String) -> Result<PreparedServer> {
        if sql.len() > MAX_PREPARED_BYTES {
            let what = format!("a statement of {} bytes cannot be prepared: {MAX_PREPARED_BYTES} are the most", sql.len());
            return Err(Failure::new(FailureKind::User, what));
        }
        let Ok(permit) = self.prepared.clone().try_acquire_owned() else {
            let what = format!("this connection has {MAX_PREPARED} prepared statements, the most that one may have: drop some");
            return Err(Failure::new(FailureKind::User, what));
        };
        let session = self.session.clone();
        let statement = blocking(move || session.prepare(&sql)).await?;
        Ok(PreparedServer { statement, turns: self.turns.clone(), _permit: permit })
    }
}

impl session::Server for SessionServer {
    async fn execute(self: Rc<Self>, params: session::ExecuteParams, mut results: session::ExecuteResults) -> capnp::Result<()> {
        let params = params.get()?;
        let (sql, to) = (params.get_sql()?.to_string()?, (params.get_answer()?, params.get_progress()));
        let session = self.session.clone();
        let ran = answered(&self.turns, to, move |answer, cancelled| session.execute(&sql, answer, cancelled)).await;
        done::write(ran, results.get().init_result());
        Ok(())
    }

    async fn execute_plan(
        self: Rc<Self>,
        params: session::ExecutePlanParams,
        mut results: session::ExecutePlanResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let (plan, to) = (params.get_plan()?.to_vec(), (params.get_answer()?, params.get_progress()));
        let session = self.session.clone();
        let ran = answered(&self.turns, to, move |answer, cancelled| session.execute_plan(&plan, answer, cancelled)).await;
        done::write(ran, results.get().init_result());
        Ok(())
    }

    async fn load(self: Rc<Self>, params: session::LoadParams, mut results: session::LoadResults) -> capnp::Result<()> {
        let table = params.get()?.get_table()?.to_string()?;
        let session = self.session.clone();
        let mut result = results.get().init_result();
        match blocking(move || session.load(&table)).await {
            Ok(load) => {
                let (load, room) = (Arc::new(tokio::sync::Mutex::new(load)), self.turns.room.clone());
                result.set_load(new_client(LoadServer { load, room }));
            }
            Err(failure) => failure.write(result.init_failure()),
        }
        Ok(())
    }

    async fn describe(
        self: Rc<Self>,
        params: session::DescribeParams,
        mut results: session::DescribeResults,
    ) -> capnp::Result<()> {
        let table = params.get()?.get_table()?.to_string()?;
        let session = self.session.clone();
        let mut result = results.get().init_result();
        match blocking(move || session.describe(&table)).await {
            Ok(columns) => result.set_columns(&columns),
            Err(failure) => failure.write(result.init_failure()),
        }
        Ok(())
    }

    async fn names(self: Rc<Self>, _: session::NamesParams, mut results: session::NamesResults) -> capnp::Result<()> {
        let session = self.session.clone();
        let names = blocking(move || session.names()).await?;
        let mut list = results.get().init_names(names.len() as u32);
        (0u32..).zip(&names).for_each(|(i, name)| list.set(i, name));
        Ok(())
    }

    async fn admin(self: Rc<Self>, _: session::AdminParams, mut results: session::AdminResults) -> capnp::Result<()> {
        results.get().set_admin(new_client(AdminServer(self.session.clone())));
        Ok(())
    }

    async fn prepare(self: Rc<Self>, params: session::PrepareParams, mut results: session::PrepareResults) -> capnp::Result<()> {
        let sql = params.get()?.get_sql()?.to_string()?;
        let result = results.get().init_result();
        match SessionServer::prepare(&self, sql).await {
            Ok(server) => {
                let mut done = result.init_done();
                done.set_parameters(server.statement.parameters());
                done.set_statement(new_client(server));
            }
            Err(failure) => failure.write(result.init_failure()),
        }
        Ok(())
    }
}

struct PreparedServer {
    statement: Arc<dyn PreparedService>,
    turns: Turns,
    _permit: OwnedSemaphorePermit,
}

impl prepared_statement::Server for PreparedServer {
    async fn execute(
        self: Rc<Self>,
        params: prepared_statement::ExecuteParams,
        mut results: prepared_statement::ExecuteResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let values = parameter::read(params.get_parameters()?)?;
        let to = (params.get_answer()?, params.get_progress());
        let statement = self.statement.clone();
        let ran = answered(&self.turns, to, move |answer, cancelled| statement.execute(&values, answer, cancelled)).await;
        done::write(ran, results.get().init_result());
        Ok(())
    }
}

struct QueueAnswer {
    parts: mpsc::Sender<AnswerPart>,
    cancelled: Cancelled,
    followed: Option<Followed>,
}

impl Answer for QueueAnswer {
    /// Waits for the client, but not once the statement is cancelled.
    fn part(&mut self, part: AnswerPart) -> Result<()> {
        let room = tokio::runtime::Handle::current().block_on(async {
            loop {
                match tokio::time::timeout(LOOK, self.parts.reserve()).await {
                    Ok(room) => break room.ok(),
                    Err(_) if self.cancelled.load(Ordering::Relaxed) => break None,
                    Err(_) => {}
                }
            }
        });
        room.map(|room| room.send(part)).ok_or_else(Failure::cancelled)
    }

    fn follows(&self) -> bool {
        self.followed.is_some()
    }

    fn follow(&mut self, how_far: HowFar) {
        if let Some(followed) = &self.followed {
            // It is one statement, or several that count together.
            let _ = followed.set(how_far);
        }
    }
}

/// Sends parts one after the other: each is answered when the client has taken it.
async fn send(mut parts: mpsc::Receiver<AnswerPart>, to: &answer::Client) -> Result<()> {
    // One part is on the way while the next is made ready.
    let mut before = None;
    while let Some(part) = parts.recv().await {
        let now = send_part(part, to);
        if let Some(before) = before.replace(now) {
            before.await?;
        }
    }
    match before {
        Some(last) => last.await,
        None => Ok(()),
    }
}

/// Sends a part at once; the future waits for the answer.
fn send_part(part: AnswerPart, to: &answer::Client) -> futures_util::future::LocalBoxFuture<'static, Result<()>> {
    macro_rules! answered {
        ($request:expr) => {{
            let promise = $request.send().promise;
            Box::pin(async move { promise.await.map(drop).map_err(Failure::from) })
        }};
    }
    match part {
        AnswerPart::Columns(schema) => {
            let mut request = to.columns_request();
            request.get().set_stream(&schema);
            answered!(request)
        }
        AnswerPart::Rows(chunk) => {
            let mut request = to.rows_request();
            request.get().set_chunk(&chunk);
            answered!(request)
        }
        AnswerPart::Text(text) => {
            let mut request = to.text_request();
            request.get().set_text(&text);
            answered!(request)
        }
        AnswerPart::Plan(text) => {
            let mut request = to.text_request();
            request.get().set_text(&text);
            request.get().set_plan(true);
            answered!(request)
        }
    }
}

/// A load: its calls run one after the other too.
struct LoadServer {
    load: Arc<tokio::sync::Mutex<Box<dyn TableLoad>>>,
    room: Arc<Allowance>,
}

impl LoadServer {
    async fn call<T: Send + 'static>(&self, call: impl FnOnce(&mut dyn TableLoad) -> Result<T> + Send + 'static) -> Result<T> {
        let _room = self.room.take("this connection")?;
        let mut load = self.load.clone().lock_owned().await;
        blocking(move || call(&mut **load)).await
    }
}

impl load::Server for LoadServer {
    async fn write(self: Rc<Self>, params: load::WriteParams, mut results: load::WriteResults) -> capnp::Result<()> {
        let chunk = params.get()?.get_chunk()?.to_vec();
        done::write(self.call(move |load| load.write(chunk)).await, results.get().init_result());
        Ok(())
    }

    async fn finish(self: Rc<Self>, _: load::FinishParams, mut results: load::FinishResults) -> capnp::Result<()> {
        let mut result: loaded::Builder<'_> = results.get().init_result();
        match self.call(|load| load.finish()).await {
            Ok(rows) => result.set_rows(rows),
            Err(failure) => failure.write(result.init_failure()),
        }
        Ok(())
    }
}
