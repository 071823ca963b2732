//! RPC objects of other nodes, for threads that block.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use capnp::capability::Promise;
use capnp::message::ReaderOptions;
use capnp_rpc::{RpcSystem, rpc_twoparty_capnp::Side, twoparty};
use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;
use stoa_schema::common_capnp::hello;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

use crate::io::gone;
use crate::{Failure, FailureKind, Io, MAJOR, MAX_MESSAGE_BYTES, MINOR, Result, Security, transport};

/// How long a connection stays that was given up: what waits for it learns it meanwhile.
const HUNG_UP: Duration = Duration::from_secs(5);
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a machine that is asked whether it is there has for an answer, and how often it is asked.
const PROBE: Duration = Duration::from_secs(5);
const PROBES: u32 = 3;
/// Bytes that a connection has on the way before it waits for answers.
const WINDOW: usize = 4 << 20;

/// How long calls may take that only ask for something.
pub(crate) const SHORT: Duration = Duration::from_secs(10);
/// How long calls may take that write.
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// Connections to nodes of one kind, made when they are first needed and again after they broke.
pub(crate) struct Connections<T> {
    io: Io,
    security: Security,
    /// How long a node may take to answer its first call.
    patience: Duration,
    open: Mutex<HashMap<String, Arc<T>>>,
}

/// A connection to a node.
pub(crate) trait Connection: Sized {
    /// Connects and enters, unless the node says nothing for so long.
    fn connect(io: &Io, address: &str, security: &Security, patience: Duration) -> Result<Self>;

    /// Whether it stands.
    fn line(&self) -> &Line;
}

/// Whether a connection stands.
#[derive(Default)]
pub(crate) struct Line {
    ended: AtomicBool,
    /// Why this side gave it up, if it did: what is said of the node.
    why: OnceLock<String>,
    hang_up: tokio::sync::Notify,
}

impl Line {
    pub fn stands(&self) -> bool {
        !self.ended.load(Ordering::Relaxed)
    }

    /// No call is begun any more; those that wait go on.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Ends the connection, because the node `why`: calls that wait fail and say so.
    pub fn hang_up(&self, why: String) {
        self.end();
        // The first reason counts.
        let _ = self.why.set(why);
        self.hang_up.notify_one();
    }

    /// Ends it because nothing came within `limit`, whichever call noticed: all that wait say the same.
    pub fn unanswered(&self, limit: Duration) {
        self.hang_up(format!("gave no answer within {limit:?}"));
    }

    /// Why a call failed: of a connection that this side gave up, why it did so. `does` is what the node did for the call.
    pub fn explain(&self, does: &str, failure: Failure) -> Failure {
        match self.why.get() {
            // Said once, by who knows most of the call.
            Some(why) if failure.kind == FailureKind::Retryable && !failure.message.contains(why) => {
                Failure::new(failure.kind, format!("{does} {why}; try again"))
            }
            _ => failure,
        }
    }
}

impl<T: Connection> Connections<T> {
    pub fn new(io: Io, security: Security, patience: Duration) -> Connections<T> {
        Connections { io, security, patience, open: Mutex::default() }
    }

    /// The same, of other patience.
    pub fn with_patience(self, patience: Duration) -> Connections<T> {
        Connections { patience, ..self }
    }

    /// The connection to an address.
    pub fn get(&self, address: &str) -> Result<Arc<T>> {
        let known = self.open.lock().get(address).filter(|connection| connection.line().stands()).cloned();
        if let Some(connection) = known {
            return Ok(connection);
        }
        // Outside of the lock: a node that does not answer holds up nobody else.
        let connection = Arc::new(T::connect(&self.io, address, &self.security, self.patience)?);
        self.open.lock().insert(address.to_owned(), connection.clone());
        Ok(connection)
    }

    /// Ends the connection to an address, if there is one: what waits for it fails.
    pub fn hang_up(&self, address: &str) {
        if let Some(connection) = self.open.lock().remove(address) {
            connection.line().hang_up("is offline".to_owned());
        }
    }
}

type Job<C> = Box<dyn FnOnce(C) -> LocalBoxFuture<'static, ()> + Send>;

/// An RPC object on an I/O thread. Dropped, the object is released, and the other side told.
pub(crate) struct Remote<C> {
    io: Io,
    jobs: UnboundedSender<Job<C>>,
    /// The connection that is given up when a call gets no answer in time.
    line: Option<Arc<Line>>,
}

