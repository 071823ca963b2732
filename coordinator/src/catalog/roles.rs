//! Roles of copies change: failover, rebalance, and leaves that go.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use stoa_columnstore::TableDef;

use super::{Catalog, CatalogError, Definition, Job, LeafState, NodeId, Partition, missing};
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
    /// A replica takes over from a master that is lost. The replica may be lost too, and nobody knows yet: the old master stays in
    /// sync, so that nothing is acknowledged without it until the new one is heard of, and either can serve alone.
    fn take_out(&mut self, leaf: NodeId, online: &BTreeSet<NodeId>) {
        let copies = &mut self.copies;
        if copies.master == Some(leaf)
            && let Some(at) = copies.replicas.iter().position(|copy| online.contains(copy))
        {
            let replica = std::mem::replace(&mut copies.replicas[at], leaf);
            copies.master = Some(replica);
            self.term += 1;
        }
    }

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
    /// A leaf takes no part any more: replicas take over.
    pub(super) fn take_out(&mut self, address: &str, state: LeafState) -> Result<(), CatalogError> {
        let (id, _) = self.leaf(address).ok_or_else(|| missing("leaf", address))?;
        if state == LeafState::Online {
            return Err(CatalogError::Refused("a leaf that is online is not taken out".to_owned()));
        }
        let others: BTreeSet<NodeId> = self
            .leaves
            .iter()
            .filter(|(other, leaf)| **other != id && leaf.state == LeafState::Online)
            .map(|(id, _)| *id)
            .collect();
        let version = self.version + 1;
        if let Some(leaf) = self.leaves.get_mut(&id) {
            if leaf.state == LeafState::Online {
                leaf.left = version;
            }
            (leaf.state, leaf.receives) = (state, false);
        }
        for partition in self.databases.values_mut().flat_map(|d| &mut d.partitions) {
            partition.take_out(id, &others);
        }
        Ok(())
    }

    /// A leaf does not count any more where REFERENCE tables are changed.
    pub(super) fn fall_behind(&mut self, address: &str) -> Result<(), CatalogError> {
        let (id, leaf) = self.leaf(address).ok_or_else(|| missing("leaf", address))?;
        if leaf.state == LeafState::Online {
            return Err(CatalogError::Stale(format!("leaf {address} is online again")));
        }
        self.leaves.entry(id).and_modify(|leaf| (leaf.behind, leaf.receives) = (true, false));
        Ok(())
    }

    /// A leaf is given the REFERENCE tables as they are now.
    pub(super) fn receive(&mut self, address: &str) -> Result<(), CatalogError> {
        let (id, leaf) = self.leaf(address).ok_or_else(|| missing("leaf", address))?;
        if leaf.state == LeafState::Online || !leaf.behind {
            return Err(CatalogError::Stale(format!("leaf {address} has the REFERENCE tables already")));
        }
        self.leaves.entry(id).and_modify(|leaf| leaf.receives = true);
        let version = self.version + 1;
        let tables = self.databases.values_mut().flat_map(|database| database.tables.values_mut());
        for definition in tables.filter(|definition| definition.table().reference) {
            *definition = Definition::new(TableDef::clone(definition.table()).with_version(version));
        }
        Ok(())
    }

    /// A leaf changes its state.
    pub(super) fn set_leaf_state(&mut self, address: &str, state: LeafState) -> Result<(), CatalogError> {
        let (id, leaf) = self.leaf(address).ok_or_else(|| missing("leaf", address))?;
        let online = state == LeafState::Online;
        if online && leaf.behind && !leaf.receives {
            return Err(CatalogError::Stale(format!("leaf {address} was not given the REFERENCE tables")));
        }
        self.leaves.entry(id).and_modify(|leaf| {
            (leaf.state, leaf.behind, leaf.receives) = (state, leaf.behind && !online, leaf.receives && !online);
        });
        Ok(())
    }

    /// The master of a partition begins a new term.
    pub(super) fn begin_term(&mut self, database: &str, partition: u32, term: u64) -> Result<(), CatalogError> {
        let database = self.database_mut(database)?;
        let name = database.name.clone();
        let found = database.partitions.get_mut(partition as usize);
        let found = found.ok_or_else(|| missing("partition", &format!("{partition} of database {name}")))?;
        if found.term != term {
            return Err(CatalogError::Stale(format!("partition {partition} of database '{name}' is in term {}", found.term)));
        }
        found.term += 1;
        Ok(())
    }

    /// What is to be done with the copies of a database; one thing at a time.
    pub(super) fn set_job(&mut self, database: &str, job: Option<Job>) -> Result<(), CatalogError> {
        let database = self.database_mut(database)?;
        if let (Some(running), Some(wanted)) = (database.job, job)
            && running != wanted
        {
            let way_out = format!("wait for it, or say CANCEL REBALANCE ON {}", database.name);
            let what = format!("the copies of database '{}' are being moved already: {way_out}", database.name);
            return Err(CatalogError::Refused(what));
        }
        database.job = job;
        Ok(())
    }

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
