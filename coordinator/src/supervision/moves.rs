//! The next moves of a job: from the copies that there are, and what masters say of them, to changes of the catalog.
//!
//! A job is planned anew each time ([`placement::rebalance`]), so that it does not matter who began it or what happened meanwhile. Of
//! each partition only the first step that is not done yet is made. No copy gets a role that is not known to have everything.

use std::collections::BTreeMap;

use crate::catalog::{Catalog, Database, Job, LeafState, NodeId, PartitionChange};
use crate::placement::{self, Action, Copies, Others, PlacementError, Step};

/// Copies that are made at the same time, for each leaf that gets them.
const AT_ONCE: usize = 2;

/// How a step of a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It waits for others.
    Scheduled,
    /// It is being done.
    Running,
    /// It is done, and waits for those after it.
    Done,
}

/// What is done next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Nothing is left to do.
    pub finished: bool,
    /// Changes of the catalog.
    pub changes: Vec<PartitionChange>,
    /// Copies whose files go once the catalog does not have them: partition and leaf.
    pub dropped: Vec<(u32, NodeId)>,
}

/// The steps that are left of a job.
///
/// # Errors
/// If there is nothing to place copies on.
pub fn steps(catalog: &Catalog, database: &Database, job: Job) -> Result<Vec<Step>, PlacementError> {
    let drained = if let Job::Drain(leaf) = job { Some(leaf) } else { None };
    let online = catalog.leaves.iter().filter(|(_, leaf)| leaf.state == LeafState::Online);
    let leaf = |(id, leaf): (&NodeId, &crate::catalog::Leaf)| placement::Leaf {
        id: *id,
        group: leaf.group,
        pair: leaf.pair,
        draining: drained == Some(*id),
    };
    let leaves: Vec<placement::Leaf> = online.map(leaf).collect();
    let current: Vec<Copies> = database.partitions.iter().map(|p| without_lost(catalog, p.copies.clone())).collect();
    match job {
        Job::RestoreRedundancy => placement::restore_redundancy(&current, database.redundancy, &leaves),
        Job::Rebalance | Job::Drain(_) => placement::rebalance(&current, database.redundancy, database.placement, &leaves),
        Job::RebalanceFull => {
            let others = catalog.databases.values().filter(|other| other.name != database.name);
            let others = Others::of(others.flat_map(|other| &other.partitions).map(|partition| &partition.copies));
            placement::rebalance_beside(&current, database.redundancy, database.placement, &leaves, &others)
        }
    }
}

/// Copies of which those count that are there: the others have their roles until a master goes on without them.
fn without_lost(catalog: &Catalog, mut copies: Copies) -> Copies {
    let lost = |copy: &mut NodeId| catalog.leaves.get(copy).is_none_or(|leaf| leaf.state != LeafState::Online);
    copies.spares.extend(copies.replicas.extract_if(.., lost));
    copies
}

/// How each step stands; `in_sync` says whether a copy has everything that its master acknowledged.
pub(crate) fn progress(database: &Database, steps: &[Step], in_sync: &dyn Fn(u32, NodeId) -> bool) -> Vec<Progress> {
    let mut blocked: BTreeMap<u32, ()> = BTreeMap::new();
    let one = |step: &Step| {
        if blocked.contains_key(&step.partition) {
            return Progress::Scheduled;
        }
        let spares = database.partitions.get(step.partition as usize).map(|p| &p.copies.spares);
        let there = spares.is_some_and(|spares| spares.contains(&step.target));
        let progress = match step.action {
            Action::Copy if there && in_sync(step.partition, step.target) => Progress::Done,
            Action::Copy if there => Progress::Running,
            _ => Progress::Scheduled,
        };
        if progress != Progress::Done {
            blocked.insert(step.partition, ());
        }
        progress
    };
    steps.iter().map(one).collect()
}

/// What is done next for the steps that are left.
#[must_use]
pub fn moves(catalog: &Catalog, name: &str, steps: &[Step], in_sync: &dyn Fn(u32, NodeId) -> bool) -> Moves {
    let Some(database) = catalog.databases.get(name) else { return Moves::default() };
    let mut moves = Moves { finished: steps.is_empty(), ..Moves::default() };
    let progress = progress(database, steps, in_sync);
    let mut copying: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (step, _) in steps.iter().zip(&progress).filter(|(_, progress)| **progress == Progress::Running) {
        *copying.entry(step.target).or_default() += 1;
    }
    let mut touched: Vec<u32> = Vec::new();
    for (step, progress) in steps.iter().zip(&progress) {
        if *progress == Progress::Done || touched.contains(&step.partition) {
            continue;
        }
        // Whatever comes of this step, those after it wait.
        touched.push(step.partition);
        let Some(partition) = database.partitions.get(step.partition as usize) else { continue };
        let now = &partition.copies;
        // Who is lost counts until the master goes on without him.
        if *progress == Progress::Running || without_lost(catalog, now.clone()) != *now {
            continue;
        }
        let copies = match step.action {
            Action::Copy => {
                let copies = copying.entry(step.target).or_default();
                if *copies >= AT_ONCE {
                    continue;
                }
                *copies += 1;
                let mut copies = now.clone();
                copies.spares.push(step.target);
                copies
            }
            Action::Promote | Action::PromoteWithDrop | Action::Drop => {
                let ready = |copy: NodeId| now.roles().any(|role| role == copy) || in_sync(step.partition, copy);
                if !step.after.roles().all(ready) {
                    continue;
                }
                step.after.clone()
            }
        };
        let gone = now.all().filter(|copy| !copies.all().any(|kept| kept == *copy));
        moves.dropped.extend(gone.map(|copy| (step.partition, copy)));
        let (database, term) = (name.to_owned(), partition.term);
        moves.changes.push(PartitionChange { database, partition: step.partition, term, copies });
    }
    moves
}
