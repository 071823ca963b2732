//! The properties of `README.md`, over random clusters.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Leaves 1.. of group 1 and 101.. of group 2, the first of each paired with each other.
fn cluster(first: u64, second: u64) -> Vec<Leaf> {
    let leaf = |id: u64, group: u8, pair: Option<u64>| Leaf { id: NodeId(id), group, pair: pair.map(NodeId), draining: false };
    let ones = (1..=first).map(|n| leaf(n, 1, (n <= second).then_some(100 + n)));
    let twos = (1..=second).map(|n| leaf(100 + n, 2, (n <= first).then_some(n)));
    ones.chain(twos).collect()
}

fn is_even(counts: impl Iterator<Item = usize> + Clone) -> bool {
    counts.clone().max().unwrap_or(0) <= counts.min().unwrap_or(0) + 1
}

/// How many of `copies` each of the leaves has.
fn counts(leaves: &[NodeId], copies: impl Iterator<Item = NodeId>) -> Vec<usize> {
    let mut counts: BTreeMap<NodeId, usize> = leaves.iter().map(|leaf| (*leaf, 0)).collect();
    for copy in copies {
        *counts.entry(copy).or_default() += 1;
    }
    counts.into_values().collect()
}

/// The leaves that a placement of this kind uses.
fn used(redundancy: u8, kind: PlacementKind, leaves: &[Leaf]) -> Vec<NodeId> {
    let open: Vec<Leaf> = leaves.iter().filter(|leaf| !leaf.draining).copied().collect();
    let paired = redundancy == 2 && kind == PlacementKind::Paired;
    let in_pair = |leaf: &&Leaf| !paired || open.iter().any(|other| leaf.pair == Some(other.id));
    open.iter().filter(in_pair).map(|leaf| leaf.id).collect()
}

/// Everything that a settled placement keeps, for the partitions that `of` lists.
fn check(placement: &[Copies], of: &[usize], redundancy: u8, kind: PlacementKind, leaves: &[Leaf]) -> Result<(), TestCaseError> {
    let used = used(redundancy, kind, leaves);
    let group = |id: NodeId| leaves.iter().find(|leaf| leaf.id == id).map(|leaf| leaf.group);
    for p in of {
        let copies = &placement[*p];
        let roles: Vec<NodeId> = copies.roles().collect();
        prop_assert!(copies.master.is_some() && copies.spares.is_empty(), "partition {p}: {copies:?}");
        prop_assert_eq!(roles.len(), usize::from(redundancy));
        prop_assert!(roles.iter().all(|copy| used.contains(copy)));
        if redundancy == 2 {
            prop_assert_ne!(group(roles[0]), group(roles[1]), "partition {}", p);
            if kind == PlacementKind::Paired {
                let pair = leaves.iter().find(|leaf| leaf.id == roles[0]).and_then(|leaf| leaf.pair);
                prop_assert_eq!(pair, Some(roles[1]));
            }
        }
    }
    let masters = counts(&used, of.iter().filter_map(|p| placement[*p].master));
    prop_assert!(is_even(masters.iter().copied()), "masters {masters:?}");
    for side in GROUPS {
        let members: Vec<NodeId> = used.iter().copied().filter(|leaf| redundancy == 1 || group(*leaf) == Some(side)).collect();
        let copies = of.iter().flat_map(|p| placement[*p].roles()).filter(|copy| members.contains(copy));
        prop_assert!(is_even(counts(&members, copies).into_iter()), "copies in group {side}");
    }
    Ok(())
}

/// The partitions that have a live master or replica.
fn alive(placement: &[Copies], leaves: &[Leaf]) -> Vec<usize> {
    let live = |copies: &Copies| copies.roles().any(|copy| leaves.iter().any(|leaf| leaf.id == copy));
    (0..placement.len()).filter(|p| live(&placement[*p])).collect()
}

