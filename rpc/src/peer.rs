//! What coordinators offer to each other, as blocking calls.

use std::time::Duration;

use crate::Result;
use crate::session::Cancelled;

/// A coordinator, to another one.
pub trait PeerService: Send + Sync {
    /// A message of the other's consensus, and the answer to it, which is waited for at most so long.
    ///
    /// # Errors
    /// If there is no answer.
    fn consensus(&self, message: Vec<u8>, limit: Duration) -> Result<Vec<u8>>;

    /// Runs a statement that only the leader may run, for a session on another coordinator; ends soon after `cancelled` is set.
    ///
    /// # Errors
    /// Those of the statement.
    fn decide(&self, statement: &ForLeader, cancelled: &Cancelled) -> Result<Decided>;

    /// Gives a coordinator that has no part in a cluster its number in the caller's.
    ///
    /// # Errors
    /// If it has another part already.
    fn adopt(&self, node: u64) -> Result<()>;

    /// Who it is.
    ///
    /// # Errors
    /// If it does not answer.
    fn status(&self) -> Result<PeerStatus>;

    /// What runs on it, as far as a user may see that.
    ///
    /// # Errors
    /// If it does not answer.
    fn processes(&self, user: &str) -> Result<Vec<ListedProcess>>;

    /// Ends what has this number in its process list; false if nothing has that the user may end.
    ///
    /// # Errors
    /// If it does not answer.
    fn kill(&self, user: &str, number: u64) -> Result<bool>;
}

/// What runs on a coordinator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedProcess {
    /// Its number in the process list.
    pub number: u64,
    /// Who runs it.
    pub user: String,
    /// The database whose tables it names.
    pub database: String,
    /// Its text.
    pub text: String,
    /// For how long it has run.
    pub time: Duration,
}

/// A statement for the leader.
#[derive(Clone, Debug)]
pub struct ForLeader {
    /// Who runs it.
    pub user: String,
    /// The database whose tables it names.
    pub database: String,
    /// Its text.
    pub sql: String,
}

/// What became of a statement for the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decided {
    /// It was run.
    Done {
        /// What it says.
        text: String,
        /// Its rows, an Arrow IPC stream; empty: it gives none.
        rows: Vec<u8>,
        /// The version of the catalog in which its changes are.
        version: u64,
    },
    /// Nothing was done: another coordinator leads.
    NotLeader,
}

/// What a coordinator says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its number; 0: it has no part in a cluster.
    pub node: u64,
    /// The address of the coordinator that leads, as far as this one knows; empty: none.
    pub leader: String,
    /// The version of its catalog.
    pub version: u64,
}
