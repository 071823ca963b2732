//! The blocking front of the consensus: callers' threads on one side, a runtime on its own thread on the other.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use openraft::error::{ClientWriteError, ForwardToLeader, RaftError};
use openraft::{BasicNode, ChangeMembers, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::journal::Journal;
use super::machine::{Machine, Published};
use super::network::{self, Peers, Transport};
use super::store::Store;
use super::{ConsensusError, Member, Options, Raft, Result};
use crate::catalog::{Catalog, Command, NodeId};

/// How long the runtime's threads have to end.
const STOP: Duration = Duration::from_secs(5);

/// One coordinator's part in the consensus.
///
/// All calls may wait and are made from threads that may. Dropped, it stops.
pub struct Consensus {
    id: u64,
    address: String,
    options: Options,
    pub(super) raft: Raft,
    catalog: Arc<Published>,
    runtime: Handle,
    thread: Mutex<Option<Running>>,
}

/// The thread of the runtime, and what ends it.
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Consensus {
    /// Starts a node on the folder where it keeps its log; the folder is made if it is not there. A node that is new takes no part until
    /// it is the first ([`Consensus::bootstrap`]) or another adds it ([`Consensus::add_voter`]).
    ///
    /// # Errors
    /// If the folder cannot be read, or another process has it.
    pub fn start(folder: &Path, id: NodeId, address: &str, transport: Arc<dyn Transport>, options: Options) -> Result<Consensus> {
        let failed = |error: &dyn std::fmt::Display| ConsensusError::Storage(error.to_string());
        let store = Arc::new(Store::open(folder).map_err(|error| failed(&error))?);
        let machine = Machine::open(store.clone()).map_err(|error| failed(&error))?;
        let catalog = machine.published();
        let config = Arc::new(config(&options).validate().map_err(|error| ConsensusError::Membership(error.to_string()))?);
        let runtime = Builder::new_current_thread().enable_time().thread_name("raft").build().map_err(|error| failed(&error))?;
        let handle = runtime.handle().clone();
        let (started, start) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let raft = async move { Raft::new(id.0, config, Peers::new(transport), Journal::new(store), machine).await };
        let run = move || {
            let _ = started.send(runtime.block_on(raft));
            // It ends when the sender is used or dropped.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_timeout(STOP);
        };
        let thread = thread::Builder::new().name(format!("raft-{}", id.0)).spawn(run).map_err(|error| failed(&error))?;
        let raft = start.recv().map_err(|_| ConsensusError::Stopped)?.map_err(|error| failed(&error))?;
        let thread = Mutex::new(Some(Running { stop, thread }));
        Ok(Consensus { id: id.0, address: address.to_owned(), options, raft, catalog, runtime: handle, thread })
    }

    /// This node's number.
    #[must_use]
    pub fn id(&self) -> NodeId {
        NodeId(self.id)
    }

    /// Makes this node the first of a new cluster, and its leader. Nothing happens if it has a part in one already.
    ///
    /// # Errors
    /// If the log cannot be written.
    pub fn bootstrap(&self) -> Result<()> {
        let (raft, limit) = (self.raft.clone(), self.options.change_timeout);
        let members = BTreeMap::from([(self.id, BasicNode::new(&self.address))]);
        let initialize = async move {
            if raft.is_initialized().await? {
                return Ok(());
            }
            raft.initialize(members).await
        };
        self.run(limit, initialize)?.map_err(|error| match error {
            RaftError::APIError(error) => ConsensusError::Membership(error.to_string()),
            RaftError::Fatal(error) => fatal(&error),
        })?;
        self.wait_for_leader(limit).map(|_| ())
    }

    /// Whether this node has a part in a cluster: it is bootstrapped, or was added to one.
    ///
    /// # Errors
    /// If the node has stopped.
    pub fn is_member(&self) -> Result<bool> {
        let raft = self.raft.clone();
        self.run(self.options.change_timeout, async move { raft.is_initialized().await })?.map_err(|error| fatal(&error))
    }

    /// Has a command carried out: on return it is durable on a majority, and in this node's catalog, which is returned.
    ///
    /// # Errors
    /// If the catalog refuses the command, this node does not lead, or no majority answers in time; see [`ConsensusError`] for what is
    /// known of the command then.
    pub fn propose(&self, command: &Command) -> Result<Arc<Catalog>> {
        let (raft, command) = (self.raft.clone(), command.clone());
        let written = self.run(self.options.change_timeout, async move { raft.client_write(command).await })?;
        match written.map_err(|error| self.change_failed(error))?.data.refused {
            Some(why) => Err(ConsensusError::Refused(why)),
            None => Ok(self.catalog()),
        }
    }

    /// The catalog as this node knows it: a moment old, perhaps, but never with a change that is not acknowledged by a majority.
    #[must_use]
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.catalog()
    }

    /// Waits until the catalog on this node is of another version, at most so long.
    pub fn wait_for_change(&self, version: u64, limit: Duration) {
        self.catalog.wait_for_change(version, limit);
    }

    /// Makes sure that this node leads and that its catalog has every change acknowledged so far, by asking a majority, again and again
    /// for as long as a change may take.
    ///
    /// # Errors
    /// If it does not lead, or no majority answers in time.
    pub fn confirm_leader(&self) -> Result<Arc<Catalog>> {
        use openraft::error::CheckIsLeaderError;
        let deadline = Instant::now() + self.options.change_timeout;
        loop {
            let raft = self.raft.clone();
            let confirmed = self.run(self.options.change_timeout, async move { raft.ensure_linearizable().await })?;
            match confirmed {
                Ok(_) => return Ok(self.catalog()),
                Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward))) => return Err(self.not_leader(&forward)),
                Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => {
                    return Err(ConsensusError::Unknown(self.options.change_timeout));
                }
                Err(RaftError::Fatal(error)) => return Err(fatal(&error)),
            }
        }
    }

    /// Who leads, as far as this node knows.
    #[must_use]
    pub fn leader(&self) -> Option<Member> {
        let leader = self.raft.metrics().borrow().current_leader?;
        self.members().into_iter().find(|member| member.id.0 == leader)
    }

    /// Whether this node leads, as far as it knows.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.raft.metrics().borrow().state == ServerState::Leader
    }

    /// Waits until a leader is known.
    ///
    /// # Errors
    /// If none is after this long.
    pub fn wait_for_leader(&self, limit: Duration) -> Result<Member> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(leader) = self.leader() {
                return Ok(leader);
            }
            if let Err(error) = &self.raft.metrics().borrow().running_state {
                return Err(fatal(error));
            }
            if Instant::now() >= deadline {
                return Err(ConsensusError::NotLeader { leader: None });
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The members of the cluster, as far as this node knows.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let metrics = self.raft.metrics().borrow().clone();
        let membership = metrics.membership_config;
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let member =
            |(id, node): (&u64, &BasicNode)| Member { id: NodeId(*id), address: node.addr.clone(), voter: voters.contains(id) };
        membership.nodes().map(member).collect()
    }

    /// Adds a coordinator that votes: it gets the catalog first, and votes when it has caught up. It has to be started already.
    ///
    /// # Errors
    /// As [`Consensus::propose`]. A node that could not be reached in time is left as one that does not vote.
    pub fn add_voter(&self, id: NodeId, address: &str) -> Result<()> {
        self.add_follower(id, address)?;
        self.change_members(ChangeMembers::AddVoterIds(BTreeSet::from([id.0])))
    }

    /// Adds a coordinator that has the catalog and does not vote.
    ///
    /// # Errors
    /// As [`Consensus::propose`].
    pub fn add_follower(&self, id: NodeId, address: &str) -> Result<()> {
        if let Some(member) = self.members().into_iter().find(|member| member.id == id && member.address != address) {
            let what =
                format!("coordinator {} is at {} already: a coordinator that is new needs a new number", id.0, member.address);
            return Err(ConsensusError::Membership(what));
        }
        let (raft, node) = (self.raft.clone(), BasicNode::new(address));
        let added = self.run(self.options.change_timeout, async move { raft.add_learner(id.0, node, true).await })?;
        added.map(|_| ()).map_err(|error| self.change_failed(error))
    }

    /// Removes a coordinator. The leader may remove itself: another is elected then.
    ///
    /// # Errors
    /// As [`Consensus::propose`], or if it is the last that votes.
    pub fn remove_voter(&self, id: NodeId) -> Result<()> {
        let ids = BTreeSet::from([id.0]);
        match self.members().into_iter().find(|member| member.id == id) {
            Some(member) if member.voter => self.change_members(ChangeMembers::RemoveVoters(ids)),
            Some(_) => self.change_members(ChangeMembers::RemoveNodes(ids)),
            None => Ok(()),
        }
    }

    fn change_members(&self, change: ChangeMembers<u64, BasicNode>) -> Result<()> {
        let raft = self.raft.clone();
        let changed = self.run(self.options.change_timeout, async move { raft.change_membership(change, false).await })?;
        changed.map(|_| ()).map_err(|error| self.change_failed(error))
    }

    /// Answers a message that another node's [`Transport`] brought. Whatever the bytes are, there is an answer.
    #[must_use]
    pub fn handle(&self, message: Vec<u8>) -> Vec<u8> {
        let (raft, id) = (self.raft.clone(), self.id);
        let limit = self.options.change_timeout;
        self.run(limit, async move { network::answer(&raft, id, &message).await }).unwrap_or_default()
    }

    /// Why this node takes no part any more, if its disk failed.
    #[must_use]
    pub fn failure(&self) -> Option<ConsensusError> {
        let running = self.raft.metrics().borrow().running_state.clone();
        running.err().map(|error| fatal(&error)).filter(|error| *error != ConsensusError::Stopped)
    }

    /// Has a snapshot made now, after which the log up to it can go.
    ///
    /// # Errors
    /// If the node has stopped.
    pub fn snapshot(&self) -> Result<()> {
        let raft = self.raft.clone();
        self.run(self.options.change_timeout, async move { raft.trigger().snapshot().await })?.map_err(|error| fatal(&error))
    }

    /// Ends this node's part. What is on disk stays; calls under way and later ones fail.
    pub fn stop(&self) {
        let Some(running) = self.thread.lock().take() else { return };
        let raft = self.raft.clone();
        let _ = self.run(STOP, async move { raft.shutdown().await });
        let _ = running.stop.send(());
        // It only fails if the thread panicked, and then it has ended as well.
        let _ = running.thread.join();
    }

    /// Runs something on the runtime and waits for it.
    fn run<T: Send + 'static>(&self, limit: Duration, task: impl Future<Output = T> + Send + 'static) -> Result<T> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            // Nobody hears it if the caller is gone.
            let _ = sender.send(tokio::time::timeout(limit, task).await);
        });
        match receiver.recv() {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(_late)) => Err(ConsensusError::Unknown(limit)),
            // The runtime dropped the task: it has ended.
            Err(_gone) => Err(ConsensusError::Stopped),
        }
    }

    fn change_failed(&self, error: RaftError<u64, ClientWriteError<u64, BasicNode>>) -> ConsensusError {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => self.not_leader(&forward),
            RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => ConsensusError::Membership(error.to_string()),
            RaftError::Fatal(error) => fatal(&error),
        }
    }

    fn not_leader(&self, forward: &ForwardToLeader<u64, BasicNode>) -> ConsensusError {
        let known = |id: u64| self.members().into_iter().find(|member| member.id.0 == id);
        ConsensusError::NotLeader { leader: forward.leader_id.and_then(known) }
    }
}

impl Drop for Consensus {
    fn drop(&mut self) {
        self.stop();
    }
}

fn fatal(error: &openraft::error::Fatal<u64>) -> ConsensusError {
    match error {
        openraft::error::Fatal::Stopped => ConsensusError::Stopped,
        other => ConsensusError::Storage(other.to_string()),
    }
}

fn config(options: &Options) -> openraft::Config {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    openraft::Config {
        cluster_name: "stoa".to_owned(),
        heartbeat_interval: millis(options.heartbeat),
        election_timeout_min: millis(options.election_min),
        election_timeout_max: millis(options.election_max),
        install_snapshot_timeout: 5000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_every),
        max_in_snapshot_log_to_keep: options.keep_entries,
        replication_lag_threshold: options.keep_entries.max(options.snapshot_every),
        // In JSON, up to four times as much.
        snapshot_max_chunk_size: 1 << 20,
        ..openraft::Config::default()
    }
}
