//! RESTORE of a database on a cluster.
//!
//! Its partitions are made on the leaves, where nobody sees them; the catalog has the database once all of them are there.

use std::collections::BTreeMap;

use stoa_backup::Place;
use stoa_exec::CancelToken;
use stoa_rpc::backup::BackupPlace;
use stoa_rpc::leaf::{Change, REFERENCE};
use stoa_rpc::{Failure, FailureKind};

use super::{Control, invalid, usual_placement, usual_redundancy, view};
use crate::backup::Definitions;
use crate::catalog::{Catalog, Command, Database, LeafState};
use crate::cluster::{at, in_parallel};
use crate::{Error, Result};

impl Control {
    /// Makes a database what it was in the newest backup of it in a place.
    pub(crate) fn restore(&self, database: &str, new_name: Option<&str>, from: &str, cancel: &CancelToken) -> Result<String> {
        let place = Place::open(from, false)?;
        let (backup, definitions) = Definitions::newest(&place, from, database)?;
        let name = new_name.unwrap_or(database);
        if self.catalog().database(name).is_ok() {
            let way_out = format!("DROP DATABASE {name}, or RESTORE DATABASE {database} AS another name");
            return Err(Error::Invalid(format!("database '{name}' is there already: {way_out}")));
        }
        let _claim = self.claim_database(name)?;
        let planned = planned(&self.catalog(), name, &definitions)?;
        let from = BackupPlace { place: from.to_owned(), name: backup.clone() };
        let made = self.make_from(&planned, &from, cancel).and_then(|addresses| self.show_restored(&planned, &from, addresses));
        let addresses = match made {
            Ok(addresses) => addresses,
            Err(error) => {
                self.give_up_on_leaves(name);
                return Err(error);
            }
        };
        self.order(&addresses)?;
        self.wait_for_replicas(&name.to_lowercase());
        let (tables, partitions, redundancy) = (planned.tables.len(), planned.partitions.len(), planned.redundancy);
        Ok(format!(
            "backup {backup}: {tables} tables restored to database {name}: {partitions} partitions, redundancy {redundancy}"
        ))
    }

    /// Makes the partitions of a database on the leaves that are to have them, and the REFERENCE tables on all; which leaves those are.
    fn make_from(&self, planned: &Database, from: &BackupPlace, cancel: &CancelToken) -> Result<Vec<String>> {
        let catalog = self.catalog();
        let placement = view(&catalog, planned).placement()?;
        let online = catalog.leaves.values().filter(|leaf| leaf.state == LeafState::Online);
        let parts: Vec<(String, Vec<u32>)> =
            online.map(|leaf| (leaf.address.clone(), placement.get(&leaf.address).cloned().unwrap_or_default())).collect();
        in_parallel(&parts, |(address, ordinals)| self.make_on(address, planned, ordinals, from, cancel))?;
        Ok(parts.into_iter().map(|(address, _)| address).collect())
    }

    fn make_on(
        &self,
        address: &str,
        planned: &Database,
        ordinals: &[u32],
        from: &BackupPlace,
        cancel: &CancelToken,
    ) -> std::result::Result<(), Failure> {
        let (leaf, name) = (self.leaves.leaf(address)?, planned.name.to_lowercase());
        leaf.change(Change::DropDatabase(name.clone()))?;
        leaf.change(Change::CreatePartitions { database: name.clone(), ordinals: ordinals.to_vec() })?;
        let reference = planned.tables.values().any(|definition| definition.table().reference).then_some(REFERENCE);
        for ordinal in ordinals.iter().copied().chain(reference) {
            cancel.check().map_err(|e| Failure::new(FailureKind::Cancelled, e.to_string()))?;
            leaf.restore(&name, ordinal, from).map_err(|e| at(address, e))?;
        }
        Ok(())
    }

    /// Puts a database into the catalog whose partitions these leaves have; the leaves that have to know of it.
    fn show_restored(&self, planned: &Database, from: &BackupPlace, mut addresses: Vec<String>) -> Result<Vec<String>> {
        let _changing = self.changing.lock();
        // Leaves that came meanwhile have the REFERENCE tables too.
        let catalog = self.catalog();
        for leaf in catalog.leaves.values().filter(|leaf| leaf.state == LeafState::Online) {
            if !addresses.contains(&leaf.address) {
                self.make_on(&leaf.address, planned, &[], from, &CancelToken::default())?;
                addresses.push(leaf.address.clone());
            }
        }
        self.membership.change(&Command::AddDatabase(Box::new(planned.clone())))?;
        Ok(addresses)
    }

    /// What a restore that failed has left goes; what stays is gone over when a database of that name is made.
    fn give_up_on_leaves(&self, name: &str) {
        if self.catalog().database(name).is_ok() {
            return;
        }
        for leaf in self.catalog().leaves.values().filter(|leaf| leaf.state == LeafState::Online) {
            let _ = self.leaves.leaf(&leaf.address).and_then(|l| l.change(Change::DropDatabase(name.to_lowercase())));
        }
    }
}

/// The database that a backup becomes on the leaves that there are.
fn planned(catalog: &Catalog, name: &str, definitions: &Definitions) -> Result<Database> {
    let redundancy = definitions.redundancy.min(usual_redundancy(catalog));
    let (partitions, placement, asynchronous) = (definitions.partitions, usual_placement(catalog), definitions.asynchronous);
    let mut planned = Catalog::clone(catalog);
    let create = Command::CreateDatabase { name: name.to_owned(), partitions, redundancy, placement, asynchronous };
    planned.apply(&create).map_err(invalid)?;
    let database = planned.database(name).map_err(invalid)?.clone();
    let tables = definitions.tables.iter().map(|table| (table.table().name.to_lowercase(), table.clone()));
    let views = definitions.views.iter().map(|(name, sql)| (name.to_lowercase(), (name.clone(), sql.clone())));
    Ok(Database { tables: tables.collect(), views: views.collect::<BTreeMap<_, _>>(), ..database })
}
