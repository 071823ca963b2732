//! The catalog on all coordinators at once: Raft.
//!
//! A [`Consensus`] is one coordinator's part. A [`Command`](crate::catalog::Command) that [`Consensus::propose`] acknowledges is on the
//! disks of a majority of the voting coordinators and in the leader's catalog; it is never lost as long as a majority keeps its disks.
//! Every node has the catalog in memory ([`Consensus::catalog`]), perhaps a moment behind the leader's. Only the leader proposes.
//!
//! ```text
//!  caller's threads          |  one thread with a runtime          |  disk
//!  Consensus::propose ──────>│ Raft ──> Journal (log, vote) ───────>│ raft.redb
//!  Consensus::handle  ──────>│  │   └─> Machine (catalog, snapshots)│
//!  Consensus::catalog <──────┼──┼────── published by Machine        │
//!                            │  └─────> Peers ──> Transport::call   │ other nodes' Consensus::handle
//! ```
//!
//! What is always true:
//! - The log, the vote and snapshots are on disk before anybody hears of them.
//! - A message that is meant for another node is refused: an address may have a new owner, a vote must not.
//! - A coordinator that lost its disk comes back under a new number. Under the old one it could vote twice in one term.

mod front;
mod journal;
mod machine;
mod network;
mod store;

#[cfg(test)]
mod tests;

use std::io::Cursor;
use std::time::Duration;

use openraft::BasicNode;
use serde::{Deserialize, Serialize};

use crate::catalog::{Command, NodeId};

pub use front::Consensus;
pub use network::Transport;

openraft::declare_raft_types!(
    /// The types of this use of Raft.
    pub(crate) Types:
        D = Command,
        R = Reply,
        NodeId = u64,
        Node = BasicNode,
        SnapshotData = Cursor<Vec<u8>>,
);

type Raft = openraft::Raft<Types>;
type LogId = openraft::LogId<u64>;
type StorageError = openraft::StorageError<u64>;
type StoredMembership = openraft::StoredMembership<u64, BasicNode>;
type SnapshotMeta = openraft::SnapshotMeta<u64, BasicNode>;

/// What the catalog said to a command.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// Why it was refused.
    refused: Option<String>,
}

/// Times and sizes. The default fits a rack: a lost leader is replaced in two to four seconds.
#[derive(Clone, Debug)]
pub struct Options {
    /// The leader says this often that it is there.
    pub heartbeat: Duration,
    /// A follower waits at least this long, and the same again, before it wants to lead.
    pub election_min: Duration,
    /// The most that a follower waits so; a number between the two is drawn at start.
    pub election_max: Duration,
    /// A snapshot is made when the log has this many entries more than the last one.
    pub snapshot_every: u64,
    /// Entries that stay in the log behind a snapshot, for nodes that are a little late.
    pub keep_entries: u64,
    /// How long a change may take.
    pub change_timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            heartbeat: Duration::from_millis(150),
            election_min: Duration::from_millis(500),
            election_max: Duration::from_millis(1000),
            snapshot_every: 2000,
            keep_entries: 500,
            change_timeout: Duration::from_secs(10),
        }
    }
}

/// A coordinator that has part in the consensus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub id: NodeId,
    /// Where its transport reaches it.
    pub address: String,
    /// Whether it votes.
    pub voter: bool,
}

/// Why the consensus did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsensusError {
    /// The catalog refused the command: nothing has changed.
    #[error("{0}")]
    Refused(String),
    /// Another coordinator leads: ask that one. Nothing has changed.
    #[error("this coordinator does not lead the cluster: {}", match .leader {
        Some(leader) => format!("{} does", leader.address),
        None => "no leader is known at the moment, try again in a few seconds".to_owned(),
    })]
    NotLeader {
        /// Who leads, if that is known.
        leader: Option<Member>,
    },
    /// No majority answered in time. The change may still come about: look before it is made again.
    #[error(
        "a majority of the coordinators did not answer within {0:?}: whether the change was made is not known, look before it is made \
         again"
    )]
    Unknown(Duration),
    /// The members cannot be changed so.
    #[error("{0}")]
    Membership(String),
    /// The disk failed, or what is on it cannot be read. This node takes no part until it is started anew.
    #[error("the log of the catalog failed: {0}")]
    Storage(String),
    /// This node takes no part any more: it was stopped.
    #[error("this coordinator has stopped")]
    Stopped,
}

/// The outcome of a call.
pub type Result<T> = std::result::Result<T, ConsensusError>;