impl<C: Clone + 'static> Remote<C> {
    /// Takes an object; call it on the I/O thread.
    pub fn new(io: Io, object: C) -> Remote<C> {
        let (jobs, mut queue) = unbounded_channel::<Job<C>>();
        tokio::task::spawn_local(async move {
            while let Some(job) = queue.recv().await {
                tokio::task::spawn_local(job(object.clone()));
            }
        });
        Remote { io, jobs, line: None }
    }

    /// The same, of a node that counts as hung when a call gets no answer in time: its connection is given up.
    pub fn over(self, line: Arc<Line>) -> Remote<C> {
        Remote { line: Some(line), ..self }
    }

    pub fn io(&self) -> &Io {
        &self.io
    }

    /// Starts a call; what it gives comes through the channel. Dropping the receiver drops the call.
    pub fn start<T, F>(&self, call: impl FnOnce(C) -> F + Send + 'static) -> tokio::sync::oneshot::Receiver<Result<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + 'static,
    {
        let (mut sender, receiver) = tokio::sync::oneshot::channel();
        let job: Job<C> = Box::new(move |object| {
            Box::pin(async move {
                tokio::select! {
                    result = call(object) => drop(sender.send(result)),
                    () = sender.closed() => {}
                }
            })
        });
        // If the thread is gone, the sender is dropped with the job, and the receiver learns it.
        let _ = self.jobs.send(job);
        receiver
    }

    /// Makes a call whose outcome nobody waits for.
    pub fn tell<F: Future<Output = ()> + 'static>(&self, call: impl FnOnce(C) -> F + Send + 'static) {
        // Without the thread there is no connection, and nobody to tell.
        let _ = self.jobs.send(Box::new(move |object| Box::pin(call(object))));
    }

    /// Makes a call and waits for it, at most so long.
    pub fn call<T, F>(&self, limit: Duration, call: impl FnOnce(C) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + 'static,
    {
        self.begin(limit, call).blocking_recv().unwrap_or_else(|_| Err(gone()))
    }

    /// As [`Remote::start`], of a call that takes at most so long.
    pub fn begin<T, F>(
        &self,
        limit: Duration,
        call: impl FnOnce(C) -> F + Send + 'static,
    ) -> tokio::sync::oneshot::Receiver<Result<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + 'static,
    {
        let line = self.line.clone();
        self.start(move |object| async move {
            let result = tokio::time::timeout(limit, call(object)).await;
            let Some(line) = line else {
                let late = |_| Err(Failure::new(FailureKind::Retryable, format!("no answer within {limit:?}")));
                return result.unwrap_or_else(late);
            };
            let result = result.unwrap_or_else(|_| {
                line.unanswered(limit);
                Err(gone())
            });
            result.map_err(|failure| line.explain("it", failure))
        })
    }
}

/// Options of all messages.
pub(crate) fn reader_options() -> ReaderOptions {
    let mut options = ReaderOptions::new();
    options.traversal_limit_in_words(Some(MAX_MESSAGE_BYTES / 8));
    options
}

/// Connects to a node: what it offers first. `line` tells when the connection has ended; `minds`: also because the other machine is gone
/// without a word. Call it on the I/O thread.
pub(crate) async fn connect<C: capnp::capability::FromClientHook>(
    address: &str,
    security: &Security,
    line: Arc<Line>,
    minds: bool,
) -> Result<C> {
    let late = |_| Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer"));
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await.unwrap_or_else(late);
    let stream = stream.map_err(|e| Failure::unreachable(address, e))?;
    let _ = stream.set_nodelay(true);
    if minds {
        mind(&stream);
    }
    let late = |_| Err(Failure::unreachable(address, "no answer to the TLS handshake"));
    let stream = tokio::time::timeout(CONNECT, security.tls.to_server(stream, address)).await.unwrap_or_else(late)?;
    let (reader, writer) = transport::split(stream);
    let mut network = twoparty::VatNetwork::new(reader.compat(), writer.compat_write(), Side::Client, reader_options());
    network.set_window_size(WINDOW);
    let mut system = RpcSystem::new(Box::new(network), None);
    let client = system.bootstrap(Side::Server);
    let disconnect = system.get_disconnector();
    tokio::task::spawn_local(async move {
        tokio::select! {
            _ = &mut system => {}
            () = line.hang_up.notified() => {
                // Calls fail as soon as both have been polled; a node that hangs need not take what is on its way.
                let _ = tokio::time::timeout(HUNG_UP, async { tokio::join!(disconnect, &mut system) }).await;
            }
        }
        line.end();
    });
    Ok(client)
}

/// Has the system find out within a while that the other machine is gone, whether it owes an answer or has to be asked. A process that
/// hangs is not: its system answers.
fn mind(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let probes = socket2::TcpKeepalive::new().with_time(2 * PROBE).with_interval(PROBE).with_retries(PROBES);
    // Where it cannot be set, who waits for an answer waits for longer.
    let _ = socket.set_tcp_keepalive(&probes);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some((2 + PROBES) * PROBE));
}

/// Says the version of this side and the secret.
pub(crate) fn say_hello(mut to: hello::Builder<'_>, security: &Security) {
    to.set_major(MAJOR);
    to.set_minor(MINOR);
    to.set_secret(&security.secret);
}

/// The answer to the first call of a connection: without one in time the node counts as not there.
pub(crate) async fn answer<T>(
    address: &str,
    security: &Security,
    patience: Duration,
    promise: Promise<T, capnp::Error>,
) -> Result<T> {
    let late = |_| Err(capnp::Error::disconnected("no answer".into()));
    let answer = tokio::time::timeout(patience, promise).await.unwrap_or_else(late);
    answer.map_err(|e| Failure::unreachable(address, format!("{}{}", e.extra, security.tls.hint())))
}
