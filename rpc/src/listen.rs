//! Ports: who may connect, how many, and what they are offered.

use std::future::Future;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use capnp_rpc::{RpcSystem, rpc_twoparty_capnp::Side, twoparty};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

use crate::client::reader_options;
use crate::door::{Door, Guest, Places, Vetted};
use crate::io::ALLOWANCE;
use crate::{Failure, FailureKind, Io, Result, Security, Tls, transport};

/// How long a connection may take to say who it is.
const ENTRY: Duration = Duration::from_secs(10);
/// Connections at once that have not entered.
const STRANGERS: usize = 64;

/// How many calls wait for their answers to be taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(Arc<AtomicUsize>);

/// A call whose answer is on its way until this is dropped.
pub(crate) struct Call(Calls);

impl Calls {
    pub fn begin(&self) -> Call {
        self.0.fetch_add(1, Ordering::Relaxed);
        Call(self.clone())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a port keeps to.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once that have entered; one more is refused.
    pub connections: usize,
    /// Listen beyond loopback without a secret and without TLS.
    pub insecure: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connections: 1024, insecure: false }
    }
}

/// A port that is served. Dropped, it takes no more connections and ends those that it has.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    /// True once no more connections are taken.
    closed: watch::Sender<bool>,
    calls: Calls,
}

impl Listener {
    /// How many answers of statements are on their way.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.0.load(Ordering::Relaxed)
    }

    /// The address, with the port that the system chose if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections; those that there are go on.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }
}

/// Serves a port; `offer` makes what a new connection gets.
pub(crate) fn listen(
    io: &Io,
    address: &str,
    security: &Security,
    limits: Limits,
    offer: impl Fn(Door) -> capnp::capability::Client + Send + 'static,
) -> Result<Listener> {
    let lacks = security.lacks().map(|lacks| (lacks, "--insecure"));
    let (security, calls) = (security.clone(), Calls::default());
    let of_door = calls.clone();
    let serve = move |stream, guest: Rc<Guest>| {
        let client = offer(Door::new(security.clone(), guest.clone(), of_door.clone()));
        serve(stream, security.tls.clone(), client, guest)
    };
    Ok(Listener { calls, ..accept_on(io, address, (limits, STRANGERS), lacks, serve)? })
}

/// Takes connections on a port, so many at once that have not entered, and has each served; `lacks`: what the port would need if others
/// could reach it, and the option that allows it to lack that.
pub(crate) fn accept_on<F: Future<Output = ()> + 'static>(
    io: &Io,
    address: &str,
    (limits, strangers): (Limits, usize),
    lacks: Option<(&str, &str)>,
    serve: impl Fn(TcpStream, Rc<Guest>) -> F + Send + 'static,
) -> Result<Listener> {
    let fail = |e: &dyn std::fmt::Display| Failure::new(FailureKind::Fatal, format!("cannot listen on {address}: {e}"));
    let addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(|e| fail(&e))?.collect();
    let beyond = addresses.iter().any(|a| !a.ip().is_loopback());
    if beyond
        && !limits.insecure
        && let Some((lacks, option)) = lacks
    {
        let why = format!("{address} is reachable from other machines and {lacks} would be missing; {option} allows it");
        return Err(Failure::new(FailureKind::Denied, why));
    }
    let (closed, watching) = watch::channel(false);
    let listener = io.call(move || async move {
        let listener = TcpListener::bind(&addresses[..]).await.map_err(|e| Failure::new(FailureKind::Fatal, e.to_string()))?;
        let address = listener.local_addr().map_err(|e| Failure::new(FailureKind::Fatal, e.to_string()))?;
        tokio::task::spawn_local(accept(listener, Places::new(limits.connections, strangers), serve, watching));
        Ok(address)
    });
    Ok(Listener { address: listener.map_err(|e| fail(&e))?, closed, calls: Calls::default() })
}

async fn accept<F: Future<Output = ()> + 'static>(
    listener: TcpListener,
    places: Rc<Places>,
    serve: impl Fn(TcpStream, Rc<Guest>) -> F,
    mut closed: watch::Receiver<bool>,
) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closed.changed() => break,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, from)) = accepted else {
            // Out of file descriptors, say: wait for some to come back instead of spinning.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        metrics::counter!("stoa_connections_total").increment(1);
        let guest = places.take(from.ip());
        let served = serve(stream, guest.clone());
        connections.spawn_local(async move {
            tokio::select! {
                () = served => {}
                () = guest.turned_away() => {}
            }
        });
    }
    drop(listener);
    // Until the listener's owner drops it.
    while closed.changed().await.is_ok() {}
}

async fn serve(stream: TcpStream, tls: Tls, client: capnp::capability::Client, guest: Rc<Guest>) {
    let _ = stream.set_nodelay(true);
    let Ok(Some(stream)) = tokio::time::timeout(ENTRY, tls.to_client(stream)).await else { return };
    let (reader, writer) = transport::split(Vetted::new(stream, guest.clone()));
    let network = twoparty::VatNetwork::new(reader.compat(), writer.compat_write(), Side::Server, reader_options());
    let mut system = std::pin::pin!(RpcSystem::new(Box::new(network), Some(client)));
    // How a connection ends is its client's business; what it held is released with it.
    let life = async {
        if tokio::time::timeout(ENTRY, &mut system).await.is_err() && guest.has_entered() {
            let _ = system.await;
        }
    };
    ALLOWANCE.scope(guest.allowance().clone(), life).await;
}
