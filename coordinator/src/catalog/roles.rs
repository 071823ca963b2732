//! Roles of copies change: failover, rebalance, and leaves that go.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Catalog, CatalogError, NodeId, Partition, missing};
use crate::placement::Copies;

/// New roles for the copies of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionChange {
    /// In which database.
    pub database: String,
    /// The partition's ordinal.
    pub partition: u32,
    /// The term in which this was decided. The change is refused if another has begun since.
    pub term: u64,
    /// Where the copies are from now on. The master is a leaf that had a copy before.
    pub copies: Copies,
}

impl Partition {
    /// Forgets the copy on a leaf. If it was the master's, a replica takes over in a new term; without one the partition is off line.
    pub(super) fn give_up(&mut self, leaf: NodeId) {
        let copies = &mut self.copies;
        copies.replicas.retain(|copy| *copy != leaf);
        copies.spares.retain(|copy| *copy != leaf);
        if copies.master == Some(leaf) {
            copies.master = if copies.replicas.is_empty() { None } else { Some(copies.replicas.remove(0)) };
            self.term += 1;
        }
    }
}

impl Catalog {
    /// Makes all of the changes; the caller undoes those made before one that is refused.
    pub(super) fn set_partitions(&mut self, changes: &[PartitionChange]) -> Result<(), CatalogError> {
        for change in changes {
            self.check_copies(change)?;
            let database = self.database_mut(&change.database)?;
            let what = format!("partition {} of database '{}'", change.partition, database.name);
            let Some(partition) = database.partitions.get_mut(change.partition as usize) else {
                return Err(missing("partition", &format!("{} of database {}", change.partition, database.name)));
            };
            if partition.term != change.term {
                let what = format!("{what} is in term {}, and this was decided in term {}", partition.term, change.term);
                return Err(CatalogError::Stale(what));
            }
            if let Some(master) = change.copies.master
                && !partition.copies.all().any(|copy| copy == master)
            {
                return Err(CatalogError::Refused(format!("node {} has no copy of {what} and cannot be its master", master.0)));
            }
            partition.term += u64::from(partition.copies.master != change.copies.master);
            partition.copies = change.copies.clone();
        }
        Ok(())
    }

    /// Copies are on leaves that are known, once on each; those with a role are in different groups.
    fn check_copies(&self, change: &PartitionChange) -> Result<(), CatalogError> {
        let refused = |what: String| {
            Err(CatalogError::Refused(format!("partition {} of database '{}': {what}", change.partition, change.database)))
        };
        let mut seen: BTreeSet<NodeId> = BTreeSet::new();
        let mut groups: BTreeSet<u8> = BTreeSet::new();
        let roles = change.copies.roles().count();
        for (index, copy) in change.copies.all().enumerate() {
            let Some(leaf) = self.leaves.get(&copy) else {
                return refused(format!("node {} is no leaf of this cluster", copy.0));
            };
            if !seen.insert(copy) {
                return refused(format!("leaf {} is named twice", leaf.address));
            }
            if index < roles && !groups.insert(leaf.group) {
                return refused(format!("two copies would be in availability group {}", leaf.group));
            }
        }
        if change.copies.master.is_none() && !change.copies.replicas.is_empty() {
            return refused("there are replicas and no master".to_owned());
        }
        Ok(())
    }
}
