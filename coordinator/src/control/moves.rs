//! Copies are moved because an operator says so: REBALANCE PARTITIONS, RESTORE REDUNDANCY, REMOVE LEAF, ATTACH and DETACH LEAF, CLEAR
//! ORPHAN DATABASES.
//!
//! What is wanted is in the catalog until it is done; the coordinator that leads does it step by step ([`crate::supervision`]). The
//! statement waits for that. If its client goes, or the leader, the work goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use stoa_exec::CancelToken;
use stoa_rpc::leaf::LeafService;
use stoa_rpc::replication::{Orders, Report};
use stoa_sql::MoveKind;

use super::steps::check_room;
use super::{Control, invalid};
use crate::catalog::{Command, Job, Leaf, LeafState, NodeId};
use crate::cluster::Shared;
use crate::session::text_table;
use crate::supervision::steps;
use crate::{Error, Outcome, Result};

/// How often a statement looks whether the work is done.
const LOOK: Duration = Duration::from_millis(50);
/// How long a leaf that was detached may take to be online again.
const ATTACH: Duration = Duration::from_secs(30);

/// Takes a step by which a leaf joins, again as long as it may yet succeed.
pub(super) fn persist(step: impl Fn() -> Result<()>) -> Result<()> {
    let until = Instant::now() + ATTACH;
    loop {
        match step() {
            Err(error) if error.is_retryable() && Instant::now() < until => std::thread::sleep(LOOK),
            done => return done,
        }
    }
}

pub(super) fn is_online(leaf: &Leaf) -> bool {
    leaf.state == LeafState::Online
}

pub(super) fn job(kind: MoveKind) -> Job {
    match kind {
        MoveKind::Rebalance => Job::Rebalance,
        MoveKind::RebalanceFull => Job::RebalanceFull,
        MoveKind::RestoreRedundancy => Job::RestoreRedundancy,
    }
}

impl Control {
    /// REBALANCE PARTITIONS, RESTORE REDUNDANCY: asks for it and waits until it is done.
    pub(super) fn move_copies(&self, kind: MoveKind, database: Option<&str>, cancel: &CancelToken) -> Result<String> {
        let names = self.databases_named(database)?;
        let mut steps = vec![0; names.len()];
        // What one database has decides where others are to be: what is moved for them all makes all more even.
        for _ in 0..=names.len() {
            let before = steps.clone();
            for (steps, name) in steps.iter_mut().zip(&names) {
                *steps += self.run_job(name, job(kind), cancel)?;
            }
            if kind != MoveKind::RebalanceFull || steps == before {
                break;
            }
        }
        let done: Vec<String> = names.iter().zip(steps).map(|(name, steps)| format!("{name}: {steps} steps")).collect();
        let what = if kind == MoveKind::RestoreRedundancy { "redundancy restored:" } else { "rebalanced" };
        Ok(if done.is_empty() { "there is no database".to_owned() } else { format!("{what} {}", done.join(", ")) })
    }

    pub(super) fn databases_named(&self, database: Option<&str>) -> Result<Vec<String>> {
        let catalog = self.catalog();
        match database {
            Some(name) => catalog.database(name).map(|database| vec![database.name.clone()]).map_err(invalid),
            None => Ok(catalog.databases.values().map(|database| database.name.clone()).collect()),
        }
    }

