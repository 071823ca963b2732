//! Which copy of each partition is its master: as many on each leaf as on any other, at the fewest promotions.

use std::collections::{BTreeMap, BTreeSet};

use super::Others;
use super::assign::{Bin, Choice, assign};
use super::target::{Goal, Item};
use crate::catalog::NodeId;

/// Chooses the master among the holders of each partition. Where promotions alone cannot make masters even, two partitions exchange a
/// copy, so `holders` is where copies are wanted and not yet a decision.
pub(super) fn elect(items: &[Item<'_>], mut holders: Vec<Vec<NodeId>>, others: &Others) -> Vec<Goal> {
    // Each exchange makes masters more even by one, so there are never more of them than partitions.
    let mut left = items.len();
    loop {
        let leaves: BTreeSet<NodeId> = holders.iter().flatten().copied().collect();
        let leaves: Vec<NodeId> = leaves.into_iter().collect();
        let masters = choose(items, &holders, &leaves, others);
        let single = holders.first().is_none_or(|copies| copies.len() < 2);
        if single || left == 0 || !exchange(items, &mut holders, &masters, &leaves) {
            return goals(items, &holders, &masters);
        }
        left -= 1;
    }
}

/// The masters for these holders.
fn choose(items: &[Item<'_>], holders: &[Vec<NodeId>], leaves: &[NodeId], others: &Others) -> Vec<NodeId> {
    let bins: BTreeMap<NodeId, usize> = leaves.iter().copied().zip(0..).collect();
    let choice = |item: &Item<'_>, leaf: NodeId| {
        let promoted = item.copies.master != Some(leaf);
        // A copy that is there already takes over sooner than one that is still to be made.
        let cost = if promoted { 2 + i64::from(item.cost(leaf) > 0) } else { 0 };
        Choice { bin: bins.get(&leaf).copied().unwrap_or_default(), cost }
    };
    let choices: Vec<Vec<Choice>> =
        items.iter().zip(holders).map(|(item, copies)| copies.iter().map(|leaf| choice(item, *leaf)).collect()).collect();
    let bins: Vec<Bin> = leaves.iter().map(|leaf| Bin { besides: others.masters(*leaf), item: 1 }).collect();
    assign(&choices, &bins).into_iter().map(|bin| leaves[bin]).collect()
}

fn goals(items: &[Item<'_>], holders: &[Vec<NodeId>], masters: &[NodeId]) -> Vec<Goal> {
    let goal = |((item, copies), master): ((&Item<'_>, &Vec<NodeId>), &NodeId)| Goal {
        partition: item.partition,
        master: *master,
        replica: copies.iter().copied().find(|copy| copy != master),
    };
    items.iter().zip(holders).zip(masters).map(goal).collect()
}

/// If masters are still uneven, exchanges a copy between two partitions so that the next choice is more even. False: they are even.
///
/// Let `full` have the most masters and `low` the fewest, two or more apart. As no promotions lead from `full` to `low`, the partitions
/// of the leaves that can be reached from `full` lie on those leaves alone. One of `full`'s partitions gets a copy on `low` (instead of
/// `full`'s own if they share a group, else instead of the other copy), and a partition of which `low` has the replica takes the place
/// that this frees. Every leaf keeps its number of copies; `low` can now have one master more and `full` one fewer.
fn exchange(items: &[Item<'_>], holders: &mut [Vec<NodeId>], masters: &[NodeId], leaves: &[NodeId]) -> bool {
    let count = |leaf: NodeId| masters.iter().filter(|master| **master == leaf).count();
    let Some(full) = leaves.iter().copied().max_by_key(|leaf| count(*leaf)) else { return false };
    let Some(low) = leaves.iter().copied().min_by_key(|leaf| count(*leaf)) else { return false };
    if count(full) < count(low) + 2 {
        return false;
    }
    // In `holders` a group has always the same slot.
    let slot = |leaf: NodeId| holders.iter().find_map(|copies| copies.iter().position(|copy| *copy == leaf));
    let Some(side) = slot(low) else { return false };
    let change = |p: usize, leaf: NodeId| items[p].cost(leaf) - items[p].cost(holders[p][side]);
    let giver = (0..items.len()).filter(|p| masters[*p] == full && !holders[*p].contains(&low)).min_by_key(|p| change(*p, low));
    let Some(giver) = giver else { return false };
    let freed = holders[giver][side];
    let taker = (0..items.len()).filter(|p| holders[*p][side] == low && masters[*p] != low).min_by_key(|p| change(*p, freed));
    let Some(taker) = taker else { return false };
    holders[giver][side] = low;
    holders[taker][side] = freed;
    true
}
