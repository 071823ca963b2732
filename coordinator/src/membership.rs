//! This coordinator's part in its cluster.
//!
//! A coordinator that is new has none: it is made the first of a cluster ([`Membership::bootstrap`]), or the leader of one adopts it
//! ([`Membership::adopt`]). Its number is on disk before its consensus starts, and never changes while it has a part.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use stoa_columnstore::lock_file;
use stoa_rpc::peer::{Decided, ForLeader};
use stoa_rpc::session::Cancelled;
use stoa_rpc::{FailureKind, PeerPool};

use crate::access::CLUSTER;
use crate::catalog::{Catalog, Command, NodeId};
use crate::consensus::{Consensus, ConsensusError, Options, Transport};
use crate::supervision::thread;
use crate::{Error, Result};

const NODE_FILE: &str = "node.json";
const LOG_FOLDER: &str = "catalog";
/// How long a coordinator that joins looks for a leader.
const JOIN: Duration = Duration::from_secs(60);
/// How often a coordinator whose disk failed tries to take part again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often one without a part in a cluster looks again.
const WITHOUT_PART: Duration = Duration::from_millis(50);

/// A coordinator's part in its cluster.
pub struct Membership {
    folder: PathBuf,
    address: OnceLock<String>,
    peers: Arc<PeerPool>,
    options: Options,
    consensus: RwLock<Option<Arc<Consensus>>>,
    _lock: File,
}

/// What a coordinator remembers of itself.
#[derive(Serialize, Deserialize)]
struct Node {
    number: u64,
}

/// Messages of the consensus go over the connections to the other coordinators.
struct Wire(Arc<PeerPool>);

impl Transport for Wire {
    fn call(&self, address: &str, message: Vec<u8>, limit: Duration) -> std::result::Result<Vec<u8>, String> {
        self.0.peer(address).and_then(|peer| peer.consensus(message, limit)).map_err(|failure| failure.message)
    }
}

impl Membership {
    /// The coordinator of a folder, which is made if it is not there. It takes no part before [`Membership::begin`].
    ///
    /// # Errors
    /// If the folder cannot be made, or another process has it.
    pub fn open(folder: &Path, peers: Arc<PeerPool>, options: Options) -> Result<Membership> {
        fs::create_dir_all(folder).map_err(|e| failed(folder, &e))?;
        let lock = lock_file(&folder.join("LOCK"))?
            .ok_or_else(|| Error::Invalid(format!("another process has the data directory {} open", folder.display())))?;
        let (folder, address, consensus) = (folder.to_path_buf(), OnceLock::new(), RwLock::default());
        Ok(Membership { folder, address, peers, options, consensus, _lock: lock })
    }

