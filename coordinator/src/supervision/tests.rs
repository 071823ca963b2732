//! Decisions, over random clusters and what happens to them. `PROPTEST_CASES` says how many clusters, if not the few of every day.

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::result::Result;

use proptest::prelude::*;

use super::*;
use crate::catalog::Job;
use crate::placement::{Copies, PlacementKind};
use world::{Checked, Event, Shape, World, address};

/// As many cases, unless the environment says how many.
fn cases(usual: u32) -> ProptestConfig {
    if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default() } else { ProptestConfig::with_cases(usual) }
}

/// One to eight leaves in two groups, some of which join after the database was made.
fn shapes(partitions: u32) -> impl Strategy<Value = Shape> {
    let kinds = prop_oneof![Just(PlacementKind::Paired), Just(PlacementKind::LoadBalanced)];
    let groups = proptest::collection::vec(1..=2u8, 1..=8);
    (groups, 1..=8usize, 1..=partitions, 1..=2u8, kinds).prop_map(|(groups, first, partitions, redundancy, kind)| {
        let first = first.min(groups.len());
        let both = groups[..first].iter().any(|group| *group != groups[0]);
        Shape { first, partitions, redundancy: if both { redundancy } else { 1 }, kind, groups }
    })
}

fn jobs() -> impl Strategy<Value = Job> {
    let whole = prop_oneof![Just(Job::Rebalance), Just(Job::RebalanceFull), Just(Job::RestoreRedundancy)];
    prop_oneof![3 => whole, 1 => (1..=8u64).prop_map(|leaf| Job::Drain(NodeId(leaf)))]
}

/// Losses, returns, mistakes; nobody asks for anything.
fn troubles() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..8usize).prop_map(Event::Crash),
        3 => (0..8usize).prop_map(Event::Start),
        3 => (0..8usize).prop_map(Event::TakeOut),
        1 => (0..8usize).prop_map(Event::Detach),
        1 => (0..8usize).prop_map(Event::Attach),
        3 => (0..24usize).prop_map(Event::Write),
        9 => (0..8usize).prop_map(Event::Report),
        1 => (0..24usize).prop_map(Event::LogFails),
        1 => (0..8usize).prop_map(Event::Wipe),
        1 => Just(Event::NewLeader),
    ]
}

/// Troubles in the middle of what operators ask for.
fn interruptions() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![8 => troubles(), 2 => jobs().prop_map(Event::Ask), 1 => Just(Event::Cancel)];
    proptest::collection::vec(event, 0..60)
}

/// A set of leaves, by their numbers.
fn some_leaves() -> impl Strategy<Value = BTreeSet<NodeId>> {
    proptest::collection::btree_set((1..=8u64).prop_map(NodeId), 0..6)
}

fn any_order() -> impl Strategy<Value = Vec<NodeId>> {
    Just((1..=8).map(NodeId).collect::<Vec<_>>()).prop_shuffle()
}

fn all_copies(world: &World) -> Vec<BTreeSet<NodeId>> {
    world.copies().iter().map(|copies| copies.all().collect()).collect()
}

fn masters(world: &World) -> Vec<Option<NodeId>> {
    world.copies().iter().map(|copies| copies.master).collect()
}

/// Whether no number is more than one above another.
fn is_even(counts: impl Iterator<Item = usize> + Clone) -> bool {
    counts.clone().max() <= counts.min().map(|least| least + 1)
}

/// The leaves that a rebalance may put copies on: those of each group, or all of them as one group if there is one copy of each partition.
fn sides(world: &World) -> Vec<Vec<NodeId>> {
    let (database, leaves) = (world.database(), &world.catalog.leaves);
    let paired = database.redundancy == 2 && database.placement == PlacementKind::Paired;
    let used = |id: &NodeId| world.is_online(*id) && (!paired || leaves[id].pair.is_some_and(|pair| world.is_online(pair)));
    let of = |groups: &[u8]| leaves.keys().copied().filter(|id| used(id) && groups.contains(&leaves[id].group)).collect();
    if database.redundancy == 1 { vec![of(&[1, 2])] } else { vec![of(&[1]), of(&[2])] }
}

