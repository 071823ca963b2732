//! Coordinators elsewhere, as the [`PeerService`] that they are.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stoa_schema::coordinator_capnp::{decided, gate, peer, peer_entered, process};
use tokio::sync::mpsc;

use crate::client::{Connection, Connections, Line, Remote, SHORT, answer, connect, say_hello};
use crate::done;
use crate::peer::{Decided, ForLeader, ListedProcess, PeerService, PeerStatus};
use crate::session::Cancelled;
use crate::{Failure, Io, Result, Security, pump};

/// Connections to other coordinators.
pub struct PeerPool(Connections<RemotePeer>);

impl PeerPool {
    /// An empty pool.
    #[must_use]
    pub fn new(io: Io, security: Security) -> PeerPool {
        PeerPool(Connections::new(io, security, SHORT))
    }

    /// The coordinator at an address.
    ///
    /// # Errors
    /// If it cannot be reached, speaks another version, or has another secret.
    pub fn peer(&self, address: &str) -> Result<Arc<dyn PeerService>> {
        Ok(self.0.get(address)?)
    }
}

struct RemotePeer {
    remote: Remote<peer::Client>,
    line: Arc<Line>,
}

impl Connection for RemotePeer {
    fn connect(io: &Io, address: &str, security: &Security, patience: Duration) -> Result<RemotePeer> {
        let (own, to, security) = (io.clone(), address.to_owned(), security.clone());
        io.call(move || async move {
            let line = Arc::new(Line::default());
            let gate: gate::Client = connect(&to, &security, line.clone(), false).await?;
            let mut request = gate.peer_request();
            say_hello(request.get().init_hello(), &security);
            let response = answer(&to, &security, patience, request.send().promise).await?;
            let peer = match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                peer_entered::Peer(peer) => peer?,
                peer_entered::Failure(failure) => return Err(Failure::read(failure?)?),
            };
            Ok(RemotePeer { remote: Remote::new(own, peer), line })
        })
    }

    fn line(&self) -> &Line {
        &self.line
    }
}

impl PeerService for RemotePeer {
    fn consensus(&self, message: Vec<u8>, limit: Duration) -> Result<Vec<u8>> {
        self.remote.call(limit, move |peer| async move {
            let mut request = peer.consensus_request();
            request.get().set_message(&message);
            let response = request.send().promise.await?;
            Ok(response.get()?.get_result()?.to_vec())
        })
    }

    fn decide(&self, statement: &ForLeader, cancelled: &Cancelled) -> Result<Decided> {
        let statement = statement.clone();
        let outcome = self.remote.start(move |peer| async move {
            let mut request = peer.decide_request();
            request.get().set_user(&statement.user);
            request.get().set_database(&statement.database);
            request.get().set_sql(&statement.sql);
            let response = request.send().promise.await?;
            match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                decided::Done(done) => Ok(Decided::Done {
                    text: done.get_text()?.to_string().map_err(capnp::Error::from)?,
                    rows: done.get_rows()?.to_vec(),
                    version: done.get_version(),
                }),
                decided::Failure(failure) => Err(Failure::read(failure?)?),
                decided::NotLeader(()) => Ok(Decided::NotLeader),
            }
        });
        let (_, nothing) = mpsc::channel::<()>(1);
        pump::drain(nothing, outcome, &mut |_| match cancelled.load(Ordering::Relaxed) {
            true => Err(Failure::cancelled()),
            false => Ok(()),
        })
    }

    fn adopt(&self, node: u64) -> Result<()> {
        self.remote.call(SHORT, move |peer| async move {
            let mut request = peer.adopt_request();
            request.get().set_node(node);
            let response = request.send().promise.await?;
            done::read(response.get()?.get_result()?)
        })
    }

    fn status(&self) -> Result<PeerStatus> {
        self.remote.call(SHORT, |peer| async move {
            let response = peer.status_request().send().promise.await?;
            let status = response.get()?.get_status()?;
            let leader = status.get_leader()?.to_string().map_err(capnp::Error::from)?;
            Ok(PeerStatus { node: status.get_node(), leader, version: status.get_version() })
        })
    }

    fn processes(&self, user: &str) -> Result<Vec<ListedProcess>> {
        let user = user.to_owned();
        self.remote.call(SHORT, move |peer| async move {
            let mut request = peer.processes_request();
            request.get().set_user(&user);
            let response = request.send().promise.await?;
            Ok(response.get()?.get_processes()?.iter().map(read_process).collect::<capnp::Result<_>>()?)
        })
    }

    fn kill(&self, user: &str, number: u64) -> Result<bool> {
        let user = user.to_owned();
        self.remote.call(SHORT, move |peer| async move {
            let mut request = peer.kill_request();
            request.get().set_user(&user);
            request.get().set_number(number);
            Ok(request.send().promise.await?.get()?.get_found())
        })
    }
}

fn read_process(from: process::Reader<'_>) -> capnp::Result<ListedProcess> {
    Ok(ListedProcess {
        number: from.get_number(),
        user: from.get_user()?.to_string()?,
        database: from.get_database()?.to_string()?,
        text: from.get_text()?.to_string()?,
        time: Duration::from_micros(from.get_micros()),
    })
}
