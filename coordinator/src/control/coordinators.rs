//! Coordinators that join and leave.

use std::time::{Duration, Instant};

use super::Control;
use crate::catalog::Command;
use crate::{Error, Result};

/// How long one that is removed may take to have what is decided.
const GONE: Duration = Duration::from_secs(2);

impl Control {
    /// Adds a coordinator that runs and has no part in a cluster. One that lost its disk comes back under a new number: its old one may
    /// have voted.
    pub(super) fn add_coordinator(&self, address: &str) -> Result<String> {
        let _changing = self.changing.lock();
        let consensus = self.membership.consensus()?;
        let peer = self.membership.peers().peer(address)?;
        let status = peer.status()?;
        let known = self.catalog().coordinator(address).map(|(id, _)| id);
        let voter = |id| consensus.members().iter().any(|member| member.id == id && member.voter);
        match known {
            Some(id) if status.node == id.0 && voter(id) => {
                return Err(Error::Invalid(format!("coordinator '{address}' is there already")));
            }
            Some(id) if status.node != 0 && status.node != id.0 => return Err(elsewhere(address, status.node)),
            Some(id) if status.node == 0 => {
                consensus.remove_voter(id)?;
                self.membership.change(&Command::RemoveCoordinator { address: address.to_owned() })?;
            }
            None if status.node != 0 => return Err(elsewhere(address, status.node)),
            _ => {}
        }
        if self.catalog().coordinator(address).is_none() {
            self.membership.change(&Command::AddCoordinator { address: address.to_owned() })?;
        }
        let id = self.catalog().coordinator(address).map(|(id, _)| id);
        let id = id.ok_or_else(|| Error::retryable(format!("coordinator '{address}' was removed while it was added")))?;
        peer.adopt(id.0)?;
        consensus.add_voter(id, address)?;
        Ok(format!("coordinator {address} added"))
    }

    /// Removes a coordinator, which may be the leader itself: another one leads then.
    pub(super) fn remove_coordinator(&self, address: &str) -> Result<String> {
        let _changing = self.changing.lock();
        let consensus = self.membership.consensus()?;
        // A try that failed half-way may have taken it out of the catalog already.
        let known = self.catalog().coordinator(address).map(|(id, _)| id);
        let member = consensus.members().into_iter().find(|member| member.address == address).map(|member| member.id);
        if known.is_some() || member.is_none() {
            self.membership.change(&Command::RemoveCoordinator { address: address.to_owned() })?;
        }
        if let Some(id) = known.or(member) {
            if id != consensus.id() {
                self.wait_for_member(address);
            }
            consensus.remove_voter(id)?;
        }
        Ok(format!("coordinator {address} removed"))
    }

    /// Waits until another coordinator has heard of what is decided, but not for long: it may be gone. One that never hears that it is
    /// removed would serve for ever.
    fn wait_for_member(&self, address: &str) {
        let (version, until) = (self.catalog().version, Instant::now() + GONE);
        let has = || {
            let said = self.ask_peers([address.to_owned()], GONE, |peer| peer.status()).pop();
            said.and_then(|(_, status)| status).is_some_and(|status| status.version >= version)
        };
        while !has() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn elsewhere(address: &str, number: u64) -> Error {
    Error::Invalid(format!(
        "{address} is coordinator {number} of another cluster, or was removed from this one: stop it, empty its folder and start it again"
    ))
}
