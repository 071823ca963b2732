//! Cap'n Proto RPC between the nodes of a cluster and their clients. The one place that knows sockets.
//!
//! What a node offers is a plain trait of blocking calls ([`leaf::LeafService`], [`session::CoordinatorService`]); a node
//! implements it, [`serve`](Listener) puts it on a port, and a connection to another node implements the same trait. RPC objects
//! live on the threads of an [`Io`]; calls reach them over channels. What the module keeps true:
//! - Every call can end without the other side: by a deadline, by the caller's wish ([`ChunkSink::poll`]), by the connection's end.
//! - Every queue is bounded: who writes faster than the other side reads, waits.
//! - A message is refused before it is built if it is larger than [`MAX_MESSAGE_BYTES`]; a node takes a limited number of connections and calls.

pub mod admin;
mod admin_client;
mod admin_server;
mod admin_users;
mod answered;
pub mod backup;
mod backup_client;
mod backup_server;
mod client;
mod done;
mod door;
mod failure;
mod http;
mod io;
pub mod ipc;
pub mod leaf;
mod leaf_client;
mod leaf_server;
mod leaf_transaction;
mod listen;
mod origin;
mod parameter;
mod parts;
pub mod peer;
mod peer_client;
mod peer_server;
mod pump;
mod query_client;
mod query_server;
pub mod replication;
mod replication_client;
mod replication_server;
mod running;
mod security;
pub mod session;
mod session_client;
mod session_server;
mod transaction_client;
mod transaction_server;
mod transport;
mod watch;

pub use failure::{Failure, FailureKind, Result};
pub use http::{Page, Pages, serve_pages};
pub use io::Io;
pub use leaf_client::LeafPool;
pub use leaf_server::serve_leaf;
pub use listen::{Limits, Listener};
pub use origin::RowOrigin;
pub use peer_client::PeerPool;
pub use running::{Gather, Heard, Running};
pub use security::{Security, Tls, TlsFiles};
pub use session_client::SessionClient;
pub use session_server::serve_coordinator;

/// Major version of the interfaces: nodes of different ones do not talk to each other.
pub const MAJOR: u16 = 1;
/// Minor version: it only adds.
pub const MINOR: u16 = 2;
/// From this minor version on a coordinator finds out what came of statements of others ([`session::SessionService::outcome`]).
pub(crate) const FINDS_OUT: u16 = 2;
/// Bytes of a message; rows come in chunks that are far smaller.
pub const MAX_MESSAGE_BYTES: usize = 256 << 20;

/// Takes chunks of rows: each an Arrow IPC stream.
pub trait ChunkSink {
    /// Takes a chunk; waits if it has too many.
    ///
    /// # Errors
    /// If no more chunks are wanted: the call that writes them ends.
    fn write(&mut self, chunk: Vec<u8>) -> Result<()>;

    /// Called every few milliseconds while nothing comes.
    ///
    /// # Errors
    /// If the call that would write is to end.
    fn poll(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Keeps the chunks.
impl ChunkSink for Vec<Vec<u8>> {
    fn write(&mut self, chunk: Vec<u8>) -> Result<()> {
        self.push(chunk);
        Ok(())
    }
}
