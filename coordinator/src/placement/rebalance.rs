//! The steps that lead from the copies that there are to the copies that there should be.

use std::fmt;

use super::target::{Goal, goals};
use super::{Copies, Leaf, Others, PlacementError, PlacementKind};
use crate::catalog::NodeId;

/// What a step does. `Display` gives the name that EXPLAIN REBALANCE PARTITIONS shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The target gets a copy, or its copy is brought up to date, from the master.
    Copy,
    /// The target becomes the master and the old master a replica, until a later step drops it.
    Promote,
    /// The target becomes the master and the old master's copy is dropped.
    PromoteWithDrop,
    /// The target's copy is dropped; one that waits takes its role.
    Drop,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Copy => "COPY PARTITION",
            Action::Promote => "PROMOTE PARTITION",
            Action::PromoteWithDrop => "PROMOTE PARTITION WITH DROP",
            Action::Drop => "DROP PARTITION",
        })
    }
}

/// One step of a rebalance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Steps of one phase may run at the same time; phases run in order, from 1.
    pub phase: u32,
    /// What is done.
    pub action: Action,
    /// The partition's ordinal.
    pub partition: u32,
    /// On which leaf.
    pub target: NodeId,
    /// The partition's copies once the step is done.
    pub after: Copies,
}

/// Plans how a database's partitions get back their redundancy and an even load. Run again on the outcome, it has nothing to do.
///
/// `leaves` are those that answer: copies on other leaves count as lost and are forgotten once they are replaced. Partitions without a
/// live master or replica are left as they are.
///
/// # Errors
/// If there is nothing to place on, as for [`super::place`].
pub fn rebalance(current: &[Copies], redundancy: u8, kind: PlacementKind, leaves: &[Leaf]) -> Result<Vec<Step>, PlacementError> {
    rebalance_beside(current, redundancy, kind, leaves, &Others::default())
}

/// Plans as [`rebalance`] does. Of the ways in which the copies, and then the masters, are as even as they can be, it takes one in which
/// they are most even together with those of the other databases, and moves copies for that.
///
/// # Errors
/// As [`rebalance`].
pub fn rebalance_beside(
    current: &[Copies],
    redundancy: u8,
    kind: PlacementKind,
    leaves: &[Leaf],
    others: &Others,
) -> Result<Vec<Step>, PlacementError> {
    let mut steps = Vec::new();
    for goal in goals(current, redundancy, kind, leaves, others)? {
        if let Some(copies) = current.get(goal.partition as usize) {
            Planner { goal, redundancy, leaves, now: copies.clone(), steps: &mut steps }.plan();
        }
    }
    steps.sort_by_key(|step| (step.phase, step.partition));
    // Phases that have no step are not counted.
    let mut used: Vec<u32> = steps.iter().map(|step| step.phase).collect();
    used.dedup();
    for step in &mut steps {
        step.phase =
            (0u32..).zip(&used).find_map(|(index, phase)| (*phase == step.phase).then_some(index + 1)).unwrap_or(step.phase);
    }
    Ok(steps)
}

/// A dead master's replica takes over.
const FAIL_OVER: u32 = 1;
const COPY: u32 = 2;
const PROMOTE: u32 = 3;
const DROP: u32 = 4;

/// Plans the steps of one partition.
struct Planner<'a> {
    goal: Goal,
    redundancy: u8,
    leaves: &'a [Leaf],
    /// The copies after the steps so far.
    now: Copies,
    steps: &'a mut Vec<Step>,
}

impl Planner<'_> {
    fn plan(mut self) {
        self.fail_over();
        let wanted: Vec<NodeId> = [Some(self.goal.master), self.goal.replica].into_iter().flatten().collect();
        for leaf in &wanted {
            self.copy(*leaf);
        }
        if self.now.master != Some(self.goal.master) {
            let kept = self.now.master.is_some_and(|master| wanted.contains(&master));
            let old = self.now.master.filter(|_| !kept);
            let mut after = self.settled();
            after.spares.retain(|copy| Some(*copy) != old);
            let action = if old.is_some() { Action::PromoteWithDrop } else { Action::Promote };
            self.step(PROMOTE, action, self.goal.master, after);
        }
        let surplus: Vec<NodeId> = self.now.all().filter(|copy| !wanted.contains(copy)).collect();
        for leaf in surplus {
            let mut after = self.settled();
            after.spares.retain(|copy| *copy != leaf);
            self.step(DROP, Action::Drop, leaf, after);
        }
        debug_assert_eq!(self.now, self.settled());
    }

    /// The roles of the goal; every other copy is a spare.
    fn settled(&self) -> Copies {
        let roles = Copies { master: Some(self.goal.master), replicas: self.goal.replica.into_iter().collect(), spares: vec![] };
        let spares = self.now.all().filter(|copy| !roles.roles().any(|role| role == *copy)).collect();
        Copies { spares, ..roles }
    }

    fn leaf(&self, id: NodeId) -> Option<&Leaf> {
        self.leaves.iter().find(|leaf| leaf.id == id)
    }

    fn fail_over(&mut self) {
        if self.now.master.is_some_and(|master| self.leaf(master).is_some()) {
            return;
        }
        let mut live: Vec<NodeId> = self.now.replicas.iter().copied().filter(|copy| self.leaf(*copy).is_some()).collect();
        // The one that is to be the master at the end, or else one that stays.
        live.sort_by_key(|copy| (*copy != self.goal.master, Some(*copy) != self.goal.replica, *copy));
        let Some(master) = live.first().copied() else { return };
        let spares = self.now.all().filter(|copy| !live.contains(copy)).collect();
        let after = Copies { master: Some(master), replicas: live[1..].to_vec(), spares };
        self.step(FAIL_OVER, Action::Promote, master, after);
    }

    fn copy(&mut self, target: NodeId) {
        if self.now.roles().any(|copy| copy == target) {
            return;
        }
        let mut after = self.now.clone();
        after.spares.retain(|copy| *copy != target);
        let group = |id: NodeId| self.leaf(id).map(|leaf| leaf.group);
        let free = self.redundancy == 2 && !self.now.roles().any(|copy| group(copy) == group(target));
        if free {
            // The only live copy of its group: it is a replica at once, and those that are gone have no role any more.
            let (live, dead): (Vec<_>, Vec<_>) = after.replicas.iter().copied().partition(|copy| self.leaf(*copy).is_some());
            after.replicas = live;
            after.replicas.push(target);
            after.spares.extend(dead);
        } else {
            after.spares.push(target);
        }
        self.step(COPY, Action::Copy, target, after);
    }

    fn step(&mut self, phase: u32, action: Action, target: NodeId, after: Copies) {
        self.now = after.clone();
        self.steps.push(Step { phase, action, partition: self.goal.partition, target, after });
    }
}
