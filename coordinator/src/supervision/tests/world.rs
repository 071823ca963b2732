//! A cluster in small: the catalog, and as much of the leaves as their reports tell. A report is dealt with at once and a copy is fed
//! between two reports; what networks and disks do beside that is for `cli/tests/simulation/`.

use std::collections::{BTreeMap, BTreeSet};
use std::result::Result;

use proptest::prelude::*;
use stoa_rpc::replication::{CopyOrder, CopyReport, FedReport, Position, RoleOrder};

use super::super::*;
use crate::catalog::{Database, Job, Leaf, Partition};
use crate::placement::{Copies, PlacementKind};

pub(super) type Checked = Result<(), TestCaseError>;

/// Rounds of reports within which everything comes to rest.
const ROUNDS: usize = 400;
const NAME: &str = "d";

/// A cluster to begin with. Leaves are numbered from 1, in the order in which they joined.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// The group of each leaf.
    pub groups: Vec<u8>,
    /// So many leaves are there when the database is made.
    pub first: usize,
    pub partitions: u32,
    pub redundancy: u8,
    pub kind: PlacementKind,
}

/// What happens. Numbers of leaves and partitions are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Crash(usize),
    Start(usize),
    /// A leaf loses its disk, and begins anew before anybody misses it.
    Wipe(usize),
    /// A leaf is taken for gone, rightly or not.
    TakeOut(usize),
    Detach(usize),
    Attach(usize),
    Write(usize),
    Report(usize),
    /// The master's log fails.
    LogFails(usize),
    NewLeader,
    Ask(Job),
    Cancel,
}

pub(super) struct World {
    pub catalog: Catalog,
    /// Leaves whose process runs.
    pub up: BTreeSet<NodeId>,
    /// Copies that were made where there was none.
    pub made: usize,
    /// Writes that each copy has, by partition and leaf.
    disks: BTreeMap<(u32, NodeId), u64>,
    /// Writes that were acknowledged, by partition.
    written: Vec<u64>,
    /// How the copies stand that each master feeds. Without those in sync it acknowledges nothing.
    fed: Vec<BTreeMap<NodeId, FedState>>,
    failing: BTreeSet<u32>,
    /// Copies that have nothing and may still count in the catalog.
    wiped: BTreeSet<(u32, NodeId)>,
    /// What the leader has heard.
    reports: BTreeMap<NodeId, Report>,
}

pub(super) fn address(id: NodeId) -> String {
    format!("leaf:{}", id.0)
}

impl World {
    /// A cluster at rest, whose later leaves have nothing yet.
    pub(super) fn new(shape: &Shape) -> Result<World, TestCaseError> {
        let mut catalog = Catalog::default();
        let mut ids = (1..).map(NodeId);
        let mut join = |catalog: &mut Catalog, groups: &[u8]| {
            for (group, id) in groups.iter().zip(&mut ids) {
                catalog.apply(&Command::AddLeaf { address: address(id), group: Some(*group) }).unwrap();
            }
        };
        let (early, late) = shape.groups.split_at(shape.first);
        join(&mut catalog, early);
        let Shape { partitions, redundancy, kind: placement, .. } = *shape;
        catalog
            .apply(&Command::CreateDatabase { name: NAME.into(), partitions, redundancy, placement, asynchronous: false })
            .unwrap();
        let masters = (0u32..).zip(&catalog.databases[NAME].partitions).map(|(p, found)| ((p, found.copies.master.unwrap()), 1));
        let mut world = World {
            up: catalog.leaves.keys().copied().collect(),
            made: 0,
            disks: masters.collect(),
            written: vec![1; partitions as usize],
            fed: vec![BTreeMap::new(); partitions as usize],
            failing: BTreeSet::new(),
            wiped: BTreeSet::new(),
            reports: BTreeMap::new(),
            catalog,
        };
        world.rest()?;
        join(&mut world.catalog, late);
        world.up = world.catalog.leaves.keys().copied().collect();
        Ok(world)
    }

    pub(super) fn database(&self) -> &Database {
        &self.catalog.databases[NAME]
    }

    pub(super) fn copies(&self) -> Vec<Copies> {
        self.database().partitions.iter().map(|p| p.copies.clone()).collect()
    }

    pub(super) fn is_online(&self, leaf: NodeId) -> bool {
        self.catalog.leaves.get(&leaf).is_some_and(|leaf| leaf.state == LeafState::Online)
    }

