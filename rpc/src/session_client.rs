//! A session on a coordinator elsewhere, as the [`SessionService`] that it is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use capnp::capability::Rc;
use capnp_rpc::new_client;
use stoa_schema::coordinator_capnp::{
    answer, described, entered, gate, load, loaded, loading, prepared, prepared_statement, session,
};
use tokio::sync::mpsc;

use crate::admin::{AdminCommand, AdminReply};
use crate::client::{LONG, Line, Remote, SHORT, answer, connect, say_hello};
use crate::session::{Answer, AnswerPart, Cancelled, Login, Parameter, PreparedService, SessionService, TableLoad};
use crate::{Failure, FailureKind, Heard, Io, Result, Security, done, parameter, parts, pump};

/// Parts of an answer that wait for the thread that takes them.
const QUEUED: usize = 2;

/// A session.
pub struct SessionClient {
    remote: Remote<session::Client>,
    address: String,
    line: Arc<Line>,
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
            let line = Arc::new(Line::default());
            let gate: gate::Client = connect(&to, &security, line.clone()).await?;
            let mut request = gate.enter_request();
            request.get().set_user(&login.user);
            request.get().set_password(&login.password);
            request.get().set_database(&login.database);
            say_hello(request.get().init_hello(), &security);
            let response = answer(&to, &security, SHORT, request.send().promise).await?;
            let session = match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                entered::Session(session) => session?,
                entered::Failure(failure) => return Err(Failure::read(failure?)?),
            };
            Ok(SessionClient { remote: Remote::new(own, session), address: to, line })
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
        self.line.stands()
    }

    /// Counts the connection as broken from now on.
    pub fn leave(&self) {
        self.line.end();
    }
}

impl SessionService for SessionClient {
    fn execute(&self, sql: &str, answer: &mut dyn Answer, cancelled: &Cancelled) -> Result<()> {
        let sql = sql.to_owned();
        let (server, parts) = AnswerServer::of(answer);
        let outcome = self.remote.start(move |session| async move {
            let mut request = session.execute_request();
            request.get().set_sql(&sql);
            request.get().set_progress(server.heard.is_some());
            request.get().set_whole(true);
            request.get().set_answer(new_client(server));
            let response = request.send().promise.await?;
            let results = response.get()?;
            Ok((parts::read(results.get_parts()?)?, done::read(results.get_result()?)))
        });
        drain(parts, outcome, answer, cancelled)
    }

    fn execute_plan(&self, plan: &[u8], answer: &mut dyn Answer, cancelled: &Cancelled) -> Result<()> {
        let plan = plan.to_vec();
        let (server, parts) = AnswerServer::of(answer);
        let outcome = self.remote.start(move |session| async move {
            let mut request = session.execute_plan_request();
            request.get().set_plan(&plan);
            request.get().set_progress(server.heard.is_some());
            request.get().set_whole(true);
            request.get().set_answer(new_client(server));
            let response = request.send().promise.await?;
            let results = response.get()?;
            Ok((parts::read(results.get_parts()?)?, done::read(results.get_result()?)))
        });
        drain(parts, outcome, answer, cancelled)
    }

