//! What is decided on what leaves report: catalog and observations in, commands and orders out. Nothing here asks anybody.

use std::time::Duration;

use stoa_rpc::replication::{CopyOrder, CopyReport, CopyRole, FedState, Report, RoleOrder};

use crate::catalog::{Catalog, Command, Leaf, LeafState, NodeId, Partition, PartitionChange};
use crate::placement::Copies;

/// When a leaf counts as gone.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Its connections have been refused for so long: its process has ended.
    pub refused: Duration,
    /// It has said nothing for so long: it hangs, or is cut off.
    pub silent: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { refused: Duration::from_secs(1), silent: Duration::from_secs(3) }
    }
}

/// What is known of a leaf's answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Contact {
    /// Time since it was last heard of, or since somebody began to listen.
    pub silent: Duration,
    /// Time since its connections are refused, if they are.
    pub refused: Option<Duration>,
}

/// Whether a leaf is to be taken out.
pub(super) fn is_gone(contact: Contact, patience: Patience) -> bool {
    contact.silent >= patience.silent || contact.refused.is_some_and(|refused| refused >= patience.refused)
}

/// What a leaf is to have.
#[must_use]
pub fn orders(catalog: &Catalog, leaf: NodeId) -> Vec<CopyOrder> {
    let mut orders = Vec::new();
    for (name, database) in &catalog.databases {
        for (ordinal, partition) in (0u32..).zip(&database.partitions) {
            if !partition.copies.all().any(|copy| copy == leaf) {
                continue;
            }
            let role = if partition.copies.master == Some(leaf) {
                let address = |id: &NodeId| catalog.leaves.get(id).map(|leaf| leaf.address.clone());
                let online = |id: &&NodeId| catalog.leaves.get(id).is_some_and(|leaf| leaf.state == LeafState::Online);
                let in_sync = partition.copies.replicas.iter().filter_map(address).collect();
                let feed = partition.copies.spares.iter().filter(online).filter_map(address).collect();
                RoleOrder::Master { in_sync, feed }
            } else {
                RoleOrder::Replica
            };
            let (database, asynchronous) = (name.clone(), database.asynchronous);
            orders.push(CopyOrder { database, ordinal, term: partition.term, role, asynchronous });
        }
    }
    orders
}

/// What follows from a leaf's report.
#[must_use]
pub fn commands(catalog: &Catalog, leaf: NodeId, report: &Report) -> Vec<Command> {
    let mut changes = Vec::new();
    let mut decided = Vec::new();
    for copy in &report.copies {
        let database = catalog.databases.get(&copy.database);
        let partition = database.and_then(|database| database.partitions.get(copy.ordinal as usize));
        let (Some(partition), Some(database)) = (partition, database) else { continue };
        let copies = match copy.role {
            // A report from before the last change of the master says nothing any more.
            CopyRole::Master if partition.copies.master == Some(leaf) && partition.term == copy.term => {
                after(catalog, database.redundancy, partition, copy, report.version)
            }
            CopyRole::Replica => taking_over(catalog, partition, leaf, copy),
            _ => continue,
        };
        let (database, partition_number, term) = (copy.database.clone(), copy.ordinal, partition.term);
        if copies != partition.copies {
            changes.push(PartitionChange { database, partition: partition_number, term, copies });
        } else if copy.role == CopyRole::Master && !copy.failure.is_empty() && copy.position.lsn > 0 {
            decided.push(Command::BeginTerm { database, partition: partition_number, term });
        }
    }
    if !changes.is_empty() {
        decided.push(Command::SetPartitions(changes));
    }
    if is_online(catalog, leaf) {
        // It has all of the REFERENCE tables, and was alive after these were lost.
        let left = |other: &&Leaf| other.state != LeafState::Online && !other.behind && other.left <= report.version;
        let left = catalog.leaves.values().filter(left);
        decided.extend(left.map(|leaf| Command::FallBehind { address: leaf.address.clone() }));
    }
    decided
}

fn is_online(catalog: &Catalog, leaf: NodeId) -> bool {
    catalog.leaves.get(&leaf).is_some_and(|leaf| leaf.state == LeafState::Online)
}

/// The copies of a partition after a report of a replica: it takes over from a master that is lost, which stays in sync until the new
/// one is heard of.
fn taking_over(catalog: &Catalog, partition: &Partition, leaf: NodeId, report: &CopyReport) -> Copies {
    let mut copies = partition.copies.clone();
    // One that has nothing has lost what it had.
    if report.position.lsn > 0
        && is_online(catalog, leaf)
        && let Some(lost) = copies.master.filter(|master| !is_online(catalog, *master))
        && let Some(at) = copies.replicas.iter().position(|copy| *copy == leaf)
    {
        copies.replicas[at] = lost;
        copies.master = Some(leaf);
    }
    copies
}

/// The copies of a partition after a report of its master, which knew a version of the catalog.
fn after(catalog: &Catalog, redundancy: u8, partition: &Partition, report: &CopyReport, version: u64) -> Copies {
    let mut copies = partition.copies.clone();
    if report.failure.is_empty() && copies.master.is_some_and(|master| is_online(catalog, master)) {
        // The master goes on without those that were lost before it was heard of.
        let lost = |id: &NodeId| catalog.leaves.get(id).is_some_and(|l| l.state != LeafState::Online && l.left <= version);
        copies.spares.extend(copies.replicas.extract_if(.., |copy| lost(copy)));
    }
    for fed in &report.fed {
        let Some((id, other)) = catalog.leaf(&fed.address) else { continue };
        match fed.state {
            FedState::Failed if copies.replicas.contains(&id) => {
                copies.replicas.retain(|copy| *copy != id);
                copies.spares.push(id);
            }
            FedState::InSync if copies.spares.contains(&id) && other.state == LeafState::Online => {
                let group = |id: NodeId| catalog.leaves.get(&id).map(|leaf| leaf.group);
                let free = copies.roles().count() < usize::from(redundancy);
                if free && !copies.roles().any(|copy| group(copy) == Some(other.group)) {
                    copies.spares.retain(|copy| *copy != id);
                    copies.replicas.push(id);
                }
            }
            _ => {}
        }
    }
    // A leaf that was detached as the only one that had everything hands over once another has it.
    let ends = !report.failure.is_empty() || !copies.master.is_some_and(|master| is_online(catalog, master));
    if ends && let Some(at) = copies.replicas.iter().position(|copy| is_online(catalog, *copy)) {
        let master = copies.master.replace(copies.replicas.remove(at));
        // As when it is lost: it counts until the new one is heard of, unless its log fails.
        let kept = if report.failure.is_empty() { &mut copies.replicas } else { &mut copies.spares };
        kept.extend(master);
    }
    copies
}