    pub(super) fn steps(&self, job: Job) -> Option<Vec<crate::placement::Step>> {
        steps(&self.catalog, self.database(), job).ok()
    }

    /// Whether a copy has every acknowledged write.
    pub(super) fn has_everything(&self, partition: u32, leaf: NodeId) -> bool {
        self.disks.get(&(partition, leaf)) == Some(&self.written[partition as usize])
    }

    /// Whether no copy that counts has lost what it had. One that has stays so as long as who has everything is away.
    pub(super) fn are_roles_whole(&self) -> bool {
        let whole = |(partition, copies): (u32, Copies)| !copies.roles().any(|copy| self.wiped.contains(&(partition, copy)));
        (0..).zip(self.copies()).all(whole)
    }

    fn leaf(&self, number: usize) -> NodeId {
        *self.catalog.leaves.keys().nth(number % self.catalog.leaves.len()).unwrap()
    }

    pub(super) fn happen(&mut self, event: Event) -> Checked {
        let partition = |number: usize| number % self.written.len();
        match event {
            Event::Crash(leaf) => drop(self.up.remove(&self.leaf(leaf))),
            Event::Start(leaf) => drop(self.up.insert(self.leaf(leaf))),
            Event::Wipe(leaf) => self.wipe(self.leaf(leaf)),
            Event::TakeOut(leaf) => self.take_out(self.leaf(leaf), LeafState::Offline)?,
            Event::Detach(leaf) => self.take_out(self.leaf(leaf), LeafState::Detached)?,
            Event::Attach(leaf) => {
                let (id, detached) = (self.leaf(leaf), LeafState::Detached);
                if self.up.contains(&id) && self.catalog.leaves[&id].state == detached {
                    if self.catalog.leaves[&id].behind {
                        return self.give_reference(&address(id));
                    }
                    self.decide(&Command::SetLeafState { address: address(id), state: LeafState::Online })?;
                }
            }
            Event::Write(number) => self.write(partition(number)),
            Event::Report(leaf) => self.report(self.leaf(leaf))?,
            Event::LogFails(number) => drop(self.failing.insert(partition(number) as u32)),
            Event::NewLeader => self.reports.clear(),
            // It may be refused: another runs.
            Event::Ask(job) => drop(self.catalog.apply(&Command::SetJob { database: NAME.into(), job: Some(job) })),
            Event::Cancel => self.decide(&Command::SetJob { database: NAME.into(), job: None })?,
        }
        self.finish()
    }

    /// Not where nobody else who lives has everything: that cannot be helped.
    fn wipe(&mut self, leaf: NodeId) {
        let needed = |(partition, found): (u32, &Partition)| {
            let whole = |copy: &NodeId| *copy != leaf && self.up.contains(copy) && self.has_everything(partition, *copy);
            self.has_everything(partition, leaf) && !found.copies.roles().any(|copy| whole(&copy))
        };
        if !self.up.contains(&leaf) || (0..).zip(&self.database().partitions).any(needed) {
            return;
        }
        let lost: Vec<(u32, NodeId)> = self.disks.keys().copied().filter(|(_, id)| *id == leaf).collect();
        for (partition, leaf) in lost {
            self.disks.remove(&(partition, leaf));
            self.fed[partition as usize].remove(&leaf);
            self.wiped.insert((partition, leaf));
        }
    }

    fn give_reference(&mut self, leaf: &str) -> Checked {
        self.decide(&Command::Receive { address: leaf.to_owned() })?;
        self.decide(&Command::SetLeafState { address: leaf.to_owned(), state: LeafState::Online })
    }

    fn take_out(&mut self, leaf: NodeId, state: LeafState) -> Checked {
        if self.is_online(leaf) { self.decide(&Command::TakeOut { address: address(leaf), state }) } else { Ok(()) }
    }

    /// Every leaf whose process has ended is taken out, in this order.
    pub(super) fn judge(&mut self, order: impl Iterator<Item = NodeId>) -> Checked {
        let gone: Vec<NodeId> = order.filter(|leaf| !self.up.contains(leaf)).collect();
        gone.into_iter().try_for_each(|leaf| self.take_out(leaf, LeafState::Offline))
    }