    /// Takes up the part that the coordinator has, if it has one; others reach it at `address` from now on.
    ///
    /// # Errors
    /// If the folder cannot be read, or the cluster knows the coordinator at another address.
    pub fn begin(&self, address: &str) -> Result<()> {
        let address = self.address.get_or_init(|| address.to_owned());
        let path = self.folder.join(NODE_FILE);
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            read => read.map_err(|e| failed(&path, &e))?,
        };
        let node: Node = serde_json::from_slice(&bytes).map_err(|e| failed(&path, &e))?;
        let consensus = self.start(node.number)?;
        if let Some(known) = consensus.catalog().coordinators.get(&consensus.id())
            && known.address != *address
        {
            return Err(Error::Invalid(format!(
                "the cluster knows this coordinator as {0}, not as {address}: start it with --advertise {0}",
                known.address
            )));
        }
        *self.consensus.write() = Some(consensus);
        Ok(())
    }

    /// Makes this coordinator the first of a new cluster; nothing happens if it has a part in one.
    ///
    /// # Errors
    /// If that cannot be stored.
    pub fn bootstrap(&self) -> Result<()> {
        const FIRST: u64 = 1;
        let known = self.consensus.read().clone();
        let consensus = match known {
            Some(consensus) => consensus,
            None => self.take(FIRST)?,
        };
        if consensus.is_member()? && !consensus.catalog().coordinators.is_empty() {
            return Ok(());
        }
        consensus.bootstrap()?;
        // It gets the number that it has: it is the first node of all.
        if consensus.catalog().coordinators.is_empty() {
            consensus.propose(&Command::AddCoordinator { address: self.address().to_owned() })?;
        }
        Ok(())
    }

    /// Takes a part in the cluster whose leader says so, under the number that it gives.
    ///
    /// # Errors
    /// If this coordinator has a part already, or it cannot be stored.
    pub fn adopt(&self, number: u64) -> Result<()> {
        let known = self.consensus.read().clone();
        if let Some(consensus) = known {
            let own = consensus.id().0;
            if own == number {
                return Ok(());
            }
            if consensus.is_member()? {
                let what =
                    format!("{} is coordinator {own} of a cluster: only one with an empty folder can be added", self.address());
                return Err(Error::Invalid(what));
            }
            // It was promised a part under that number and never got it.
            consensus.stop();
        }
        self.take(number).map(drop)
    }

    /// Has the leader of a cluster add this coordinator, which listens already; `through` is any coordinator of that cluster. Nothing
    /// happens if it has a part in one.
    ///
    /// # Errors
    /// Why the leader does not, or that none was found in a minute.
    pub fn join(&self, through: &str) -> Result<()> {
        if self.number().is_some() {
            return Ok(());
        }
        let statement =
            ForLeader { user: CLUSTER.to_owned(), database: String::new(), sql: format!("ADD AGGREGATOR '{}'", self.address()) };
        let began = Instant::now();
        loop {
            let tried = self.ask_to_add(through, &statement);
            match tried {
                Ok(Decided::Done { .. }) => return Ok(()),
                Err(failure) if failure.kind != FailureKind::Retryable => return Err(failure.into()),
                Err(failure) if began.elapsed() > JOIN => return Err(failure.into()),
                Ok(Decided::NotLeader) if began.elapsed() > JOIN => {
                    return Err(Error::retryable(format!("no leader of the cluster of {through} was found")));
                }
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Takes part again after the disk of this coordinator failed, as long as it lives: a full one may have room later. What was
    /// acknowledged is on the disk.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub fn recover_by_itself(self: &Arc<Self>) -> Result<()> {
        let membership = Arc::downgrade(self);
        let run = move || {
            let mut failed = None;
            while let Some(membership) = membership.upgrade() {
                failed = membership.recover(failed);
                drop(membership);
                std::thread::sleep(AGAIN);
            }
        };
        thread("stoa-membership", run)
    }

    /// Puts a consensus that works in the place of one that failed; what failed and could not be replaced yet.
    fn recover(&self, failed: Option<Arc<Consensus>>) -> Option<Arc<Consensus>> {
        let failed = failed.or_else(|| {
            let now = self.consensus().ok()?;
            let why = now.failure()?;
            tracing::error!(%why, "takes no part in the cluster while its disk fails");
            // Its catalog is read until another is there.
            now.stop();
            Some(now)
        })?;
        let Ok(consensus) = self.start(failed.id().0) else { return Some(failed) };
        let mut slot = self.consensus.write();
        // Somebody may have adopted this coordinator meanwhile.
        if slot.as_ref().is_some_and(|now| Arc::ptr_eq(now, &failed)) {
            *slot = Some(consensus);
            tracing::warn!("takes part in the cluster again after its disk had failed");
        }
        None
    }

    fn ask_to_add(&self, through: &str, statement: &ForLeader) -> stoa_rpc::Result<Decided> {
        let leader = self.peers.peer(through)?.status()?.leader;
        if leader.is_empty() {
            return Ok(Decided::NotLeader);
        }
        self.peers.peer(&leader)?.decide(statement, &Cancelled::default())
    }

    fn take(&self, number: u64) -> Result<Arc<Consensus>> {
        let mut slot = self.consensus.write();
        *slot = None;
        let log = self.folder.join(LOG_FOLDER);
        match fs::remove_dir_all(&log) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(&log, &e)),
            _ => {}
        }
        self.store(&Node { number })?;
        let consensus = self.start(number)?;
        *slot = Some(consensus.clone());
        Ok(consensus)
    }

    fn start(&self, number: u64) -> Result<Arc<Consensus>> {
        let log = self.folder.join(LOG_FOLDER);
        let wire = Arc::new(Wire(self.peers.clone()));
        Ok(Arc::new(Consensus::start(&log, NodeId(number), self.address(), wire, self.options.clone())?))
    }

    fn store(&self, node: &Node) -> Result<()> {
        let path = self.folder.join(NODE_FILE);
        let write = || -> std::io::Result<()> {
            let new = path.with_extension("new");
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(node)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|e| failed(&path, &e))
    }

    /// Where others reach this coordinator.
    #[must_use]
    pub fn address(&self) -> &str {
        self.address.get().map_or("", String::as_str)
    }

    /// The other coordinators.
    #[must_use]
    pub fn peers(&self) -> &PeerPool {
        &self.peers
    }

    /// Its consensus.
    ///
    /// # Errors
    /// If it has no part in a cluster.
    pub fn consensus(&self) -> Result<Arc<Consensus>> {
        let consensus = self.consensus.read().clone();
        consensus.ok_or_else(|| {
            let way_out = "ADD AGGREGATOR on a coordinator that has adds it";
            Error::retryable(format!("the coordinator {} has no part in a cluster yet: {way_out}", self.address()))
        })
    }

    /// Its number, if it has a part in a cluster.
    #[must_use]
    pub fn number(&self) -> Option<NodeId> {
        let consensus = self.consensus.read();
        consensus.as_ref().filter(|consensus| consensus.is_member().unwrap_or(false)).map(|consensus| consensus.id())
    }

    /// The number that it goes by, whether it has its part already or not; 0: none.
    pub(crate) fn node(&self) -> u64 {
        self.consensus.read().as_ref().map_or(0, |consensus| consensus.id().0)
    }

    /// The catalog as this coordinator has it; empty without a part in a cluster.
    #[must_use]
    pub fn catalog(&self) -> Arc<Catalog> {
        self.consensus.read().as_ref().map(|consensus| consensus.catalog()).unwrap_or_default()
    }

    /// Waits until the catalog is of another version, at most so long.
    pub fn wait_for_change(&self, version: u64, limit: Duration) {
        match self.consensus() {
            Ok(consensus) => consensus.wait_for_change(version, limit),
            Err(_) => std::thread::sleep(limit.min(WITHOUT_PART)),
        }
    }

    /// Changes the catalog; only the leader can.
    ///
    /// # Errors
    /// If the command is refused, this coordinator does not lead, or no majority answers.
    pub fn change(&self, command: &Command) -> Result<Arc<Catalog>> {
        Ok(self.consensus()?.propose(command)?)
    }
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Invalid(format!("{}: {error}", path.display()))
}

impl From<ConsensusError> for Error {
    fn from(error: ConsensusError) -> Error {
        match error {
            ConsensusError::Refused(why) | ConsensusError::Membership(why) => Error::Invalid(why),
            ConsensusError::NotLeader { .. } | ConsensusError::Unknown(_) | ConsensusError::Stopped => {
                Error::retryable(error.to_string())
            }
            ConsensusError::Storage(_) => Error::Node(stoa_rpc::Failure::new(stoa_rpc::FailureKind::Fatal, error.to_string())),
        }
    }
}