/// Does the first `most` steps; each must keep a live copy that is up to date, and no copy twice.
fn run(placement: &mut [Copies], steps: &[Step], most: usize, leaves: &[Leaf]) -> Result<(), TestCaseError> {
    let is_live = |copy: NodeId| leaves.iter().any(|leaf| leaf.id == copy);
    for step in steps.iter().take(most) {
        let before = placement[step.partition as usize].clone();
        let known: BTreeSet<NodeId> = before.all().collect();
        let after: BTreeSet<NodeId> = step.after.all().collect();
        prop_assert_eq!(step.after.all().count(), after.len(), "a copy is listed twice: {:?}", step);
        prop_assert!(step.after.roles().any(is_live), "{:?}", step);
        prop_assert!(is_live(step.target) || step.action == Action::Drop);
        let added: Vec<&NodeId> = after.difference(&known).collect();
        let removed: Vec<&NodeId> = known.difference(&after).collect();
        match step.action {
            Action::Copy => {
                prop_assert!(before.master.is_some_and(is_live), "no source: {:?}", step);
                prop_assert!(after.contains(&step.target) && removed.is_empty());
                prop_assert_eq!(step.after.master, before.master);
            }
            Action::Promote => prop_assert!(added.is_empty() && removed.is_empty() && step.after.master == Some(step.target)),
            Action::PromoteWithDrop => {
                prop_assert!(added.is_empty() && removed.len() == 1 && step.after.master == Some(step.target));
            }
            Action::Drop => prop_assert!(added.is_empty() && removed == [&step.target]),
        }
        placement[step.partition as usize] = step.after.clone();
    }
    prop_assert!(steps.is_sorted_by_key(|step| step.phase));
    Ok(())
}

/// Copies made where there was none.
fn fresh(placement: &[Copies], steps: &[Step]) -> usize {
    let is_new =
        |step: &&Step| step.action == Action::Copy && !placement[step.partition as usize].all().any(|copy| copy == step.target);
    steps.iter().filter(is_new).count()
}

fn kinds() -> impl Strategy<Value = (u8, PlacementKind)> {
    prop_oneof![
        Just((1, PlacementKind::Paired)),
        Just((1, PlacementKind::LoadBalanced)),
        Just((2, PlacementKind::Paired)),
        Just((2, PlacementKind::LoadBalanced)),
    ]
}

/// Leaves with some of them dead (left out) and some draining; each group keeps an open one and one pair stays open.
fn survivors(most: u64) -> impl Strategy<Value = Vec<Leaf>> {
    (1..=most, 1..=most, proptest::collection::vec(0..10u8, 2 * most as usize)).prop_map(|(first, second, fates)| {
        let mut leaves = Vec::new();
        for (leaf, fate) in cluster(first, second).into_iter().zip(fates) {
            let spared = leaf.id.0 % 100 == 1;
            match fate {
                0..=1 if !spared => {}
                2 if !spared => leaves.push(Leaf { draining: true, ..leaf }),
                _ => leaves.push(leaf),
            }
        }
        leaves
    })
}

/// Copies anywhere, as no placement would leave them: known and unknown leaves, two in a group, none at all.
fn wild(partitions: usize, most: u64) -> impl Strategy<Value = Placement> {
    let node = prop_oneof![(1..=most).prop_map(NodeId), (101..=100 + most).prop_map(NodeId)];
    let copies = (proptest::option::weighted(0.9, node.clone()), proptest::collection::vec(node, 0..4), 0..3usize).prop_map(
        |(master, others, replicas)| {
            let mut seen: BTreeSet<NodeId> = master.into_iter().collect();
            let mut others: Vec<NodeId> = others.into_iter().filter(|copy| seen.insert(*copy)).collect();
            let spares = others.split_off(replicas.min(others.len()));
            Copies { master, replicas: others, spares }
        },
    );
    proptest::collection::vec(copies, 0..=partitions)
}