    /// Has a job done for a database, and waits for it; how many steps it had.
    fn run_job(&self, name: &str, job: Job, cancel: &CancelToken) -> Result<usize> {
        let catalog = self.catalog();
        let planned = steps(&catalog, catalog.database(name).map_err(invalid)?, job).map_err(invalid)?;
        if planned.is_empty() {
            return Ok(0);
        }
        check_room(&catalog, &self.ask_reports(is_online), catalog.database(name).map_err(invalid)?, &planned)?;
        let cancels = self.cancels.load(Ordering::Relaxed);
        self.decide(&Command::SetJob { database: name.to_owned(), job: Some(job) })?;
        loop {
            let catalog = self.catalog();
            let database = catalog.database(name).map_err(invalid)?;
            if database.job.is_none() {
                let left = steps(&catalog, database, job).map_err(invalid)?;
                if left.is_empty() {
                    return Ok(planned.len());
                }
                if self.cancels.load(Ordering::Relaxed) != cancels {
                    return Err(Error::Invalid(format!("cancelled with {} of {} steps left", left.len(), planned.len())));
                }
                // It was done, and a replica has fallen behind since: a new master's does for a moment.
                self.decide(&Command::SetJob { database: name.to_owned(), job: Some(job) })?;
            }
            if cancel.check().is_err() {
                let how = format!("SHOW REBALANCE STATUS ON {name} tells how far it is, CANCEL REBALANCE ON {name} ends it");
                return Err(Error::Invalid(format!("the work goes on without this statement: {how}")));
            }
            std::thread::sleep(LOOK);
        }
    }

    pub(super) fn cancel_move(&self, database: Option<&str>) -> Result<String> {
        let mut cancelled = Vec::new();
        for name in self.databases_named(database)? {
            if self.catalog().database(&name).is_ok_and(|database| database.job.is_some()) {
                self.cancels.fetch_add(1, Ordering::Relaxed);
                self.decide(&Command::SetJob { database: name.clone(), job: None })?;
                cancelled.push(name);
            }
        }
        Ok(if cancelled.is_empty() { "nothing was running".to_owned() } else { format!("cancelled on {}", cancelled.join(", ")) })
    }

    /// REMOVE LEAF: moves what it has to other leaves first, unless it is to go at once.
    pub(super) fn remove_leaf(&self, address: &str, force: bool, cancel: &CancelToken) -> Result<String> {
        let catalog = self.catalog();
        let (id, leaf) = catalog.leaf(address).ok_or_else(|| Error::Invalid(format!("there is no leaf {address}")))?;
        if !force && leaf.state == LeafState::Online {
            for (name, database) in &catalog.databases {
                if database.partitions.iter().any(|p| p.copies.all().any(|copy| copy == id)) {
                    self.run_job(name, Job::Drain(id), cancel).map_err(|error| {
                        let what = format!("leaf {address} has partitions of database '{name}' that cannot be moved away");
                        Error::Invalid(format!("{what}: {error}. Say FORCE to give them up"))
                    })?;
                }
            }
        }
        let _changing = self.changing.lock();
        self.decide(&Command::RemoveLeaf { address: address.to_owned(), force })?;
        Ok(format!("leaf {address} removed"))
    }

    /// DETACH LEAF: replicas take over first; refused if a partition has none.
    pub(super) fn detach_leaf(&self, address: &str, force: bool) -> Result<String> {
        let _changing = self.changing.lock();
        let catalog = self.catalog();
        let (id, _) = catalog.leaf(address).ok_or_else(|| Error::Invalid(format!("there is no leaf {address}")))?;
        let online = |id: &NodeId| catalog.leaves.get(id).is_some_and(|leaf| leaf.state == LeafState::Online);
        for (name, database) in &catalog.databases {
            let alone = |p: &crate::catalog::Partition| p.copies.master == Some(id) && !p.copies.replicas.iter().any(online);
            if let Some(partition) = database.partitions.iter().position(alone).filter(|_| !force) {
                let way_out = format!("RESTORE REDUNDANCY ON {name} first, or say FORCE");
                let what = format!("partition {partition} of '{name}' would be off line: no other leaf has all of it: {way_out}");
                return Err(Error::Invalid(what));
            }
        }
        self.decide(&Command::TakeOut { address: address.to_owned(), state: LeafState::Detached })?;
        Ok(format!("leaf {address} detached"))
    }