    /// A client writes. It is acknowledged if every copy that counts has it.
    pub(super) fn write(&mut self, partition: usize) {
        let copies = &self.database().partitions[partition].copies;
        let Some(master) = copies.master.filter(|master| self.is_online(*master)) else { return };
        let in_sync = self.fed[partition].iter().filter(|(_, state)| **state == FedState::InSync);
        let mut counts: BTreeSet<NodeId> = in_sync.map(|(leaf, _)| *leaf).collect();
        counts.extend(copies.replicas.iter().copied().chain([master]));
        if counts.is_subset(&self.up) && !counts.iter().any(|leaf| self.wiped.contains(&(partition as u32, *leaf))) {
            self.written[partition] += 1;
            for leaf in counts {
                self.disks.insert((partition as u32, leaf), self.written[partition]);
            }
        }
    }

    /// How many writes of a partition were acknowledged.
    pub(super) fn acknowledged(&self, partition: u32) -> u64 {
        self.written[partition as usize]
    }

    /// A leaf reports, and what follows is done, as the supervisor does it.
    pub(super) fn report(&mut self, leaf: NodeId) -> Checked {
        if !self.up.contains(&leaf) {
            return Ok(());
        }
        let Leaf { state, behind, .. } = self.catalog.leaves[&leaf];
        if state == LeafState::Offline {
            if behind {
                let others = self.catalog.leaves.values().any(|leaf| leaf.state == LeafState::Online);
                return if others { self.give_reference(&address(leaf)) } else { Ok(()) };
            }
            return self.decide(&Command::SetLeafState { address: address(leaf), state: LeafState::Online });
        }
        let ordered = orders(&self.catalog, leaf);
        let copies = ordered.into_iter().map(|order| self.copy_report(leaf, order)).collect();
        let report = Report { incarnation: 1, sequence: 1, version: self.catalog.version, copies, ..Report::default() };
        self.reports.insert(leaf, report.clone());
        for command in commands(&self.catalog, leaf, &report) {
            self.decide(&command)?;
        }
        let Some(job) = self.database().job else { return Ok(()) };
        let Some(steps) = self.steps(job) else { return Ok(()) };
        let ready = |partition: u32, copy: NodeId| in_sync(&self.catalog, &self.reports, NAME, partition, copy);
        let mut next = moves(&self.catalog, NAME, &steps, &ready);
        let copies = self.copies();
        next.changes.retain(|change| copies[change.partition as usize].master == Some(leaf));
        if next.changes.is_empty() { Ok(()) } else { self.decide(&Command::SetPartitions(next.changes)) }
    }

    fn copy_report(&mut self, leaf: NodeId, order: CopyOrder) -> CopyReport {
        let (mut fed, mut role, mut failure) = (vec![], CopyRole::Replica, String::new());
        if matches!(order.role, RoleOrder::Master { .. }) && self.wiped.contains(&(order.ordinal, leaf)) {
            (role, failure) = (CopyRole::Master, "its data is gone".into());
        } else if let RoleOrder::Master { in_sync, feed } = order.role {
            role = CopyRole::Master;
            let replicas = in_sync.len();
            let named: BTreeSet<NodeId> = in_sync.iter().chain(&feed).filter_map(|at| Some(self.catalog.leaf(at)?.0)).collect();
            self.fed[order.ordinal as usize].retain(|leaf, _| named.contains(leaf));
            for (index, address) in in_sync.into_iter().chain(feed).enumerate() {
                let state = self.feed(order.ordinal, &address, index < replicas);
                fed.push(FedReport { address, state, lsn: 0, failure: String::new(), copied: (0, 0) });
            }
            if self.failing.remove(&order.ordinal) {
                failure = "no space".into();
            }
        }
        let CopyOrder { database, ordinal, term, .. } = order;
        let lsn = self.disks.get(&(ordinal, leaf)).copied().unwrap_or(0);
        let position = Position { lsn, term, checksum: 0 };
        CopyReport { database, ordinal, term, role, position, failure, fed, bytes: 0 }
    }

    /// A master feeds a copy: how that stands.
    fn feed(&mut self, partition: u32, address: &str, replica: bool) -> FedState {
        let (leaf, _) = self.catalog.leaf(address).unwrap();
        let fed = &mut self.fed[partition as usize];
        let state = match fed.get(&leaf) {
            _ if !self.up.contains(&leaf) => FedState::Failed,
            _ if replica && self.wiped.contains(&(partition, leaf)) => FedState::Failed,
            _ if replica => FedState::InSync,
            Some(FedState::InSync | FedState::Following) => FedState::InSync,
            _ => FedState::Following,
        };
        if fed.insert(leaf, state) == Some(FedState::Following) && state == FedState::InSync {
            self.disks.insert((partition, leaf), self.written[partition as usize]);
            self.wiped.remove(&(partition, leaf));
        }
        state
    }