/// A settled placement of another cluster, which is what growth, loss and draining start from.
fn settled(partitions: u32, most: u64) -> impl Strategy<Value = Placement> {
    (1..=most, 1..=most, 0..=partitions, kinds()).prop_map(|(first, second, partitions, (redundancy, kind))| {
        place(partitions, redundancy, kind, &cluster(first, second)).unwrap()
    })
}

fn any_placement(partitions: usize, most: u64) -> impl Strategy<Value = Placement> {
    prop_oneof![wild(partitions, most), settled(partitions as u32, most)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_new_placement_is_even_and_settled(partitions in 0..100u32, (redundancy, kind) in kinds(), leaves in survivors(6)) {
        let placement = place(partitions, redundancy, kind, &leaves).unwrap();
        let all: Vec<usize> = (0..placement.len()).collect();
        prop_assert_eq!(all.len(), partitions as usize);
        check(&placement, &all, redundancy, kind, &leaves)?;
        prop_assert_eq!(rebalance(&placement, redundancy, kind, &leaves).unwrap(), vec![]);
    }

    #[test]
    fn load_balanced_spreads_each_leafs_partitions(partitions in 0..100u32, first in 1..7u64, second in 1..7u64) {
        let leaves = cluster(first, second);
        let placement = place(partitions, 2, PlacementKind::LoadBalanced, &leaves).unwrap();
        for leaf in &leaves {
            let others: Vec<NodeId> = leaves.iter().filter(|other| other.group != leaf.group).map(|other| other.id).collect();
            let replicas = placement.iter().filter(|copies| copies.master == Some(leaf.id)).flat_map(|copies| copies.replicas.clone());
            prop_assert!(is_even(counts(&others, replicas).into_iter()));
        }
    }

    #[test]
    fn a_rebalance_settles(placement in any_placement(40, 5), (redundancy, kind) in kinds(), leaves in survivors(5)) {
        let mut after = placement.clone();
        let steps = rebalance(&placement, redundancy, kind, &leaves).unwrap();
        run(&mut after, &steps, usize::MAX, &leaves)?;
        check(&after, &alive(&placement, &leaves), redundancy, kind, &leaves)?;
        prop_assert_eq!(rebalance(&after, redundancy, kind, &leaves).unwrap(), vec![]);
        for (p, copies) in placement.iter().enumerate() {
            prop_assert!(alive(&placement, &leaves).contains(&p) || *copies == after[p]);
        }
    }

    #[test]
    fn a_rebalance_cut_short_goes_on(
        placement in any_placement(24, 4), (redundancy, kind) in kinds(), leaves in survivors(4), cut in 0..100usize,
    ) {
        let mut after = placement.clone();
        let steps = rebalance(&placement, redundancy, kind, &leaves).unwrap();
        let cut = cut * steps.len() / 100;
        run(&mut after, &steps, cut, &leaves)?;
        let done = fresh(&placement, &steps[..cut]);
        let rest = rebalance(&after, redundancy, kind, &leaves).unwrap();
        prop_assert!(done + fresh(&after, &rest) <= fresh(&placement, &steps), "a copy was made for nothing");
        run(&mut after, &rest, usize::MAX, &leaves)?;
        check(&after, &alive(&placement, &leaves), redundancy, kind, &leaves)?;
    }
}

/// Rebalances databases in turn, each beside the others, until nothing is left to do.
fn rebalance_together(all: &mut [Placement], redundancy: u8, kind: PlacementKind, leaves: &[Leaf]) -> Result<(), TestCaseError> {
    for _ in 0..=all.len() {
        let mut moved = false;
        for index in 0..all.len() {
            let others = Others::of(all.iter().enumerate().filter(|(other, _)| *other != index).flat_map(|(_, other)| other));
            let plan = |now: &Placement| rebalance_beside(now, redundancy, kind, leaves, &others).unwrap();
            let steps = plan(&all[index]);
            moved |= !steps.is_empty();
            run(&mut all[index], &steps, usize::MAX, leaves)?;
            check(&all[index], &(0..all[index].len()).collect::<Vec<_>>(), redundancy, kind, leaves)?;
            prop_assert_eq!(plan(&all[index]), vec![]);
        }
        if !moved {
            return Ok(());
        }
    }
    Err(TestCaseError::fail("databases push each other around"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn databases_are_even_together(
        partitions in proptest::collection::vec(1..7u32, 1..9), (redundancy, kind) in kinds(), leaves in survivors(4),
    ) {
        let mut all: Vec<Placement> = partitions.iter().map(|n| place(*n, redundancy, kind, &leaves).unwrap()).collect();
        rebalance_together(&mut all, redundancy, kind, &leaves)?;
        let used = used(redundancy, kind, &leaves);
        let group = |id: NodeId| leaves.iter().find(|leaf| leaf.id == id).map(|leaf| leaf.group);
        for side in GROUPS {
            let members: Vec<NodeId> = used.iter().copied().filter(|leaf| redundancy == 1 || group(*leaf) == Some(side)).collect();
            let copies = all.iter().flatten().flat_map(Copies::roles).filter(|copy| members.contains(copy));
            prop_assert!(is_even(counts(&members, copies).into_iter()), "copies in group {side}");
        }
        // No database of one partition has its master on the busier of its two leaves.
        let masters = |leaf: NodeId| all.iter().flatten().filter(|copies| copies.master == Some(leaf)).count();
        for copies in all.iter().filter(|placement| placement.len() == 1).flatten() {
            let master = masters(copies.master.unwrap());
            prop_assert!(copies.replicas.iter().all(|replica| master <= masters(*replica) + 1));
        }
    }
}

#[test]
fn many_small_databases_do_not_pile_up() {
    let leaves = cluster(4, 4);
    for kind in [PlacementKind::Paired, PlacementKind::LoadBalanced] {
        let mut all: Vec<Placement> = (0..16).map(|_| place(1, 2, kind, &leaves).unwrap()).collect();
        assert!(all.iter().flatten().all(|copies| copies.master == Some(NodeId(1))));
        rebalance_together(&mut all, 2, kind, &leaves).unwrap();
        let ids: Vec<NodeId> = leaves.iter().map(|leaf| leaf.id).collect();
        assert_eq!(counts(&ids, all.iter().flatten().flat_map(Copies::roles)), [4; 8]);
        let masters = counts(&ids, all.iter().flatten().filter_map(|copies| copies.master));
        assert!(masters.iter().all(|masters| (1..=3).contains(masters)), "{kind}: {masters:?}");
    }
}

/// The fewest new copies of any settled placement, by trying them all.
fn fewest(placement: &[Copies], redundancy: u8, kind: PlacementKind, leaves: &[Leaf]) -> usize {
    let used = used(redundancy, kind, leaves);
    let group = |id: NodeId| leaves.iter().find(|leaf| leaf.id == id).map(|leaf| leaf.group);
    let mut shapes = Vec::new();
    for master in &used {
        if redundancy == 1 {
            shapes.push(Copies { master: Some(*master), ..Copies::default() });
        }
        for replica in used.iter().filter(|replica| redundancy == 2 && group(**replica) != group(*master)) {
            shapes.push(Copies { master: Some(*master), replicas: vec![*replica], spares: vec![] });
        }
    }
    let of: Vec<usize> = (0..placement.len()).collect();
    let mut best = usize::MAX;
    for mut code in 0..shapes.len().pow(placement.len() as u32) {
        let mut cost = 0;
        let mut candidate = Vec::new();
        for copies in placement {
            let shape = &shapes[code % shapes.len()];
            code /= shapes.len();
            cost += shape.roles().filter(|copy| !copies.all().any(|known| known == *copy)).count();
            candidate.push(shape.clone());
        }
        if cost < best && check(&candidate, &of, redundancy, kind, leaves).is_ok() {
            best = cost;
        }
    }
    best
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_rebalance_makes_the_fewest_copies(placement in any_placement(4, 2), (redundancy, kind) in kinds(), leaves in survivors(2)) {
        prop_assume!(alive(&placement, &leaves).len() == placement.len());
        let steps = rebalance(&placement, redundancy, kind, &leaves).unwrap();
        prop_assert_eq!(fresh(&placement, &steps), fewest(&placement, redundancy, kind, &leaves));
    }
}

#[test]
fn growth_and_loss_move_the_theoretical_minimum() {
    let three = cluster(2, 1);
    let four = cluster(2, 2);
    let placement = place(16, 2, PlacementKind::LoadBalanced, &three).unwrap();
    let steps = rebalance(&placement, 2, PlacementKind::LoadBalanced, &four).unwrap();
    assert_eq!(fresh(&placement, &steps), 8, "the new leaf takes half of what its only neighbour has");
    let placement = place(16, 2, PlacementKind::Paired, &four).unwrap();
    let steps = rebalance(&placement, 2, PlacementKind::Paired, &cluster(3, 3)).unwrap();
    // Two pairs give 3 and 3, or 2 and 3, of their 8 partitions to the new one, each with both copies.
    assert_eq!(fresh(&placement, &steps), 10);
    let single = place(12, 1, PlacementKind::Paired, &cluster(3, 0)).unwrap();
    assert_eq!(fresh(&single, &rebalance(&single, 1, PlacementKind::Paired, &cluster(4, 0)).unwrap()), 3);
}

#[test]
fn masters_that_promotions_cannot_even_out_exchange_copies() {
    // Leaf 1 shares four partitions with leaves 101 and 102 alone: four masters on three leaves, where each of seven should have one.
    let leaves = cluster(2, 5);
    let pair =
        |master: u64, replica: u64| Copies { master: Some(NodeId(master)), replicas: vec![NodeId(replica)], spares: vec![] };
    let placement = vec![pair(1, 101), pair(1, 101), pair(1, 102), pair(1, 102), pair(2, 103), pair(2, 104), pair(2, 105)];
    let steps = rebalance(&placement, 2, PlacementKind::LoadBalanced, &leaves).unwrap();
    let mut after = placement.clone();
    run(&mut after, &steps, usize::MAX, &leaves).unwrap();
    check(&after, &(0..7).collect::<Vec<_>>(), 2, PlacementKind::LoadBalanced, &leaves).unwrap();
    assert_eq!(fresh(&placement, &steps), 2);
}

#[test]
fn impossible_placements_say_what_to_do() {
    let message = |redundancy, kind, leaves: &[Leaf]| place(4, redundancy, kind, leaves).unwrap_err().to_string();
    assert!(message(1, PlacementKind::Paired, &[]).contains("ADD LEAF"));
    assert!(message(2, PlacementKind::Paired, &cluster(2, 0)).contains("availability group 2"));
    assert!(message(2, PlacementKind::LoadBalanced, &cluster(0, 2)).contains("availability group 1"));
    assert!(message(3, PlacementKind::Paired, &cluster(2, 2)).contains("1 or 2"));
    let mut apart = cluster(1, 1);
    apart[0].pair = None;
    apart[1].pair = None;
    assert!(message(2, PlacementKind::Paired, &apart).contains("pair"));
}

#[test]
fn many_partitions_do_not_take_long() {
    let before = cluster(16, 16);
    let placement = place(2048, 2, PlacementKind::LoadBalanced, &before).unwrap();
    let after = cluster(20, 20);
    let steps = rebalance(&placement, 2, PlacementKind::LoadBalanced, &after).unwrap();
    assert_eq!(fresh(&placement, &steps), 2 * (102 + 102 + 102 + 102));
}
