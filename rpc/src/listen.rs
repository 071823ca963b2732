//! Ports: who may connect, how many, and what they are offered.

use std::cell::Cell;
use std::future::Future;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use capnp_rpc::{RpcSystem, rpc_twoparty_capnp::Side, twoparty};
use stoa_schema::common_capnp::hello;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

use crate::client::reader_options;
use crate::{Failure, FailureKind, Io, MAJOR, MINOR, Result, Security, Tls, transport};

/// How long a connection may take to say who it is.
const ENTRY: Duration = Duration::from_secs(10);

/// What guards a connection: whoever is behind it must know the secret, and is sent away if nothing was proved in time.
pub(crate) struct Door {
    security: Security,
    passed: Arc<AtomicBool>,
    calls: Calls,
}

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

impl Door {
    /// Whether a node or client may come in: it speaks this version and knows the secret.
    pub fn check(&self, hello: hello::Reader<'_>) -> capnp::Result<Result<()>> {
        if hello.get_major() != MAJOR {
            let what =
                format!("this node speaks version {MAJOR}.{MINOR}, the caller {}.{}", hello.get_major(), hello.get_minor());
            return Ok(Err(Failure::new(FailureKind::Denied, what)));
        }
        if !self.security.is(hello.get_secret()?) {
            tracing::warn!("a connection was turned away: its cluster secret is another one");
            return Ok(Err(Failure::new(FailureKind::Denied, "the cluster secret is another one")));
        }
        Ok(Ok(()))
    }

    /// The calls of all connections to the port.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// It is in: the connection may stay.
    pub fn pass(&self) {
        self.passed.store(true, Ordering::Relaxed);
    }
}

/// What a port keeps to.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once; one more is closed at once.
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
    let lacks = security.lacks();
    let (security, calls) = (security.clone(), Calls::default());
    let of_door = calls.clone();
    let serve = move |stream| {
        let passed = Arc::<AtomicBool>::default();
        let client = offer(Door { security: security.clone(), passed: passed.clone(), calls: of_door.clone() });
        serve(stream, security.tls.clone(), client, passed)
    };
    Ok(Listener { calls, ..accept_on(io, address, limits, lacks, serve)? })
}

/// Takes connections on a port and has each served; `lacks`: what the port would need if others could reach it.
pub(crate) fn accept_on<F: Future<Output = ()> + 'static>(
    io: &Io,
    address: &str,
    limits: Limits,
    lacks: Option<&str>,
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> Result<Listener> {
    let fail = |e: &dyn std::fmt::Display| Failure::new(FailureKind::Fatal, format!("cannot listen on {address}: {e}"));
    let addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(|e| fail(&e))?.collect();
    let beyond = addresses.iter().any(|a| !a.ip().is_loopback());
    if beyond
        && !limits.insecure
        && let Some(lacks) = lacks
    {
        let why = format!("{address} is reachable from other machines and {lacks} would be missing; --insecure allows it");
        return Err(Failure::new(FailureKind::Denied, why));
    }
    let (closed, watching) = watch::channel(false);
    let listener = io.call(move || async move {
        let listener = TcpListener::bind(&addresses[..]).await.map_err(|e| Failure::new(FailureKind::Fatal, e.to_string()))?;
        let address = listener.local_addr().map_err(|e| Failure::new(FailureKind::Fatal, e.to_string()))?;
        tokio::task::spawn_local(accept(listener, limits, serve, watching));
        Ok(address)
    });
    Ok(Listener { address: listener.map_err(|e| fail(&e))?, closed, calls: Calls::default() })
}

async fn accept<F: Future<Output = ()> + 'static>(
    listener: TcpListener,
    limits: Limits,
    serve: impl Fn(TcpStream) -> F,
    mut closed: watch::Receiver<bool>,
) {
    let open = Rc::new(Cell::new(0usize));
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
        if open.get() >= limits.connections {
            metrics::counter!("stoa_connections_refused_total").increment(1);
            tracing::warn!(%from, limit = limits.connections, "connection refused: there are too many");
            continue;
        }
        metrics::counter!("stoa_connections_total").increment(1);
        open.set(open.get() + 1);
        let (open, served) = (open.clone(), serve(stream));
        connections.spawn_local(async move {
            served.await;
            open.set(open.get() - 1);
        });
    }
    drop(listener);
    // Until the listener's owner drops it.
    while closed.changed().await.is_ok() {}
}

async fn serve(stream: TcpStream, tls: Tls, client: capnp::capability::Client, passed: Arc<AtomicBool>) {
    let _ = stream.set_nodelay(true);
    let Ok(Some(stream)) = tokio::time::timeout(ENTRY, tls.to_client(stream)).await else { return };
    let (reader, writer) = transport::split(stream);
    let network = twoparty::VatNetwork::new(reader.compat(), writer.compat_write(), Side::Server, reader_options());
    let mut system = std::pin::pin!(RpcSystem::new(Box::new(network), Some(client)));
    // How a connection ends is its client's business; what it held is released with it.
    if tokio::time::timeout(ENTRY, &mut system).await.is_err() && passed.load(Ordering::Relaxed) {
        let _ = system.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(major: u16, minor: u16, secret: &[u8]) -> Result<()> {
        let mut message = capnp::message::Builder::new_default();
        let mut said: hello::Builder<'_> = message.init_root();
        said.set_major(major);
        said.set_minor(minor);
        said.set_secret(secret);
        let door = Door { security: Security::new("ours"), passed: Arc::default(), calls: Calls::default() };
        door.check(said.into_reader()).unwrap()
    }

    #[test]
    fn neighbours_of_one_minor_version_talk_and_other_major_versions_do_not() {
        for minor in [MINOR.saturating_sub(1), MINOR, MINOR + 1] {
            verdict(MAJOR, minor, b"ours").unwrap();
        }
        let refused = verdict(MAJOR + 1, 3, b"ours").unwrap_err();
        assert_eq!(refused.kind, FailureKind::Denied);
        let both = [format!("{MAJOR}.{MINOR}"), format!("{}.3", MAJOR + 1)];
        assert!(both.iter().all(|version| refused.message.contains(version)), "{refused}");
    }

    #[test]
    fn other_secrets_are_refused() {
        for secret in [&b""[..], b"our", b"ours?", b"0urs"] {
            assert_eq!(verdict(MAJOR, MINOR, secret).unwrap_err().kind, FailureKind::Denied);
        }
    }
}