    /// A job that has nothing left to do is done.
    fn finish(&mut self) -> Checked {
        match self.database().job {
            Some(job) if self.steps(job).is_none_or(|steps| steps.is_empty()) => self.happen(Event::Cancel),
            _ => Ok(()),
        }
    }

    /// Leaves report until nothing changes any more.
    pub(super) fn rest(&mut self) -> Checked {
        for _ in 0..ROUNDS {
            let before = (self.catalog.version, self.fed.clone());
            for leaf in self.up.clone() {
                self.report(leaf)?;
            }
            self.finish()?;
            if before == (self.catalog.version, self.fed.clone()) {
                return self.check_rest();
            }
        }
        Err(TestCaseError::fail(format!("this does not come to rest: {:?}", self.database().partitions)))
    }

    /// What is true once everybody has been heard.
    fn check_rest(&self) -> Checked {
        for (partition, copies) in (0u32..).zip(self.copies()) {
            let online = copies.master.is_some_and(|master| self.is_online(master));
            let heard = |copy: &NodeId| self.up.contains(copy) && self.is_online(*copy);
            let able = |copy: &NodeId| heard(copy) && !self.wiped.contains(&(partition, *copy));
            prop_assert!(online || !copies.replicas.iter().any(able), "a replica waits while no master is there: {copies:?}");
            let whole = |copy: &NodeId| heard(copy) && self.has_everything(partition, *copy);
            let lost = copies.master.is_some_and(|master| heard(&master) && self.wiped.contains(&(partition, master)));
            prop_assert!(!lost || !copies.replicas.iter().any(whole), "a copy without anything leads others: {copies:?}");
            let led = !lost && copies.master.as_ref().is_some_and(heard);
            let waited_for = |copy: &NodeId| led && !self.is_online(*copy);
            prop_assert!(!copies.replicas.iter().any(waited_for), "a replica that is lost is waited for: {copies:?}");
        }
        Ok(())
    }

    /// Does a job to its end.
    pub(super) fn run(&mut self, job: Job) -> Checked {
        self.happen(Event::Cancel)?;
        self.happen(Event::Ask(job))?;
        self.rest()?;
        prop_assert_eq!(self.database().job, None, "left: {:?}", self.steps(job));
        Ok(())
    }

    /// What was decided is done, and must keep what is always true.
    pub(super) fn decide(&mut self, command: &Command) -> Checked {
        let before = self.catalog.clone();
        let applied = self.catalog.apply(command);
        prop_assert!(applied.is_ok(), "{:?}: {:?}", command, applied);
        let after = self.database().partitions.clone();
        for (partition, (before, after)) in (0u32..).zip(before.databases[NAME].partitions.iter().zip(&after)) {
            let checked = self.check(partition, before, after);
            checked.map_err(|e| TestCaseError::fail(format!("{command:?}: {before:?} became {after:?}: {e}")))?;
            let (old, new): (BTreeSet<NodeId>, BTreeSet<NodeId>) = (before.copies.all().collect(), after.copies.all().collect());
            self.made += new.difference(&old).count();
            for gone in old.difference(&new) {
                self.disks.remove(&(partition, *gone));
                self.wiped.remove(&(partition, *gone));
                self.fed[partition as usize].remove(gone);
            }
            if after.term != before.term {
                self.fed[partition as usize].clear();
            }
        }
        Ok(())
    }

    fn check(&self, partition: u32, before: &Partition, after: &Partition) -> Checked {
        let has_everything = |copy: &NodeId| self.has_everything(partition, *copy);
        let whole = |p: &Partition| p.copies.all().filter(has_everything).collect::<BTreeSet<NodeId>>();
        let (had, has) = (whole(before), whole(after));
        prop_assert!(had.is_empty() || !has.is_empty(), "the last copy that has everything is gone");
        prop_assert!(had.is_disjoint(&self.up) || !has.is_disjoint(&self.up), "the last of them that lives is gone");
        let wiped = |copy: NodeId| self.wiped.contains(&(partition, copy));
        prop_assert!(after.copies.roles().all(|copy| has_everything(&copy) || wiped(copy)), "a copy with a role lacks writes");
        prop_assert!(after.copies.master.is_some(), "there is no master");
        let changed = after.copies.master != before.copies.master;
        prop_assert!(after.term >= before.term + u64::from(changed), "a master without a term of its own");
        Ok(())
    }
}