/// The partitions that a rebalance can do something for: their master is there.
fn led(world: &World) -> Vec<usize> {
    let copies = world.copies();
    (0..copies.len()).filter(|p| copies[*p].master.is_some_and(|master| world.is_online(master))).collect()
}

/// Masters and copies of these partitions are even to within one, one in each group, and no copy is there in vain.
fn check_even(world: &World, of: &[usize]) -> Checked {
    let copies = world.copies();
    let sides = sides(world);
    for p in of {
        prop_assert!(copies[*p].spares.is_empty(), "partition {p}: {:?}", copies[*p]);
        for side in &sides {
            let here = copies[*p].roles().filter(|copy| side.contains(copy)).count();
            prop_assert_eq!(here, 1, "partition {} in {:?}: {:?}", p, side, copies[*p]);
        }
        prop_assert_eq!(copies[*p].all().count(), sides.len());
    }
    let count = |leaf: &NodeId, has: &dyn Fn(&Copies, NodeId) -> bool| of.iter().filter(|p| has(&copies[**p], *leaf)).count();
    for side in &sides {
        prop_assert!(is_even(side.iter().map(|leaf| count(leaf, &|copies, leaf| copies.all().any(|copy| copy == leaf)))));
    }
    prop_assert!(is_even(sides.iter().flatten().map(|leaf| count(leaf, &|copies, leaf| copies.master == Some(leaf)))));
    Ok(())
}

/// Leaves are lost: their processes end, and they are found to be gone in this order.
fn lose(world: &mut World, lost: &BTreeSet<NodeId>, order: &[NodeId]) -> Checked {
    world.up.retain(|leaf| !lost.contains(leaf));
    world.judge(order.iter().copied().filter(|leaf| world.catalog.leaves.contains_key(leaf)).collect::<Vec<_>>().into_iter())
}

/// The least cost at which every item gets a slot, if `must` slots come first and have to be filled: an assignment by potentials, which
/// has nothing in common with how placements are found.
fn least(costs: &[Vec<i64>], must: usize) -> i64 {
    const MUCH: i64 = 1 << 20;
    let (items, slots) = (costs.len(), costs.first().map_or(0, Vec::len));
    let cost = |item: usize, slot: usize| costs[item - 1][slot - 1] + if slot > must { MUCH } else { 0 };
    let (mut u, mut v) = (vec![0i64; items + 1], vec![0i64; slots + 1]);
    let mut of_slot = vec![0usize; slots + 1];
    for item in 1..=items {
        of_slot[0] = item;
        let (mut at, mut best, mut from, mut seen) = (0, vec![i64::MAX; slots + 1], vec![0; slots + 1], vec![false; slots + 1]);
        while of_slot[at] != 0 {
            seen[at] = true;
            let row = of_slot[at];
            for slot in (1..=slots).filter(|slot| !seen[*slot]) {
                let reduced = cost(row, slot) - u[row] - v[slot];
                if reduced < best[slot] {
                    (best[slot], from[slot]) = (reduced, at);
                }
            }
            let next = (1..=slots).filter(|slot| !seen[*slot]).min_by_key(|slot| best[*slot]).unwrap();
            let delta = best[next];
            for slot in 0..=slots {
                if seen[slot] {
                    u[of_slot[slot]] += delta;
                    v[slot] -= delta;
                } else if slot > 0 {
                    best[slot] -= delta;
                }
            }
            at = next;
        }
        while at != 0 {
            of_slot[at] = of_slot[from[at]];
            at = from[at];
        }
    }
    (1..=slots).filter(|slot| of_slot[*slot] != 0).map(|slot| costs[of_slot[slot] - 1][slot - 1]).sum()
}

