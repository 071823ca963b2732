//! A [`CoordinatorService`] on a port.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use capnp::capability::Rc;
use capnp_rpc::new_client;
use stoa_schema::coordinator_capnp::{gate, load, loaded, prepared_statement, session};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::admin_server::AdminServer;
use crate::answered::{Turns, Wants, answered};
use crate::done;
use crate::door::{Door, Who};
use crate::io::{Allowance, blocking, gone};
use crate::listen::{Limits, Listener, listen};
use crate::origin;
use crate::parameter;
use crate::parts;
use crate::peer_server::{Guard, PeerServer};
use crate::session::{
    Answer, AnswerPart, Cancelled, CoordinatorService, Login, MAX_PREPARED, MAX_PREPARED_BYTES, MAX_STATEMENTS, PreparedService,
    SessionService, StatementOutcome, TableLoad,
};
use crate::{Failure, FailureKind, Io, MAJOR, MINOR, Result, Security};

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
        let (service, lost) = (self.service.clone(), login.lost);
        let session = blocking(move || {
            let _turn = turn;
            service.enter(&login, knows_secret)
        })
        .await?;
        self.door.let_in(Who::Client)?;
        let (calls, room) = (self.door.calls().clone(), self.statements.clone());
        let turns = Turns { calls, room, turn: Arc::default(), open: Arc::new(AtomicBool::new(lost)) };
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
            lost: params.get_lost(),
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

/// What came of statements.
struct Ran {
    /// What was not said yet.
    parts: Vec<AnswerPart>,
    ran: Result<()>,
    /// Whether a transaction is open now.
    open: bool,
    /// Whether they were not even begun, as the coordinator is shutting down.
    refused: bool,
}

#[derive(Clone)]
struct SessionServer {
    session: Arc<dyn SessionService>,
    turns: Turns,
    prepared: Arc<Semaphore>,
}

impl SessionServer {
    /// Runs statements, unless they are refused; from then on it is known whether they left a transaction open.
    async fn run(
        &self,
        wants: Wants,
        run: impl FnOnce(&dyn SessionService, &mut dyn Answer, &Cancelled) -> Result<()> + Send + 'static,
    ) -> Ran {
        let (session, open, refused) = (self.session.clone(), self.turns.open.clone(), Arc::new(AtomicBool::new(false)));
        let refuses = refused.clone();
        let ran = answered(&self.turns, wants, move |answer, cancelled| {
            refuses.store(session.closing(), Ordering::Relaxed);
            if refuses.load(Ordering::Relaxed) {
                return Err(Failure::new(FailureKind::Retryable, "this coordinator is shutting down"));
            }
            let ran = run(&*session, answer, cancelled);
            open.store(session.in_transaction(), Ordering::Relaxed);
            ran
        });
        let (parts, ran) = ran.await;
        Ran { parts, ran, open: self.turns.open.load(Ordering::Relaxed), refused: refused.load(Ordering::Relaxed) }
    }

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
        Ok(PreparedServer { statement, session: self.clone(), _permit: permit })
    }
}

impl session::Server for SessionServer {
    async fn execute(self: Rc<Self>, params: session::ExecuteParams, mut results: session::ExecuteResults) -> capnp::Result<()> {
        let params = params.get()?;
        let sql = params.get_sql()?.to_string()?;
        let (to, progress, statement) = (params.get_answer()?, params.get_progress(), params.get_statement());
        let wants = Wants { to, progress, statement, whole: params.get_whole() };
        let ran = self.run(wants, move |session, answer, cancelled| session.execute(&sql, answer, cancelled)).await;
        parts::write(&ran.parts, results.get().init_parts(ran.parts.len() as u32));
        results.get().set_open(ran.open);
        results.get().set_refused(ran.refused);
        done::write(ran.ran, results.get().init_result());
        Ok(())
    }

    async fn execute_plan(
        self: Rc<Self>,
        params: session::ExecutePlanParams,
        mut results: session::ExecutePlanResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let plan = params.get_plan()?.to_vec();
        let (to, progress, whole) = (params.get_answer()?, params.get_progress(), params.get_whole());
        let wants = Wants { to, progress, statement: 0, whole };
        let ran = self.run(wants, move |session, answer, cancelled| session.execute_plan(&plan, answer, cancelled)).await;
        parts::write(&ran.parts, results.get().init_parts(ran.parts.len() as u32));
        results.get().set_refused(ran.refused);
        done::write(ran.ran, results.get().init_result());
        Ok(())
    }

    async fn load(self: Rc<Self>, params: session::LoadParams, mut results: session::LoadResults) -> capnp::Result<()> {
        let (table, statement) = (params.get()?.get_table()?.to_string()?, params.get()?.get_statement());
        let session = self.session.clone();
        let mut result = results.get().init_result();
        match blocking(move || session.load(&table, statement)).await {
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

    async fn outcome(self: Rc<Self>, params: session::OutcomeParams, mut results: session::OutcomeResults) -> capnp::Result<()> {
        let params = params.get()?;
        let (sql, transactions) = (params.get_sql()?.to_string()?, params.get_transactions()?.iter().collect::<Vec<u64>>());
        let (session, open, cancelled) = (self.session.clone(), self.turns.open.clone(), Cancelled::default());
        let _guard = Guard(cancelled.clone());
        let found = blocking(move || {
            let found = session.outcome(&sql, &transactions, &cancelled);
            open.store(session.in_transaction(), Ordering::Relaxed);
            found
        });
        let found = found.await;
        results.get().set_open(self.turns.open.load(Ordering::Relaxed));
        let mut result = results.get().init_result();
        match found {
            Ok(StatementOutcome::Committed) => result.set_committed(()),
            Ok(StatementOutcome::Never) => result.set_never(()),
            Ok(StatementOutcome::Unknown(why)) => result.set_unknown(&why),
            Err(failure) => failure.write(result.init_failure()),
        }
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
    session: SessionServer,
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
        let (to, progress, statement) = (params.get_answer()?, params.get_progress(), params.get_statement());
        let wants = Wants { to, progress, statement, whole: params.get_whole() };
        let statement = self.statement.clone();
        let ran = self.session.run(wants, move |_, answer, cancelled| statement.execute(&values, answer, cancelled)).await;
        parts::write(&ran.parts, results.get().init_parts(ran.parts.len() as u32));
        results.get().set_open(ran.open);
        results.get().set_refused(ran.refused);
        done::write(ran.ran, results.get().init_result());
        Ok(())
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
        let params = params.get()?;
        let (chunk, from) = (params.get_chunk()?.to_vec(), origin::sent(params.has_origin(), || params.get_origin())?);
        done::write(self.call(move |load| load.write(chunk, from)).await, results.get().init_result());
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
