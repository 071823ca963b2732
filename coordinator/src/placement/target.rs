//! Where a rebalance wants the copies to be: as even as can be, at the fewest copies made.

use std::collections::BTreeMap;

use super::assign::{Bin, Choice, assign};
use super::{Copies, GROUPS, Leaf, Others, PlacementError, PlacementKind, masters, pairs, targets};
use crate::catalog::NodeId;

/// Cost of making a copy where there is none. It outweighs everything below over all partitions.
pub(super) const FRESH: i64 = 1 << 44;
/// Cost of bringing a copy without a role up to date.
const CATCH_UP: i64 = 1 << 34;
/// Cost of taking the master's copy away rather than a replica's.
const UNSEAT: i64 = 1 << 24;

/// What one partition should look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Goal {
    /// The partition's ordinal.
    pub partition: u32,
    pub master: NodeId,
    pub replica: Option<NodeId>,
}

/// A partition that has a live copy with a role, and what is known of its copies.
pub(super) struct Item<'a> {
    pub partition: u32,
    pub copies: &'a Copies,
}

impl Item<'_> {
    /// What it costs to have a copy on a leaf.
    pub(super) fn cost(&self, leaf: NodeId) -> i64 {
        if self.copies.roles().any(|copy| copy == leaf) {
            0
        } else if self.copies.spares.contains(&leaf) {
            CATCH_UP
        } else {
            FRESH
        }
    }

    /// What it costs to have the partition on one of several leaves: a copy, and a new master if the old one is among the leaves that
    /// compete for this copy and does not get it.
    fn weigh(&self, leaf: NodeId, competitors: &BTreeMap<NodeId, usize>) -> i64 {
        let unseats = self.copies.master.is_some_and(|master| master != leaf && competitors.contains_key(&master));
        self.cost(leaf) + if unseats { UNSEAT } else { 0 }
    }
}

/// The goal for each partition that has a live copy with a role. The others are left as they are: nobody knows better.
pub(super) fn goals(
    current: &[Copies],
    redundancy: u8,
    kind: PlacementKind,
    leaves: &[Leaf],
    others: &Others,
) -> Result<Vec<Goal>, PlacementError> {
    let open = targets(redundancy, leaves)?;
    let live = |copies: &Copies| copies.roles().any(|copy| leaves.iter().any(|leaf| leaf.id == copy));
    let numbered = (0u32..).zip(current).map(|(partition, copies)| Item { partition, copies });
    let items: Vec<Item<'_>> = numbered.filter(|item| live(item.copies)).collect();
    let holders = if redundancy == 1 {
        spread(&items, open.iter().map(|leaf| leaf.id), others).into_iter().map(|leaf| vec![leaf]).collect()
    } else if kind == PlacementKind::Paired {
        spread_pairs(&items, &pairs(&open)?, others)
    } else {
        let group = |group: u8| open.iter().filter(move |leaf| leaf.group == group).map(|leaf| leaf.id);
        let (first, second) = (spread(&items, group(GROUPS[0]), others), spread(&items, group(GROUPS[1]), others));
        first.into_iter().zip(second).map(|(first, second)| vec![first, second]).collect()
    };
    Ok(masters::elect(&items, holders, others))
}

/// One copy of each partition, evenly over these leaves.
fn spread(items: &[Item<'_>], leaves: impl Iterator<Item = NodeId>, others: &Others) -> Vec<NodeId> {
    let mut ids: Vec<NodeId> = leaves.collect();
    ids.sort_unstable();
    let bins: BTreeMap<NodeId, usize> = ids.iter().copied().zip(0..).collect();
    let choice = |item: &Item<'_>, (index, leaf): (usize, NodeId)| {
        let cost = item.weigh(leaf, &bins);
        // Among leaves that cost the same, partitions next to each other take different ones.
        let turn = if cost >= FRESH { (item.partition as usize + index) % ids.len() } else { 0 };
        Choice { bin: index, cost: cost + turn as i64 }
    };
    let choices: Vec<Vec<Choice>> =
        items.iter().map(|item| ids.iter().copied().enumerate().map(|leaf| choice(item, leaf)).collect()).collect();
    let bins: Vec<Bin> = ids.iter().map(|leaf| Bin { besides: others.copies(*leaf), item: 1 }).collect();
    assign(&choices, &bins).into_iter().map(|bin| ids[bin]).collect()
}

/// Both copies of each partition on one pair, evenly over the pairs.
fn spread_pairs(items: &[Item<'_>], pairs: &[(NodeId, NodeId)], others: &Others) -> Vec<Vec<NodeId>> {
    let mut pairs = pairs.to_vec();
    pairs.sort_unstable();
    let choice = |item: &Item<'_>, (index, (first, second)): (usize, (NodeId, NodeId))| {
        let cost = item.cost(first) + item.cost(second);
        let unseats = item.copies.master.is_some_and(|master| master != first && master != second);
        let turn = if cost >= FRESH { (item.partition as usize + index) % pairs.len() } else { 0 };
        Choice { bin: index, cost: cost + turn as i64 + if unseats { UNSEAT } else { 0 } }
    };
    let choices: Vec<Vec<Choice>> =
        items.iter().map(|item| pairs.iter().copied().enumerate().map(|pair| choice(item, pair)).collect()).collect();
    let bin = |pair: &(NodeId, NodeId)| Bin { besides: others.copies(pair.0) + others.copies(pair.1), item: 2 };
    let bins: Vec<Bin> = pairs.iter().map(bin).collect();
    assign(&choices, &bins).into_iter().map(|bin| vec![pairs[bin].0, pairs[bin].1]).collect()
}
