//! What nodes say to each other.

use stoa_columnstore::{LogRecord, Position};
use stoa_coordinator::catalog::NodeId;
use stoa_rpc::replication::{Orders, Report};

/// A message on its way.
#[derive(Clone)]
pub enum Message {
    Orders {
        leader: u64,
        to: NodeId,
        orders: Orders,
    },
    Report {
        leader: u64,
        from: NodeId,
        report: Report,
    },
    /// The master of a term wants to feed a copy.
    Open {
        from: NodeId,
        to: NodeId,
        partition: u32,
        term: u64,
        session: u64,
    },
    Opened {
        from: NodeId,
        to: NodeId,
        partition: u32,
        session: u64,
        position: Position,
    },
    /// Records behind a number; or a whole log that takes the place of the copy's.
    Feed {
        from: NodeId,
        to: NodeId,
        partition: u32,
        session: u64,
        after: u64,
        records: Vec<LogRecord>,
        anew: bool,
    },
    Fed {
        from: NodeId,
        to: NodeId,
        partition: u32,
        session: u64,
        lsn: u64,
    },
    /// Another feeds the copy.
    Refused {
        from: NodeId,
        to: NodeId,
        partition: u32,
        session: u64,
    },
}

impl Message {
    /// The leaf that it goes to.
    pub fn receiver(&self) -> Option<NodeId> {
        match self {
            Message::Orders { to, .. }
            | Message::Open { to, .. }
            | Message::Opened { to, .. }
            | Message::Feed { to, .. }
            | Message::Fed { to, .. }
            | Message::Refused { to, .. } => Some(*to),
            Message::Report { .. } => None,
        }
    }

    /// The leaf that it comes from.
    pub fn sender(&self) -> Option<NodeId> {
        match self {
            Message::Report { from, .. }
            | Message::Open { from, .. }
            | Message::Opened { from, .. }
            | Message::Feed { from, .. }
            | Message::Fed { from, .. }
            | Message::Refused { from, .. } => Some(*from),
            Message::Orders { .. } => None,
        }
    }
}
