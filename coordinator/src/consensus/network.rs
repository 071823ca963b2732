//! Messages between the nodes of a consensus.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::BasicNode;
use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Raft, Types};

/// Carries messages to other nodes: from [`super::Consensus`] to the other's [`super::Consensus::handle`] and back.
pub trait Transport: Send + Sync + 'static {
    /// Sends a message and waits for the answer, at most so long. It is called on threads that may wait, several at a time.
    ///
    /// # Errors
    /// Why there is no answer.
    fn call(&self, address: &str, message: Vec<u8>, limit: Duration) -> Result<Vec<u8>, String>;
}

/// A message, for one node.
#[derive(Serialize, Deserialize)]
struct Envelope {
    to: u64,
    message: Message,
}

#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
enum Message {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<u64>),
    Snapshot(InstallSnapshotRequest<Types>),
}

/// The answer; `refused` if the message was not for this node or could not be read.
#[derive(Serialize, Deserialize)]
struct Answer<T> {
    refused: Option<String>,
    answer: Option<T>,
}

type Outcome<T, E> = Result<T, RaftError<u64, E>>;

/// Answers a message from another node.
pub(super) async fn answer(raft: &Raft, id: u64, message: &[u8]) -> Vec<u8> {
    let envelope: Envelope = match serde_json::from_slice(message) {
        Ok(envelope) => envelope,
        Err(error) => return refuse(format!("the message cannot be read: {error}")),
    };
    if envelope.to != id {
        return refuse(format!("the message is for node {}, and this is node {id}", envelope.to));
    }
    match envelope.message {
        Message::Append(request) => reply(raft.append_entries(request).await),
        Message::Vote(request) => reply(raft.vote(request).await),
        Message::Snapshot(request) => reply(raft.install_snapshot(request).await),
    }
}

fn refuse(why: String) -> Vec<u8> {
    to_bytes(&Answer::<()> { refused: Some(why), answer: None })
}

fn reply<T: Serialize, E: Serialize>(outcome: Outcome<T, E>) -> Vec<u8> {
    to_bytes(&Answer { refused: None, answer: Some(outcome) })
}

/// An answer that could not be written is sent as none, which nobody can read: the sender takes that as a failure and tries again.
fn to_bytes(answer: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(answer).unwrap_or_default()
}

/// Makes the connections to other nodes.
#[derive(Clone)]
pub(super) struct Peers {
    transport: Arc<dyn Transport>,
}

impl Peers {
    pub fn new(transport: Arc<dyn Transport>) -> Peers {
        Peers { transport }
    }
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        Peer { transport: self.transport.clone(), target, address: node.addr.clone() }
    }
}

/// Another node.
pub(super) struct Peer {
    transport: Arc<dyn Transport>,
    target: u64,
    address: String,
}

type CallError<E> = RPCError<u64, BasicNode, RaftError<u64, E>>;

impl Peer {
    async fn call<T, E>(&self, message: Message, limit: Duration) -> Result<T, CallError<E>>
    where
        T: DeserializeOwned + Send + 'static,
        E: DeserializeOwned + Error + Send + 'static,
    {
        let envelope = Envelope { to: self.target, message };
        let bytes = serde_json::to_vec(&envelope).map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        let (transport, address) = (self.transport.clone(), self.address.clone());
        let unreachable = |why: String| RPCError::Unreachable(Unreachable::new(&io::Error::other(why)));
        let sent = tokio::task::spawn_blocking(move || transport.call(&address, bytes, limit)).await;
        let answer = sent.map_err(|stopped| unreachable(stopped.to_string()))?.map_err(unreachable)?;
        let answer: Answer<Outcome<T, E>> =
            serde_json::from_slice(&answer).map_err(|error| unreachable(format!("{}: {error}", self.address)))?;
        match (answer.answer, answer.refused) {
            (Some(outcome), _) => outcome.map_err(|error| RPCError::RemoteError(RemoteError::new(self.target, error))),
            (None, why) => Err(unreachable(format!("{}: {}", self.address, why.unwrap_or_default()))),
        }
    }
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, CallError<openraft::error::Infallible>> {
        self.call(Message::Append(request), option.hard_ttl()).await
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, CallError<InstallSnapshotError>> {
        self.call(Message::Snapshot(request), option.hard_ttl()).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, CallError<openraft::error::Infallible>> {
        self.call(Message::Vote(request), option.hard_ttl()).await
    }

    fn backoff(&self) -> openraft::network::Backoff {
        openraft::network::Backoff::new(std::iter::repeat(Duration::from_millis(200)))
    }
}
