//! What is decided on what leaves report: catalog and observations in, commands and orders out. Nothing here asks anybody.

use std::time::Duration;

use stoa_rpc::replication::{CopyOrder, CopyReport, CopyRole, FedState, Report, RoleOrder};

use crate::catalog::{Catalog, Command, LeafState, NodeId, Partition, PartitionChange};
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
            orders.push(CopyOrder { database: name.clone(), ordinal, term: partition.term, role });
        }
    }
    orders
}

/// What follows from a leaf's report.
#[must_use]
pub fn commands(catalog: &Catalog, leaf: NodeId, report: &Report) -> Vec<Command> {
    let mut changes = Vec::new();
    let mut terms = Vec::new();
    for copy in report.copies.iter().filter(|copy| copy.role == CopyRole::Master) {
        let database = catalog.databases.get(&copy.database);
        let partition = database.and_then(|database| database.partitions.get(copy.ordinal as usize));
        // A report from before the last change of the master says nothing any more.
        let current = |p: &&Partition| p.copies.master == Some(leaf) && p.term == copy.term;
        let (Some(partition), Some(database)) = (partition.filter(current), database) else { continue };
        let copies = after(catalog, database.redundancy, partition, copy);
        let (database, partition_number, term) = (copy.database.clone(), copy.ordinal, partition.term);
        if copies != partition.copies {
            changes.push(PartitionChange { database, partition: partition_number, term, copies });
        } else if !copy.failure.is_empty() {
            terms.push(Command::BeginTerm { database, partition: partition_number, term });
        }
    }
    if !changes.is_empty() {
        terms.push(Command::SetPartitions(changes));
    }
    terms
}

/// The copies of a partition after a report of its master.
fn after(catalog: &Catalog, redundancy: u8, partition: &Partition, report: &CopyReport) -> Copies {
    let mut copies = partition.copies.clone();
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
    let online = |id: &NodeId| catalog.leaves.get(id).is_some_and(|leaf| leaf.state == LeafState::Online);
    // A leaf that was detached as the only one that had everything hands over once another has it.
    let ends = !report.failure.is_empty() || !copies.master.as_ref().is_some_and(online);
    if ends && let Some(at) = copies.replicas.iter().position(online) {
        let replica = copies.replicas.remove(at);
        copies.spares.extend(copies.master.replace(replica));
    }
    copies
}
