//! Copies of partitions: what each is to be, how a master feeds the others, how a copy is fed.
//!
//! The coordinator that leads orders, with every heartbeat, what the catalog says; the leaf reports. Whoever is the master of a
//! partition for a term sends the records of its log to the leaves that have the other copies ([`shipping`]), which write them to logs
//! of their own ([`receiving`]). What stays true:
//! - A commit is acknowledged, and shown, once it is durable here and on every copy that is in sync.
//! - A new master answers once every copy in sync has what it had: before that another one may be chosen.
//! - A copy that counts as in sync stops counting only when the coordinator says that the catalog knows.
//! - A copy takes records only from the master of the latest term that it has heard of.

mod copies;
mod pace;
mod receiving;
mod shipping;

pub use copies::{FedCopies, is_lost, report_lost};
pub(crate) use pace::Pace;
pub(crate) use receiving::Receiving;
pub(crate) use shipping::{Outlet, Shipping, Target};

use stoa_columnstore::Position as LogPosition;
use stoa_rpc::replication::Position;

/// Bytes of a message of records or of a file.
const CHUNK: usize = 4 << 20;

/// A position as it is sent.
pub(crate) fn sent(position: LogPosition) -> Position {
    Position { lsn: position.lsn, term: position.term, checksum: position.checksum }
}

/// A position as it was sent.
fn received(position: Position) -> LogPosition {
    LogPosition { lsn: position.lsn, term: position.term, checksum: position.checksum }
}
