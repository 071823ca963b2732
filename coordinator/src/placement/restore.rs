//! Second copies for partitions that lost theirs; nothing else moves.

use std::collections::BTreeMap;

use super::rebalance::{Action, Step};
use super::{Copies, Leaf, PlacementError, targets};
use crate::catalog::NodeId;

/// Plans how partitions with a master and without a replica get one: from a copy that is there without a role if there is one, else on
/// the pair of the master's leaf, else on the leaf of the other group with the fewest copies. Run again on the outcome, it has nothing
/// to do.
///
/// # Errors
/// If there is nothing to place on, as for [`super::place`].
pub fn restore_redundancy(current: &[Copies], redundancy: u8, leaves: &[Leaf]) -> Result<Vec<Step>, PlacementError> {
    let open = targets(redundancy, leaves)?;
    if redundancy < 2 {
        return Ok(vec![]);
    }
    let mut load: BTreeMap<NodeId, usize> = BTreeMap::new();
    for copy in current.iter().flat_map(Copies::all) {
        *load.entry(copy).or_default() += 1;
    }
    let mut steps = Vec::new();
    for (partition, copies) in (0u32..).zip(current) {
        let master = copies.master.and_then(|master| leaves.iter().find(|leaf| leaf.id == master));
        let (Some(master), true) = (master, copies.replicas.is_empty()) else { continue };
        let others = open.iter().filter(|leaf| leaf.group != master.group);
        let rank = |leaf: &&Leaf| {
            let fresh = !copies.spares.contains(&leaf.id);
            let pair = master.pair == Some(leaf.id);
            (fresh, !pair, load.get(&leaf.id).copied().unwrap_or(0), leaf.id)
        };
        let Some(target) = others.min_by_key(rank).map(|leaf| leaf.id) else { continue };
        *load.entry(target).or_default() += usize::from(!copies.spares.contains(&target));
        let mut after = copies.clone();
        after.spares.retain(|copy| *copy != target);
        after.replicas.push(target);
        steps.push(Step { phase: 1, action: Action::Copy, partition, target, after });
    }
    Ok(steps)
}
