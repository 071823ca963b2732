//! Management of a cluster by the coordinator that keeps its catalog.
//!
//! What is added is made on the leaves first and in the catalog last; what goes leaves the catalog first: whatever a session can see is
//! there. What a try that failed left on a leaf is not seen, and gone over by the next try.

mod coordinators;
mod leader;
mod reference;
mod show;
mod users;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use stoa_rpc::LeafPool;
use stoa_rpc::leaf::Change;
use stoa_sql::ClusterStatement;

use crate::access::Asker;
use crate::catalog::{Catalog, Command, Database as CatalogDatabase, LeafState, Privilege, Scope};
use crate::cluster::{self, Shared};
use crate::placement::PlacementKind;
use crate::processes::{Process, Processes};
use crate::{Error, Membership, Outcome, Result};

/// The catalog and what acts on the cluster for it.
pub struct Control {
    membership: Arc<Membership>,
    leaves: Arc<LeafPool>,
    processes: Arc<Processes>,
    /// Partitions for each leaf of a database that does not say.
    partitions_per_leaf: u32,
    /// Held while the cluster is changed.
    changing: Mutex<()>,
    /// Tables that are being made, by database and name in lower case: on the leaves they may be there already.
    making: Arc<Mutex<HashSet<(String, String)>>>,
    /// Databases as sessions see them, with the version of the catalog that they are of.
    seen: Mutex<HashMap<String, (u64, Arc<cluster::Database>)>>,
}

impl Control {
    /// Control over the cluster of a catalog.
    #[must_use]
    pub fn new(membership: Arc<Membership>, leaves: Arc<LeafPool>, processes: Arc<Processes>) -> Control {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        Control {
            membership,
            leaves,
            processes,
            partitions_per_leaf: cores,
            changing: Mutex::default(),
            making: Arc::default(),
            seen: Mutex::default(),
        }
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.membership.catalog()
    }

    /// The number of this coordinator; 0 without a part in a cluster.
    pub(crate) fn node(&self) -> u64 {
        self.membership.consensus().map_or(0, |consensus| consensus.id().0)
    }

    /// Whether this coordinator leads the cluster.
    pub(crate) fn leads(&self) -> bool {
        self.membership.consensus().is_ok_and(|consensus| consensus.is_leader())
    }

    /// Claims the name of a table that is to be made. The leaves know tables by their names: two statements at once would mix them up.
    pub(crate) fn claim(&self, database: &str, table: &str) -> Result<Claim> {
        let name = (database.to_lowercase(), table.to_lowercase());
        if !self.making.lock().insert(name.clone()) {
            return Err(Error::retryable(format!("table '{table}' is being made by another statement")));
        }
        Ok(Claim { making: self.making.clone(), name })
    }

    fn add_leaf(&self, shared: &Shared, address: &str, group: Option<u8>) -> Result<String> {
        let _changing = self.changing.lock();
        let command = Command::AddLeaf { address: address.to_owned(), group };
        // Whether it can be added at all is known before anything is done.
        Catalog::clone(&self.catalog()).apply(&command).map_err(invalid)?;
        let leaf = self.leaves.leaf(address)?;
        if let Some(database) = leaf.status()?.iter().find(|d| !d.ordinals.is_empty()) {
            let what =
                format!("leaf {address} has partitions of a database '{}': only an empty leaf can be added", database.name);
            return Err(Error::Invalid(what));
        }
        for database in self.catalog().databases.values() {
            let name = database.name.to_lowercase();
            leaf.change(Change::DropDatabase(name.clone()))?;
            leaf.change(Change::CreatePartitions { database: name, ordinals: vec![] })?;
            reference::copy(shared, database, &*leaf)?;
        }
        let catalog = self.membership.change(&command)?;
        let group = catalog.leaf(address).map_or(1, |(_, leaf)| leaf.group);
        Ok(format!("leaf {address} added to availability group {group}"))
    }

