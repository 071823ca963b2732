//! Where the copies of a database's partitions live: pure functions from the leaves to a placement and from a placement to the steps
//! that mend it.
//!
//! [`place`] chooses for a new database, [`rebalance`] plans for an old one. Neither looks at a clock, a socket or a random number, so
//! the same input gives the same answer on every coordinator. What they keep true is in `README.md` beside this file.

mod assign;
mod initial;
mod masters;
mod rebalance;
mod restore;
mod target;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::catalog::NodeId;

pub use initial::place;
pub use rebalance::{Action, Step, rebalance, rebalance_beside};
pub use restore::restore_redundancy;

/// The availability groups: a partition of a database with redundancy 2 has a copy in each.
pub const GROUPS: [u8; 2] = [1, 2];

/// How the second copies are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PlacementKind {
    /// Each leaf and its pair in the other group hold the same partitions. Losing one leaf doubles the load of its pair; losing more
    /// leaves loses partitions only if two of them are a pair.
    #[default]
    Paired,
    /// The second copies of a leaf's partitions are spread over the leaves of the other group. Losing one leaf loads the others
    /// evenly; losing one in each group takes partitions off line.
    LoadBalanced,
}

impl fmt::Display for PlacementKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PlacementKind::Paired => "paired",
            PlacementKind::LoadBalanced => "load_balanced",
        })
    }
}

/// A leaf that answers, as placement sees it. A leaf that does not answer is left out of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Which node it is.
    pub id: NodeId,
    /// Its availability group, 1 or 2.
    pub group: u8,
    /// Its pair in the other group, if it has one.
    pub pair: Option<NodeId>,
    /// It is to be emptied: its copies may be read, it gets none.
    pub draining: bool,
}

/// Where the copies of one partition are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copies {
    /// The copy that takes writes. None: the partition is off line.
    pub master: Option<NodeId>,
    /// Copies that have all that the master acknowledged, and may be promoted.
    #[serde(default)]
    pub replicas: Vec<NodeId>,
    /// Copies without a role: made by a rebalance that has not come to its end, or behind because their leaf was away.
    #[serde(default)]
    pub spares: Vec<NodeId>,
}

impl Copies {
    /// The copies with a role: the master first.
    pub fn roles(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.master.into_iter().chain(self.replicas.iter().copied())
    }

    /// The same copies, of which none but the master's is known to have everything.
    #[must_use]
    pub fn unsynced(mut self) -> Copies {
        self.spares.append(&mut self.replicas);
        self
    }

    /// Every copy, with a role or without.
    pub fn all(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.roles().chain(self.spares.iter().copied())
    }
}

/// What leaves have of other databases.
#[derive(Clone, Debug, Default)]
pub struct Others {
    /// Copies with a role, and masters among them, by leaf.
    counts: BTreeMap<NodeId, (usize, usize)>,
}

impl Others {
    /// Counts the copies of these partitions.
    pub fn of<'a>(partitions: impl Iterator<Item = &'a Copies>) -> Others {
        let mut others = Others::default();
        for copies in partitions {
            for copy in copies.roles() {
                let (all, masters) = others.counts.entry(copy).or_default();
                *all += 1;
                *masters += usize::from(copies.master == Some(copy));
            }
        }
        others
    }

    fn copies(&self, leaf: NodeId) -> usize {
        self.counts.get(&leaf).map_or(0, |(copies, _)| *copies)
    }

    fn masters(&self, leaf: NodeId) -> usize {
        self.counts.get(&leaf).map_or(0, |(_, masters)| *masters)
    }
}

/// The copies of a database's partitions, by the partition's ordinal.
pub type Placement = Vec<Copies>;

/// Why there is no placement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Nothing to place on.
    #[error("no leaf is online: add one with ADD LEAF 'HOST:PORT'")]
    NoLeaves,
    /// Redundancy 2 with an empty group.
    #[error(
        "redundancy 2 needs a leaf online in availability group {0} as well: add one with ADD LEAF 'HOST:PORT' INTO GROUP {0}, or say \
         REDUNDANCY 1"
    )]
    EmptyGroup(u8),
    /// Paired placement without a pair.
    #[error(
        "paired placement needs a pair of leaves that are both online: use load balanced placement, or bring a leaf's pair back"
    )]
    NoPairs,
    /// Neither 1 nor 2.
    #[error("redundancy {0} is not possible: it is 1 or 2")]
    Redundancy(u8),
}

/// The leaves that may get copies, or why a placement with this redundancy is impossible.
fn targets(redundancy: u8, leaves: &[Leaf]) -> Result<Vec<Leaf>, PlacementError> {
    if !(1..=2).contains(&redundancy) {
        return Err(PlacementError::Redundancy(redundancy));
    }
    let open: Vec<Leaf> = leaves.iter().filter(|leaf| !leaf.draining).copied().collect();
    if open.is_empty() {
        return Err(PlacementError::NoLeaves);
    }
    if redundancy == 2 {
        for group in GROUPS {
            if !open.iter().any(|leaf| leaf.group == group) {
                return Err(PlacementError::EmptyGroup(group));
            }
        }
    }
    Ok(open)
}

/// The pairs of which both leaves may get copies, as (leaf of group 1, leaf of group 2), in the order of `open`.
fn pairs(open: &[Leaf]) -> Result<Vec<(NodeId, NodeId)>, PlacementError> {
    let mut pairs: Vec<(NodeId, NodeId)> = Vec::new();
    for leaf in open {
        let Some(other) = open.iter().find(|other| leaf.pair == Some(other.id) && other.group != leaf.group) else { continue };
        let pair = if leaf.group == GROUPS[0] { (leaf.id, other.id) } else { (other.id, leaf.id) };
        if !pairs.iter().any(|known| known.0 == pair.0 || known.1 == pair.1) {
            pairs.push(pair);
        }
    }
    if pairs.is_empty() { Err(PlacementError::NoPairs) } else { Ok(pairs) }
}