    fn prepare(&self, sql: &str) -> Result<Arc<dyn PreparedService>> {
        let (sql, io) = (sql.to_owned(), self.remote.io().clone());
        let statement = self.remote.call(SHORT, move |session| async move {
            let mut request = session.prepare_request();
            request.get().set_sql(&sql);
            let response = request.send().promise.await?;
            match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                prepared::Done(done) => {
                    let remote = Remote::new(io, done.get_statement()?);
                    Ok(RemoteStatement { remote, parameters: done.get_parameters() })
                }
                prepared::Failure(failure) => Err(Failure::read(failure?)?),
            }
        })?;
        Ok(Arc::new(statement))
    }

    fn load(&self, table: &str) -> Result<Box<dyn TableLoad>> {
        let (table, io) = (table.to_owned(), self.remote.io().clone());
        let load = self.remote.call(SHORT, move |session| async move {
            let mut request = session.load_request();
            request.get().set_table(&table);
            let response = request.send().promise.await?;
            match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                loading::Load(load) => Ok(RemoteLoad { remote: Remote::new(io, load?) }),
                loading::Failure(failure) => Err(Failure::read(failure?)?),
            }
        })?;
        Ok(Box::new(load))
    }

    fn describe(&self, table: &str) -> Result<Vec<u8>> {
        let table = table.to_owned();
        self.remote.call(SHORT, move |session| async move {
            let mut request = session.describe_request();
            request.get().set_table(&table);
            let response = request.send().promise.await?;
            match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                described::Columns(columns) => Ok(columns?.to_vec()),
                described::Failure(failure) => Err(Failure::read(failure?)?),
            }
        })
    }

    fn names(&self) -> Result<Vec<String>> {
        self.remote.call(SHORT, |session| async move {
            let response = session.names_request().send().promise.await?;
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
        let (_, nothing) = mpsc::channel::<()>(1);
        pump::drain(nothing, outcome, &mut |_| match cancelled.load(Ordering::Relaxed) {
            true => Err(Failure::cancelled()),
            false => Ok(()),
        })
    }
}

/// A prepared statement of a session elsewhere.
struct RemoteStatement {
    remote: Remote<prepared_statement::Client>,
    parameters: u32,
}

impl PreparedService for RemoteStatement {
    fn parameters(&self) -> u32 {
        self.parameters
    }

    fn execute(&self, values: &[Parameter], answer: &mut dyn Answer, cancelled: &Cancelled) -> Result<()> {
        let values = values.to_vec();
        let (server, parts) = AnswerServer::of(answer);
        let outcome = self.remote.start(move |statement| async move {
            let mut request = statement.execute_request();
            let count = u32::try_from(values.len()).map_err(|_| Failure::new(FailureKind::User, "too many values"))?;
            parameter::write(&values, request.get().init_parameters(count));
            request.get().set_progress(server.heard.is_some());
            request.get().set_whole(true);
            request.get().set_answer(new_client(server));
            let response = request.send().promise.await?;
            let results = response.get()?;
            Ok((parts::read(results.get_parts()?)?, done::read(results.get_result()?)))
        });
        drain(parts, outcome, answer, cancelled)
    }
}

/// The parts that a result took along, and how the call ended.
type Ended = (Vec<AnswerPart>, Result<()>);

fn drain(
    parts: mpsc::Receiver<AnswerPart>,
    ended: tokio::sync::oneshot::Receiver<Result<Ended>>,
    answer: &mut dyn Answer,
    cancelled: &Cancelled,
) -> Result<()> {
    let mut take = |part| match part {
        _ if cancelled.load(Ordering::Relaxed) => Err(Failure::cancelled()),
        Some(part) => answer.part(part),
        None => Ok(()),
    };
    let (last, ran) = pump::drain(parts, ended, &mut take)?;
    last.into_iter().try_for_each(|part| take(Some(part)))?;
    ran
}

/// What the coordinator writes its answer to: parts go into a bounded queue.
struct AnswerServer {
    parts: mpsc::Sender<AnswerPart>,
    /// How far the statements are, if that is wanted.
    heard: Option<Arc<Heard>>,
}

impl AnswerServer {
    fn of(answer: &mut dyn Answer) -> (AnswerServer, mpsc::Receiver<AnswerPart>) {
        let (parts, receiver) = mpsc::channel(QUEUED);
        let heard = answer.follows().then(Arc::<Heard>::default);
        if let Some(heard) = heard.clone() {
            answer.follow(Arc::new(move || heard.now()));
        }
        (AnswerServer { parts, heard }, receiver)
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
}

struct RemoteLoad {
    remote: Remote<load::Client>,
}

impl TableLoad for RemoteLoad {
    fn write(&mut self, chunk: Vec<u8>) -> Result<()> {
        self.remote.call(LONG, move |load| async move {
            let mut request = load.write_request();
            request.get().set_chunk(&chunk);
            let response = request.send().promise.await?;
            done::read(response.get()?.get_result()?)
        })
    }

    fn finish(&mut self) -> Result<u64> {
        self.remote.call(LONG, |load| async move {
            let response = load.finish_request().send().promise.await?;
            match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                loaded::Rows(rows) => Ok(rows),
                loaded::Failure(failure) => Err(Failure::read(failure?)?),
            }
        })
    }
}