    /// ATTACH LEAF: it takes part again, with the copies that it has, as a spare of those whose masters are elsewhere now.
    pub(super) fn attach_leaf(&self, shared: &Shared, address: Option<&str>) -> Result<String> {
        let catalog = self.catalog();
        let detached = catalog.leaves.values().filter(|leaf| leaf.state == LeafState::Detached);
        let addresses: Vec<String> = match address {
            Some(address) => vec![catalog.leaf(address).map(|(_, leaf)| leaf.address.clone())]
                .into_iter()
                .map(|known| known.ok_or_else(|| Error::Invalid(format!("there is no leaf {address}"))))
                .collect::<Result<_>>()?,
            None => detached.map(|leaf| leaf.address.clone()).collect(),
        };
        for address in &addresses {
            self.attach_one(shared, address)?;
        }
        Ok(format!("{} leaves attached", addresses.len()))
    }

    fn attach_one(&self, shared: &Shared, address: &str) -> Result<()> {
        persist(|| {
            let state = self.catalog().leaf(address).map(|(_, leaf)| leaf.state);
            if state == Some(LeafState::Online) { Ok(()) } else { self.rejoin(shared, address) }
        })
    }

    /// Asks some leaves the same, all at once; `None` from those that do not answer.
    pub(super) fn ask_leaves<T: Send>(
        &self,
        whom: impl Fn(&Leaf) -> bool,
        question: impl Fn(&dyn LeafService) -> stoa_rpc::Result<T> + Sync,
    ) -> Vec<(NodeId, Leaf, Option<T>)> {
        let catalog = self.catalog();
        let ask = |leaf: &Leaf| self.leaves.leaf(&leaf.address).and_then(|leaf| question(&*leaf)).ok();
        std::thread::scope(|scope| {
            let ask = &ask;
            let asked = catalog.leaves.iter().filter(|(_, leaf)| whom(leaf));
            let threads: Vec<_> = asked.map(|(id, leaf)| (id, leaf, scope.spawn(move || ask(leaf)))).collect();
            threads.into_iter().map(|(id, leaf, thread)| (*id, leaf.clone(), thread.join().ok().flatten())).collect()
        })
    }

    /// What leaves report, asked now.
    pub(super) fn ask_reports(&self, whom: impl Fn(&Leaf) -> bool) -> BTreeMap<NodeId, Report> {
        let nothing = Arc::new(Orders::default());
        let answers = self.ask_leaves(whom, |leaf| leaf.heartbeat(&nothing));
        answers.into_iter().filter_map(|(id, _, report)| Some((id, report?))).collect()
    }

    /// CLEAR ORPHAN DATABASES: removes copies that the catalog does not know. A copy of a partition whose master is off line stays: it
    /// may be the last.
    pub(super) fn clear_orphans(&self, explain: bool) -> Result<Outcome> {
        let catalog = self.catalog();
        let mut rows = Vec::new();
        for (id, report) in self.ask_reports(is_online) {
            let Some(leaf) = catalog.leaves.get(&id) else { continue };
            for copy in &report.copies {
                let database = catalog.databases.get(&copy.database);
                let partition = database.and_then(|database| database.partitions.get(copy.ordinal as usize));
                if partition.is_some_and(|p| p.copies.all().any(|other| other == id)) || self.is_claimed(&copy.database) {
                    continue;
                }
                let online = |master: NodeId| catalog.leaves.get(&master).is_some_and(|l| l.state == LeafState::Online);
                let last = partition.is_some_and(|p| !p.copies.master.is_some_and(online));
                let done = match (last, explain) {
                    (true, _) => "kept: the partition has no master that is online".to_owned(),
                    (false, true) => "to be removed".to_owned(),
                    (false, false) => {
                        let removed = self.leaves.leaf(&leaf.address)?.drop_partition(&copy.database, copy.ordinal);
                        removed.map_or_else(|failure| failure.to_string(), |()| "removed".to_owned())
                    }
                };
                let (host, port) = super::show::parts(&leaf.address);
                rows.push([host, port, format!("{}_{}", copy.database, copy.ordinal), copy.bytes.to_string(), done]);
            }
        }
        text_table(&["Host", "Port", "Database_Name", "Bytes", "Status"], &rows)
    }
}
