//! Statements that change the cluster run on the coordinator that leads: whichever was asked has that one run them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stoa_exec::CancelToken;
use stoa_rpc::ipc::read_chunk;
use stoa_rpc::peer::{Decided, ForLeader};
use stoa_rpc::session::Cancelled;

use super::Control;
use crate::consensus::{Consensus, ConsensusError};
use crate::{Error, Outcome, Result};

/// How long a statement waits for a leader: an election takes a few seconds.
const ELECTION: Duration = Duration::from_secs(15);
/// How long the leader is asked, and how long its answer is waited for, before something is said to be missing or not allowed.
const CATCH_UP: Duration = Duration::from_millis(1500);
/// How long a coordinator may be behind the leader before a session goes on without the change that it made.
const BEHIND: Duration = Duration::from_secs(5);

const NO_MAJORITY: &str =
    "nothing was changed: a majority of the coordinators must be up and reach each other (SHOW AGGREGATORS tells which are)";

/// What came of asking.
enum Asked {
    /// This coordinator leads.
    Here,
    Done {
        outcome: Outcome,
        version: u64,
    },
    /// Nothing was done, for this reason.
    Nobody(String),
}

impl Control {
    /// Has the leader run a statement, and waits until this coordinator has its changes: what it gives. `None` if this coordinator leads;
    /// it has every change made so far then, and runs the statement itself.
    pub(crate) fn forward(&self, statement: &ForLeader, cancel: &CancelToken) -> Result<Option<Outcome>> {
        let began = Instant::now();
        loop {
            cancel.check()?;
            match self.ask_leader(statement, cancel)? {
                Asked::Here => return Ok(None),
                Asked::Done { outcome, version } => {
                    self.wait_for(version, BEHIND);
                    return Ok(Some(outcome));
                }
                Asked::Nobody(why) if began.elapsed() > ELECTION => return Err(Error::retryable(why)),
                Asked::Nobody(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn ask_leader(&self, statement: &ForLeader, cancel: &CancelToken) -> Result<Asked> {
        let consensus = self.membership.consensus()?;
        if consensus.is_leader() {
            return match consensus.confirm_leader() {
                Ok(_) => Ok(Asked::Here),
                Err(error @ (ConsensusError::NotLeader { .. } | ConsensusError::Unknown(_))) => {
                    Ok(Asked::Nobody(error.to_string()))
                }
                Err(error) => Err(error.into()),
            };
        }
        let Some(leader) = consensus.leader() else {
            return Ok(Asked::Nobody(NO_MAJORITY.to_owned()));
        };
        let peer = match self.membership.peers().peer(&leader.address) {
            Ok(peer) => peer,
            Err(failure) => return Ok(Asked::Nobody(format!("the leading coordinator does not answer: {failure}"))),
        };
        let replaced = || consensus.leader().is_some_and(|other| other.id != leader.id);
        let end = Cancelled::default();
        let (done, end) = (&AtomicBool::new(false), &end);
        let ran = std::thread::scope(|scope| {
            // A leader that hangs is replaced, and nobody waits for it any longer; it may have done its work before.
            let watch = move || {
                while !done.load(Ordering::Relaxed) {
                    end.fetch_or(cancel.check().is_err() || replaced(), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(10));
                }
            };
            scope.spawn(watch);
            let ran = peer.decide(statement, end);
            done.store(true, Ordering::Relaxed);
            ran
        });
        cancel.check()?;
        match ran {
            Ok(Decided::Done { text, rows, version }) => Ok(Asked::Done { outcome: given(text, rows)?, version }),
            Ok(Decided::NotLeader) => Ok(Asked::Nobody(format!("{} does not lead the cluster any more", leader.address))),
            Err(_) if end.load(Ordering::Relaxed) => Err(Error::retryable(
                "another coordinator leads now: whether the statement was done is not known, look before it is repeated",
            )),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Learns what the leader has decided so far, unless this coordinator leads: whether the catalog is newer than a version then. What is
    /// missing here, or not allowed, may have been made a moment ago through another coordinator.
    pub(crate) fn catch_up(&self, known: u64) -> bool {
        // One that leads knows everything; one whose disk failed learns nothing any more.
        let learns = |consensus: &Arc<Consensus>| !consensus.is_leader() && consensus.failure().is_none();
        let consensus = self.membership.consensus().ok().filter(learns);
        let leader = consensus.and_then(|consensus| consensus.leader()).map(|leader| leader.address);
        let said = self.ask_peers(leader, CATCH_UP, |peer| peer.status()).pop().and_then(|(_, status)| status);
        if let Some(status) = said {
            self.wait_for(status.version, CATCH_UP);
        }
        self.catalog().version > known
    }

    fn wait_for(&self, version: u64, limit: Duration) {
        let began = Instant::now();
        loop {
            let (now, left) = (self.catalog().version, limit.saturating_sub(began.elapsed()));
            if now >= version || left.is_zero() {
                return;
            }
            self.wait_for_change(now, left);
        }
    }
}

/// What a statement gave: rows, or a text.
fn given(text: String, rows: Vec<u8>) -> Result<Outcome> {
    if rows.is_empty() {
        return Ok(Outcome::Done(text));
    }
    let (schema, batches) = read_chunk(rows)?;
    Ok(Outcome::Rows { schema, batches })
}
