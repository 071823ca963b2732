//! The placement of a new database.

use std::collections::BTreeMap;

use super::{Copies, GROUPS, Leaf, Placement, PlacementError, PlacementKind, pairs, targets};
use crate::catalog::NodeId;

/// Places the partitions of a new database.
///
/// Where numbers do not come out even, leaves earlier in the list get one more.
///
/// # Errors
/// If there is no leaf to place on, or none in one of the groups (redundancy 2), or no pair (paired, redundancy 2).
pub fn place(partitions: u32, redundancy: u8, kind: PlacementKind, leaves: &[Leaf]) -> Result<Placement, PlacementError> {
    let open = targets(redundancy, leaves)?;
    Ok(match (redundancy, kind) {
        (1, _) => (0..partitions as usize).map(|p| alone(open[p % open.len()].id)).collect(),
        (_, PlacementKind::Paired) => paired(partitions as usize, &pairs(&open)?),
        (_, PlacementKind::LoadBalanced) => load_balanced(partitions as usize, &open),
    })
}

fn alone(master: NodeId) -> Copies {
    Copies { master: Some(master), ..Copies::default() }
}

/// Pairs take turns; within a pair the leaves take turns at being master, and every other pair begins with its second leaf.
fn paired(partitions: usize, pairs: &[(NodeId, NodeId)]) -> Placement {
    let copies = |p: usize| {
        let (index, turn) = (p % pairs.len(), p / pairs.len());
        let (first, second) = pairs[index];
        let (master, replica) = if (index + turn).is_multiple_of(2) { (first, second) } else { (second, first) };
        Copies { master: Some(master), replicas: vec![replica], spares: vec![] }
    };
    (0..partitions).map(copies).collect()
}

/// Masters go round all leaves. The replicas of one leaf's partitions go round the leaves of the other group, each leaf going on
/// where the one before it stopped: so that every leaf of the group gets as many as any other, and as many from each leaf.
fn load_balanced(partitions: usize, open: &[Leaf]) -> Placement {
    let order = interleaved(open);
    let mut placement: Placement = (0..partitions).map(|p| alone(order[p % order.len()].id)).collect();
    let masters = |leaf: &Leaf| {
        let at = order.iter().position(|other| other.id == leaf.id).unwrap_or_default();
        partitions / order.len() + usize::from(at < partitions % order.len())
    };
    for group in GROUPS {
        let mut others: Vec<&Leaf> = order.iter().filter(|leaf| leaf.group != group).collect();
        // Those with fewer masters come first, so that they get the replicas that are left over.
        others.sort_by_key(|leaf| masters(leaf));
        let mut round = others.iter().cycle();
        for leaf in order.iter().filter(|leaf| leaf.group == group) {
            let own = placement.iter_mut().filter(|copies| copies.master == Some(leaf.id));
            for (copies, replica) in own.zip(&mut round) {
                copies.replicas.push(replica.id);
            }
        }
    }
    placement
}

/// The leaves, groups taking turns as long as both have some left.
fn interleaved(open: &[Leaf]) -> Vec<Leaf> {
    let mut ranks: BTreeMap<u8, usize> = BTreeMap::new();
    let mut ranked: Vec<(usize, Leaf)> = Vec::new();
    for leaf in open {
        let rank = ranks.entry(leaf.group).or_default();
        ranked.push((*rank, *leaf));
        *rank += 1;
    }
    ranked.sort_by_key(|(rank, leaf)| (*rank, leaf.group));
    ranked.into_iter().map(|(_, leaf)| leaf).collect()
}