/// The fewest copies with which the partitions that are led can be even over these places, each of one or two leaves.
fn fewest_over(world: &World, places: &[Vec<NodeId>]) -> usize {
    let copies = world.copies();
    let missing =
        |p: &usize, place: &Vec<NodeId>| place.iter().filter(|leaf| !copies[*p].all().any(|copy| copy == **leaf)).count();
    let of = led(world);
    // As many slots at each place as every place fills, and then one more at each.
    let full = of.len() / places.len().max(1);
    let row = |p: &usize| -> Vec<i64> { (0..=full).flat_map(|_| places.iter().map(|place| missing(p, place) as i64)).collect() };
    least(&of.iter().map(row).collect::<Vec<_>>(), full * places.len()) as usize
}

/// The fewest copies that make everything even, and whether masters need no copy for their own sake.
fn fewest(world: &World) -> (usize, bool) {
    let sides = sides(world);
    if sides.len() == 2 && world.database().placement == PlacementKind::Paired {
        let pair = |leaf: &NodeId| vec![*leaf, world.catalog.leaves[leaf].pair.unwrap()];
        return (fewest_over(world, &sides[0].iter().map(pair).collect::<Vec<_>>()), true);
    }
    let over = |side: &Vec<NodeId>| fewest_over(world, &side.iter().map(|leaf| vec![*leaf]).collect::<Vec<_>>());
    (sides.iter().map(over).sum(), sides.len() == 1)
}

/// The fewest of any even placement with two copies of each partition, by trying them all.
fn fewest_of_all(world: &World) -> usize {
    let (sides, copies, of) = (sides(world), world.copies(), led(world));
    let mut shapes: Vec<[NodeId; 2]> = Vec::new();
    for (first, second) in sides[0].iter().flat_map(|first| sides[1].iter().map(move |second| (*first, *second))) {
        shapes.extend([[first, second], [second, first]]);
    }
    let mut best = usize::MAX;
    for code in 0..shapes.len().pow(of.len() as u32) {
        let chosen: Vec<[NodeId; 2]> =
            (0u32..).zip(&of).map(|(i, _)| shapes[code / shapes.len().pow(i) % shapes.len()]).collect();
        let leaves = sides.iter().flatten();
        let masters = leaves.map(|leaf| chosen.iter().filter(|[master, _]| master == leaf).count());
        let even = |side: &Vec<NodeId>| is_even(side.iter().map(|leaf| chosen.iter().filter(|both| both.contains(leaf)).count()));
        if is_even(masters) && sides.iter().all(even) {
            let fresh =
                |(p, both): (&usize, &[NodeId; 2])| both.iter().filter(|leaf| !copies[*p].all().any(|c| c == **leaf)).count();
            best = best.min(of.iter().zip(&chosen).map(fresh).sum());
        }
    }
    best
}

