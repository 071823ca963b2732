//! Management of a cluster by the coordinator that keeps its catalog.
//!
//! What is added is made on the leaves first and in the catalog last; what goes leaves the catalog first: whatever a session can see is
//! there. What a try that failed left on a leaf is not seen, and gone over by the next try.

mod reference;
mod show;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use stoa_rpc::LeafPool;
use stoa_rpc::leaf::Change;
use stoa_sql::ClusterStatement;

use crate::catalog::{Catalog, CatalogFile, Command, Database as CatalogDatabase, LeafState};
use crate::cluster::{self, Shared};
use crate::placement::PlacementKind;
use crate::processes::Processes;
use crate::{Error, Outcome, Result};

/// The catalog and what acts on the cluster for it.
pub struct Control {
    catalog: CatalogFile,
    leaves: Arc<LeafPool>,
    processes: Arc<Processes>,
    /// Where clients reach this coordinator.
    address: String,
    /// Partitions for each leaf of a database that does not say.
    partitions_per_leaf: u32,
    /// Held while the cluster is changed.
    changing: Mutex<()>,
    /// Databases as sessions see them, with the version of the catalog that they are of.
    seen: Mutex<HashMap<String, (u64, Arc<cluster::Database>)>>,
}

impl Control {
    /// Control over the cluster of a catalog.
    #[must_use]
    pub fn new(catalog: CatalogFile, leaves: Arc<LeafPool>, processes: Arc<Processes>, address: &str) -> Control {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        Control {
            catalog,
            leaves,
            processes,
            address: address.to_owned(),
            partitions_per_leaf: cores,
            changing: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    fn add_leaf(&self, shared: &Shared, address: &str, group: Option<u8>) -> Result<String> {
        let _changing = self.changing.lock();
        let command = Command::AddLeaf { address: address.to_owned(), group };
        // Whether it can be added at all is known before anything is done.
        Catalog::clone(&self.catalog.get()).apply(&command).map_err(invalid)?;
        let leaf = self.leaves.leaf(address)?;
        if let Some(database) = leaf.status()?.iter().find(|d| !d.ordinals.is_empty()) {
            let what =
                format!("leaf {address} has partitions of a database '{}': only an empty leaf can be added", database.name);
            return Err(Error::Invalid(what));
        }
        for database in self.catalog.get().databases.values() {
            let name = database.name.to_lowercase();
            leaf.change(Change::DropDatabase(name.clone()))?;
            leaf.change(Change::CreatePartitions { database: name, ordinals: vec![] })?;
            reference::copy(shared, database, &*leaf)?;
        }
        let catalog = self.catalog.change(&command)?;
        let group = catalog.leaf(address).map_or(1, |(_, leaf)| leaf.group);
        Ok(format!("leaf {address} added to availability group {group}"))
    }

    fn create_database(&self, name: &str, partitions: Option<u32>, redundancy: Option<u32>) -> Result<String> {
        let _changing = self.changing.lock();
        let leaves = self.catalog.get().leaves.values().filter(|leaf| leaf.state == LeafState::Online).count();
        let partitions = partitions.unwrap_or_else(|| self.partitions_per_leaf.saturating_mul(leaves.max(1) as u32));
        let redundancy = u8::try_from(redundancy.unwrap_or(1)).unwrap_or(u8::MAX);
        let command =
            Command::CreateDatabase { name: name.to_owned(), partitions, redundancy, placement: PlacementKind::default() };
        let mut planned = Catalog::clone(&self.catalog.get());
        planned.apply(&command).map_err(invalid)?;
        let placed = view(&planned, planned.database(name).map_err(invalid)?);
        let key = name.to_lowercase();
        let placement = placed.placement()?;
        for address in &placed.leaves {
            let leaf = self.leaves.leaf(address)?;
            let ordinals = placement.get(address).cloned().unwrap_or_default();
            // A database of this name may have been dropped while the leaf was away.
            leaf.change(Change::DropDatabase(key.clone()))?;
            leaf.change(Change::CreatePartitions { database: key.clone(), ordinals })?;
        }
        self.catalog.change(&command)?;
        Ok(format!("database {name} created: {partitions} partitions on {} leaves", placement.len()))
    }

    fn drop_database(&self, name: &str) -> Result<String> {
        let _changing = self.changing.lock();
        let leaves = view_of(&self.catalog.get(), name)?.leaves;
        self.catalog.change(&Command::DropDatabase(name.to_owned()))?;
        for address in leaves {
            // A leaf that cannot do it now has nothing that anybody asks for: CREATE DATABASE goes over it.
            let _ = self.leaves.leaf(&address).and_then(|leaf| leaf.change(Change::DropDatabase(name.to_lowercase())));
        }
        Ok(format!("database {name} dropped"))
    }

    fn kill(&self, query: u64) -> Result<String> {
        if self.processes.kill(query) {
            return Ok(format!("query {query} is being stopped"));
        }
        Err(Error::Invalid(format!("no query {query} runs on this coordinator: SHOW PROCESSLIST lists those that do")))
    }
}

impl Control {
    /// A database as it is now.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn database(&self, name: &str) -> Result<Arc<cluster::Database>> {
        let catalog = self.catalog.get();
        let key = name.to_lowercase();
        let mut seen = self.seen.lock();
        if let Some((version, database)) = seen.get(&key)
            && *version == catalog.version
        {
            return Ok(database.clone());
        }
        let database = Arc::new(view_of(&catalog, name)?);
        seen.insert(key, (catalog.version, database.clone()));
        Ok(database)
    }

    /// Changes the catalog alone; what leaves have to do for it is the caller's.
    pub(crate) fn change(&self, command: &Command) -> Result<()> {
        self.catalog.change(command).map(drop)
    }

    /// Runs a statement that manages the cluster, for a session on `database`.
    pub(crate) fn statement(&self, statement: &ClusterStatement, shared: &Shared, database: &str) -> Result<Outcome> {
        let done = match statement {
            ClusterStatement::CreateDatabase { name, if_not_exists, partitions, redundancy } => {
                if *if_not_exists && self.catalog.get().database(name).is_ok() {
                    format!("database {name} is there already")
                } else {
                    self.create_database(name, *partitions, *redundancy)?
                }
            }
            ClusterStatement::DropDatabase { name, if_exists } => {
                if *if_exists && self.catalog.get().database(name).is_err() {
                    format!("there is no database {name}")
                } else {
                    self.drop_database(name)?
                }
            }
            ClusterStatement::AddLeaf { address, group } => self.add_leaf(shared, address, *group)?,
            ClusterStatement::RemoveLeaf { address, force } => {
                let _changing = self.changing.lock();
                self.catalog.change(&Command::RemoveLeaf { address: address.clone(), force: *force })?;
                format!("leaf {address} removed")
            }
            ClusterStatement::Kill { query } => self.kill(*query)?,
            ClusterStatement::ShowLeaves => return self.show_leaves(),
            ClusterStatement::ShowAggregators => return self.show_aggregators(),
            ClusterStatement::ShowDatabases => return self.show_databases(),
            ClusterStatement::ShowPartitions { database: named } => {
                return self.show_partitions(named.as_deref().unwrap_or(database));
            }
            ClusterStatement::ShowClusterStatus => return self.show_cluster_status(),
            ClusterStatement::ShowProcesslist => return self.show_processlist(),
        };
        Ok(Outcome::Done(done))
    }
}

fn invalid(error: impl std::fmt::Display) -> Error {
    Error::Invalid(error.to_string())
}

fn view_of(catalog: &Catalog, name: &str) -> Result<cluster::Database> {
    catalog.database(name).map(|database| view(catalog, database)).map_err(invalid)
}

/// A database as sessions see it.
fn view(catalog: &Catalog, database: &CatalogDatabase) -> cluster::Database {
    let online = |id| catalog.leaves.get(id).filter(|leaf| leaf.state == LeafState::Online).map(|leaf| leaf.address.clone());
    cluster::Database {
        name: database.name.to_lowercase(),
        masters: database.partitions.iter().map(|p| p.copies.master.as_ref().and_then(online)).collect(),
        leaves: catalog.leaves.keys().filter_map(online).collect(),
        tables: database.tables.iter().map(|(key, definition)| (key.clone(), definition.table().clone())).collect(),
        views: database.views.clone(),
    }
}