    fn create_database(&self, name: &str, partitions: Option<u32>, redundancy: Option<u32>) -> Result<String> {
        let _changing = self.changing.lock();
        let leaves = self.catalog().leaves.values().filter(|leaf| leaf.state == LeafState::Online).count();
        let partitions = partitions.unwrap_or_else(|| self.partitions_per_leaf.saturating_mul(leaves.max(1) as u32));
        let redundancy = u8::try_from(redundancy.unwrap_or(1)).unwrap_or(u8::MAX);
        let command =
            Command::CreateDatabase { name: name.to_owned(), partitions, redundancy, placement: PlacementKind::default() };
        let mut planned = Catalog::clone(&self.catalog());
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
        self.membership.change(&command)?;
        Ok(format!("database {name} created: {partitions} partitions on {} leaves", placement.len()))
    }

    fn drop_database(&self, name: &str) -> Result<String> {
        let _changing = self.changing.lock();
        let leaves = view_of(&self.catalog(), name)?.leaves;
        self.membership.change(&Command::DropDatabase(name.to_owned()))?;
        for address in leaves {
            // A leaf that cannot do it now has nothing that anybody asks for: CREATE DATABASE goes over it.
            let _ = self.leaves.leaf(&address).and_then(|leaf| leaf.change(Change::DropDatabase(name.to_lowercase())));
        }
        Ok(format!("database {name} dropped"))
    }

    fn kill(&self, query: u64, asker: &Asker<'_>) -> Result<String> {
        let mine = |process: &Process| asker.may(Privilege::Cluster, &Scope::Everywhere) || process.user == asker.user;
        if self.processes.kill(query, mine) {
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
        let catalog = self.catalog();
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
        self.membership.change(command).map(drop)
    }

    /// Runs a statement that manages the cluster, for a user's session.
    pub(crate) fn statement(&self, statement: &ClusterStatement, shared: &Shared, asker: &Asker<'_>) -> Result<Outcome> {
        let done = match statement {
            ClusterStatement::CreateDatabase { durability: Some(_), .. } => {
                return Err(Error::Invalid("DURABILITY is not supported yet".into()));
            }
            ClusterStatement::CreateDatabase { name, if_not_exists, partitions, redundancy, durability: None } => {
                if *if_not_exists && self.catalog().database(name).is_ok() {
                    format!("database {name} is there already")
                } else {
                    self.create_database(name, *partitions, *redundancy)?
                }
            }
            ClusterStatement::DropDatabase { name, if_exists } => {
                if *if_exists && self.catalog().database(name).is_err() {
                    format!("there is no database {name}")
                } else {
                    self.drop_database(name)?
                }
            }
            ClusterStatement::AddLeaf { address, group } => self.add_leaf(shared, address, *group)?,
            ClusterStatement::RemoveLeaf { address, force } => {
                let _changing = self.changing.lock();
                self.membership.change(&Command::RemoveLeaf { address: address.clone(), force: *force })?;
                format!("leaf {address} removed")
            }
            ClusterStatement::AddCoordinator { address } => self.add_coordinator(address)?,
            ClusterStatement::RemoveCoordinator { address } => self.remove_coordinator(address)?,
            ClusterStatement::Kill { query } => self.kill(*query, asker)?,
            ClusterStatement::ShowLeaves => return self.show_leaves(),
            ClusterStatement::ShowAggregators => return self.show_aggregators(),
            ClusterStatement::ShowDatabases => return self.show_databases(),
            ClusterStatement::ShowPartitions { database: named } => {
                return self.show_partitions(named.as_deref().unwrap_or(asker.database));
            }
            ClusterStatement::ShowClusterStatus => return self.show_cluster_status(),
            ClusterStatement::ShowProcesslist => return self.show_processlist(asker),
        };
        Ok(Outcome::Done(done))
    }
}

/// The name of a table that is being made; free again when this is dropped.
pub(crate) struct Claim {
    making: Arc<Mutex<HashSet<(String, String)>>>,
    name: (String, String),
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.making.lock().remove(&self.name);
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
        read: None,
    }
}