/// A cluster that lost leaves, of which some are back.
fn battered(shape: &Shape, lost: &BTreeSet<NodeId>, order: &[NodeId], back: &BTreeSet<NodeId>) -> Result<World, TestCaseError> {
    let mut world = World::new(shape)?;
    lose(&mut world, lost, order)?;
    let back: Vec<NodeId> = world.catalog.leaves.keys().copied().filter(|leaf| back.contains(leaf)).collect();
    world.up.extend(back);
    world.rest()?;
    world.made = 0;
    Ok(world)
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn a_partition_is_led_wherever_a_synced_copy_lives(
        shape in shapes(24), lost in some_leaves(), order in any_order(), reports in proptest::collection::vec(0..8usize, 8),
    ) {
        let mut world = World::new(&shape)?;
        let before = world.copies();
        world.up.retain(|leaf| !lost.contains(leaf));
        for (leaf, report) in order.into_iter().zip(reports) {
            world.happen(Event::Report(report))?;
            world.happen(Event::Write(report))?;
            world.judge(world.catalog.leaves.contains_key(&leaf).then_some(leaf).into_iter())?;
        }
        for (p, (before, after)) in (0u32..).zip(before.iter().zip(world.copies())) {
            if before.roles().any(|copy| world.up.contains(&copy)) {
                let master = after.master.unwrap();
                prop_assert!(world.up.contains(&master) && world.has_everything(p, master), "{before:?} became {after:?}");
            }
        }
    }

    #[test]
    fn of_copies_that_die_at_once_the_first_that_returns_serves(
        shape in shapes(24), lost in some_leaves(), order in any_order(), back in any_order(), reports in any::<bool>(),
    ) {
        let mut world = World::new(&shape)?;
        let before = world.copies();
        lose(&mut world, &lost, &order)?;
        for leaf in back.into_iter().filter(|leaf| lost.contains(leaf) && world.catalog.leaves.contains_key(leaf)).collect::<Vec<_>>() {
            world.up.insert(leaf);
            if reports { world.rest()? } else { (0..3).try_for_each(|_| world.report(leaf))? }
            for (p, before) in (0u32..).zip(&before) {
                let led = world.copies()[p as usize].master.filter(|master| world.up.contains(master) && world.is_online(*master));
                prop_assert_eq!(led.is_some(), before.roles().any(|copy| world.up.contains(&copy)), "partition {}: {:?}", p, before);
                let Some(master) = led else { continue };
                prop_assert!(world.has_everything(p, master));
                let written = world.acknowledged(p);
                world.write(p as usize);
                prop_assert!(!reports || world.acknowledged(p) > written, "partition {} takes no writes", p);
            }
        }
    }

    #[test]
    fn the_last_copy_is_never_given_up(shape in shapes(24), events in interruptions()) {
        // After each decision `World::decide` looks for it, among the leaves that live too.
        let mut world = World::new(&shape)?;
        for event in events {
            world.happen(event)?;
        }
        world.rest()?;
    }

    #[test]
    fn nothing_moves_unasked(shape in shapes(24), events in proptest::collection::vec(troubles(), 0..60)) {
        let mut world = World::new(&shape)?;
        let before = all_copies(&world);
        for event in events {
            world.happen(event)?;
            prop_assert_eq!(&all_copies(&world), &before);
        }
        world.rest()?;
        prop_assert_eq!(all_copies(&world), before);
    }

    #[test]
    fn what_was_interrupted_ends_even(shape in shapes(24), events in interruptions(), lost in some_leaves(), order in any_order()) {
        let mut world = World::new(&shape)?;
        for event in events {
            world.happen(event)?;
        }
        world.up = world.catalog.leaves.keys().copied().collect();
        // Whoever lost what he had gets it again, unless a leaf that is detached has it.
        world.rest()?;
        prop_assume!(world.are_roles_whole());
        lose(&mut world, &lost, &order)?;
        world.rest()?;
        let possible = world.steps(Job::Rebalance).is_some();
        let before = world.copies();
        world.run(Job::Rebalance)?;
        let of = led(&world);
        if possible {
            check_even(&world, &of)?;
        }
        for (p, (before, after)) in before.iter().zip(world.copies()).enumerate() {
            prop_assert!(possible && of.contains(&p) || *before == after, "partition {}: {:?} became {:?}", p, before, after);
        }
    }

    #[test]
    fn a_rebalance_makes_the_fewest_copies(
        shape in shapes(24), lost in some_leaves(), order in any_order(), back in some_leaves(),
    ) {
        let mut world = battered(&shape, &lost, &order, &back)?;
        let Some(steps) = world.steps(Job::Rebalance) else { return Ok(()) };
        let (bound, exact) = fewest(&world);
        world.run(Job::Rebalance)?;
        prop_assert!(world.made >= bound, "{} copies cannot be enough, {bound} are needed", world.made);
        prop_assert!(!exact || world.made == bound, "{} copies, and {bound} are enough: {steps:?}", world.made);
        let (version, made) = (world.catalog.version, world.made);
        prop_assert_eq!(world.steps(Job::Rebalance), Some(vec![]));
        world.rest()?;
        prop_assert_eq!((world.catalog.version, world.made), (version, made));
    }

    #[test]
    fn of_few_partitions_too(shape in shapes(4), lost in some_leaves(), order in any_order(), back in some_leaves()) {
        let groups = shape.groups.iter().copied().take(5).collect();
        let shape = Shape { first: shape.first.min(5), groups, kind: PlacementKind::LoadBalanced, ..shape };
        prop_assume!(shape.redundancy == 1 || shape.groups[..shape.first].iter().any(|group| *group != shape.groups[0]));
        let mut world = battered(&shape, &lost, &order, &back)?;
        if shape.redundancy == 2 && world.steps(Job::Rebalance).is_some() {
            let bound = fewest_of_all(&world);
            world.run(Job::Rebalance)?;
            prop_assert_eq!(world.made, bound);
        }
    }

    #[test]
    fn restoring_redundancy_moves_nothing(
        shape in shapes(24), lost in some_leaves(), order in any_order(), back in some_leaves(),
    ) {
        let mut world = battered(&shape, &lost, &order, &back)?;
        let (copies, led_by) = (all_copies(&world), masters(&world));
        let possible = world.steps(Job::RestoreRedundancy).is_some();
        let alone: Vec<usize> =
            led(&world).into_iter().filter(|p| shape.redundancy == 2 && world.copies()[*p].replicas.is_empty()).collect();
        world.run(Job::RestoreRedundancy)?;
        prop_assert_eq!(masters(&world), led_by);
        for (p, (before, after)) in copies.iter().zip(all_copies(&world)).enumerate() {
            prop_assert!(before.is_subset(&after), "partition {}", p);
        }
        prop_assert_eq!(world.made, if possible { alone.len() } else { 0 });
        for p in alone.iter().filter(|_| possible) {
            prop_assert_eq!(world.copies()[*p].replicas.len(), 1);
        }
    }

    #[test]
    fn a_drained_leaf_ends_empty(
        shape in shapes(24), lost in some_leaves(), order in any_order(), drained in 0..8usize, events in interruptions(),
    ) {
        let mut world = World::new(&shape)?;
        lose(&mut world, &lost, &order)?;
        let online: Vec<NodeId> = world.catalog.leaves.keys().copied().filter(|leaf| world.is_online(*leaf)).collect();
        prop_assume!(!online.is_empty());
        let leaf = online[drained % online.len()];
        world.happen(Event::Ask(Job::Drain(leaf)))?;
        for event in events {
            world.happen(event)?;
        }
        world.judge(order.iter().copied())?;
        world.rest()?;
        prop_assume!(world.are_roles_whole());
        let possible = world.steps(Job::Drain(leaf)).is_some();
        world.run(Job::Drain(leaf))?;
        let left: BTreeMap<usize, Copies> =
            world.copies().into_iter().enumerate().filter(|(_, copies)| copies.all().any(|copy| copy == leaf)).collect();
        for p in led(&world) {
            prop_assert!(!possible || !left.contains_key(&p), "partition {p}: {:?}", left.get(&p));
        }
        let removed = world.catalog.apply(&Command::RemoveLeaf { address: address(leaf), force: false });
        prop_assert_eq!(removed.is_ok(), left.is_empty());
    }
}

#[test]
fn a_detached_leaf_hands_over_once_another_has_everything() {
    let shape = Shape { groups: vec![1, 2], first: 2, partitions: 1, redundancy: 2, kind: PlacementKind::Paired };
    let mut world = World::new(&shape).unwrap();
    // Leaf 2 was away, and leaf 1 is detached before it has told that leaf 2 has caught up.
    for event in [Event::TakeOut(1), Event::Report(0), Event::Report(1), Event::Detach(0)] {
        world.happen(event).unwrap();
    }
    assert_eq!(masters(&world), [Some(NodeId(1))]);
    world.rest().unwrap();
    assert_eq!(world.copies(), [Copies { master: Some(NodeId(2)), replicas: vec![], spares: vec![NodeId(1)] }]);
}
