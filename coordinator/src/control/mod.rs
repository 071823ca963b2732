//! Management of a cluster by the coordinator that keeps its catalog.
//!
//! What is added is made on the leaves first and in the catalog last; what goes leaves the catalog first: whatever a session can see is
//! there. What a try that failed left on a leaf is not seen, and gone over by the next try.

mod coordinators;
mod leader;
mod moves;
mod processes;
mod recover;
mod reference;
mod restore;
mod show;
mod steps;
mod users;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use stoa_exec::CancelToken;
use stoa_rpc::LeafPool;
use stoa_rpc::leaf::Change;
use stoa_sql::{ClusterStatement, Durability};

use crate::access::Asker;
use crate::catalog::{Catalog, Command, Database as CatalogDatabase, LeafState, NodeId, Partition};
use crate::cluster::{self, Shared};
use crate::placement::{GROUPS, PlacementKind};
use crate::processes::Processes;
use crate::supervision::Supervision;
use crate::{Error, Membership, Outcome, Result};

/// How long a new database waits for its replicas; they come after it too.
const REPLICAS: Duration = Duration::from_secs(5);

/// The catalog and what acts on the cluster for it.
pub struct Control {
    membership: Arc<Membership>,
    leaves: Arc<LeafPool>,
    processes: Arc<Processes>,
    /// Partitions for each leaf of a database that does not say.
    partitions_per_leaf: u32,
    supervision: Supervision,
    /// How often jobs were cancelled here.
    cancels: AtomicU64,
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
            supervision: Supervision::default(),
            cancels: AtomicU64::new(0),
            changing: Mutex::default(),
            making: Arc::default(),
            seen: Mutex::default(),
        }
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.membership.catalog()
    }

    /// Waits until the catalog is of another version, at most so long.
    pub(crate) fn wait_for_change(&self, version: u64, limit: Duration) {
        self.membership.wait_for_change(version, limit);
    }

    /// The number of this coordinator; 0 without a part in a cluster.
    pub(crate) fn node(&self) -> u64 {
        self.membership.node()
    }

    /// What is known of the leaves.
    pub(crate) fn supervision(&self) -> &Supervision {
        &self.supervision
    }

    /// Makes sure that this coordinator leads and has every change made so far.
    pub(crate) fn confirm(&self) -> Result<()> {
        Ok(self.membership.consensus()?.confirm_leader().map(drop)?)
    }

    /// Changes the catalog, as the one who leads decided.
    pub(crate) fn decide(&self, command: &Command) -> Result<()> {
        self.membership.change(command).map(drop)
    }

    /// Whether this coordinator leads the cluster.
    pub(crate) fn leads(&self) -> bool {
        self.membership.consensus().is_ok_and(|consensus| consensus.is_leader())
    }

    /// No leaf joins or returns while this lives.
    pub(crate) fn steady(&self) -> MutexGuard<'_, ()> {
        self.changing.lock()
    }

    /// Claims the name of a table that is to be made. The leaves know tables by their names: two statements at once would mix them up.
    pub(crate) fn claim(&self, database: &str, table: &str) -> Result<Claim> {
        let name = (database.to_lowercase(), table.to_lowercase());
        if !self.making.lock().insert(name.clone()) {
            return Err(Error::retryable(format!("table '{table}' is being made by another statement")));
        }
        Ok(Claim { making: self.making.clone(), name })
    }

    /// Claims the name of a database that is to be made, as [`Control::claim`] does that of a table.
    fn claim_database(&self, name: &str) -> Result<Claim> {
        let free = |_| Error::retryable(format!("database '{name}' is being made by another statement"));
        self.claim(name, "").map_err(free)
    }

    /// Whether a database is being made: on the leaves it may be there already.
    fn is_claimed(&self, database: &str) -> bool {
        self.making.lock().contains(&(database.to_lowercase(), String::new()))
    }

    fn add_leaf(&self, shared: &Shared, address: &str, group: Option<u8>) -> Result<String> {
        let _changing = self.changing.lock();
        let command = Command::Join { address: address.to_owned(), group };
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
        }
        self.decide(&command)?;
        let given = moves::persist(|| self.give_reference(shared, address));
        if let Err(error) = given.and_then(|()| self.let_in(address)) {
            self.decide(&Command::RemoveLeaf { address: address.to_owned(), force: true })?;
            return Err(error);
        }
        let group = self.catalog().leaf(address).map_or(1, |(_, leaf)| leaf.group);
        Ok(format!("leaf {address} added to availability group {group}"))
    }

    fn create_database(
        &self,
        name: &str,
        partitions: Option<u32>,
        redundancy: Option<u32>,
        asynchronous: bool,
    ) -> Result<String> {
        let _claim = self.claim_database(name)?;
        let _changing = self.changing.lock();
        let leaves = self.catalog().leaves.values().filter(|leaf| leaf.state == LeafState::Online).count();
        let partitions = partitions.unwrap_or_else(|| self.partitions_per_leaf.saturating_mul(leaves.max(1) as u32));
        let usual = usual_redundancy(&self.catalog());
        let redundancy = redundancy.map_or(usual, |redundancy| u8::try_from(redundancy).unwrap_or(u8::MAX));
        let placement = usual_placement(&self.catalog());
        let command = Command::CreateDatabase { name: name.to_owned(), partitions, redundancy, placement, asynchronous };
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
        self.order(&placed.leaves)?;
        self.wait_for_replicas(&key);
        Ok(format!("database {name} created: {partitions} partitions on {} leaves, redundancy {redundancy}", placement.len()))
    }

    /// Tells leaves what they are to have now.
    pub(crate) fn order(&self, addresses: &[String]) -> Result<()> {
        let catalog = self.catalog();
        for address in addresses {
            if let Some((id, _)) = catalog.leaf(address) {
                self.leaves.leaf(address)?.heartbeat(&self.supervision.orders(self, id))?;
            }
        }
        Ok(())
    }

    /// Waits, for a while, until every partition of a new database has its replica.
    fn wait_for_replicas(&self, database: &str) {
        let until = Instant::now() + REPLICAS;
        let behind = |p: &crate::catalog::Partition| !p.copies.spares.is_empty();
        while Instant::now() < until && self.catalog().databases.get(database).is_some_and(|d| d.partitions.iter().any(behind)) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A leaf that was gone takes part again. What it has of REFERENCE tables is made anew if they may have changed meanwhile.
    pub(crate) fn rejoin(&self, shared: &Shared, address: &str) -> Result<()> {
        let _changing = self.changing.lock();
        let catalog = self.catalog();
        let Some((_, leaf)) = catalog.leaf(address).filter(|(_, leaf)| leaf.state != LeafState::Online) else { return Ok(()) };
        // What waits there for a role that it does not have any more ends now.
        self.order(&[address.to_owned()])?;
        let lost = !leaf.behind && self.lacks_a_database(address)?;
        if lost {
            self.decide(&Command::FallBehind { address: address.to_owned() })?;
        }
        if lost || leaf.behind {
            let others = |l: &&crate::catalog::Leaf| l.state == LeafState::Online && !l.behind;
            if !catalog.leaves.values().any(|l| others(&l)) {
                return Err(Error::retryable(format!("no leaf is online that {address} could get the REFERENCE tables from")));
            }
            self.give_reference(shared, address)?;
        }
        if let Err(error) = self.let_in(address) {
            // Another leaf has been heard of meanwhile: now it is to be given them.
            let behind = self.catalog().leaf(address).is_some_and(|(_, now)| now.behind);
            let fell = behind && !leaf.behind;
            return Err(if fell { Error::retryable(format!("leaf {address} has just fallen behind: try again")) } else { error });
        }
        tracing::info!(leaf = address, "a leaf is back");
        Ok(())
    }

    /// Whether a leaf does not have what there is of each database on every leaf.
    pub(crate) fn lacks_a_database(&self, address: &str) -> Result<bool> {
        let before = self.catalog();
        let has = self.leaves.leaf(address)?.status()?;
        // One that is made or dropped just now says nothing.
        let still = self.catalog();
        let mut known = before.databases.keys().filter(|name| still.databases.contains_key(*name));
        Ok(known.any(|name| !has.iter().any(|database| database.name == *name)))
    }

    /// A leaf takes part from now on.
    fn let_in(&self, address: &str) -> Result<()> {
        // What was done for it may have taken longer than a leaf may be silent.
        if let Some((id, _)) = self.catalog().leaf(address) {
            self.supervision.heard(id);
        }
        self.decide(&Command::SetLeafState { address: address.to_owned(), state: LeafState::Online })
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
    pub(crate) fn statement(
        &self,
        statement: &ClusterStatement,
        shared: &Shared,
        asker: &Asker<'_>,
        cancel: &CancelToken,
    ) -> Result<Outcome> {
        let done = match statement {
            ClusterStatement::CreateDatabase { name, if_not_exists, partitions, redundancy, durability } => {
                if *if_not_exists && self.catalog().database(name).is_ok() {
                    format!("database {name} is there already")
                } else {
                    self.create_database(name, *partitions, *redundancy, *durability == Some(Durability::Async))?
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
            ClusterStatement::RemoveLeaf { address, force } => self.remove_leaf(address, *force, cancel)?,
            ClusterStatement::AttachLeaf { address } => self.attach_leaf(shared, address.as_deref())?,
            ClusterStatement::DetachLeaf { address, force } => self.detach_leaf(address, *force)?,
            ClusterStatement::Move { kind, database, explain: false } => self.move_copies(*kind, database.as_deref(), cancel)?,
            ClusterStatement::Move { kind, database, explain: true } => return self.explain_move(*kind, database.as_deref()),
            ClusterStatement::CancelMove { database } => self.cancel_move(database.as_deref())?,
            ClusterStatement::ShowMoves { database } => return self.show_moves(database.as_deref()),
            ClusterStatement::ClearOrphans { explain } => return self.clear_orphans(*explain),
            ClusterStatement::Recover { leaves, explain: true } => return self.explain_recover(leaves),
            ClusterStatement::Recover { leaves, explain: false } => self.recover(leaves)?,
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

/// The redundancy of a database that does not say: two copies where there are leaves for both.
fn usual_redundancy(catalog: &Catalog) -> u8 {
    let online = |group: u8| catalog.leaves.values().any(|leaf| leaf.state == LeafState::Online && leaf.group == group);
    if GROUPS.into_iter().all(online) { 2 } else { 1 }
}

/// Pairs, where every leaf has its pair; otherwise some leaves would have nothing.
fn usual_placement(catalog: &Catalog) -> PlacementKind {
    let online = |id| catalog.leaves.get(&id).is_some_and(|leaf| leaf.state == LeafState::Online);
    let mut leaves = catalog.leaves.values().filter(|leaf| leaf.state == LeafState::Online);
    if leaves.all(|leaf| leaf.pair.is_some_and(online)) { PlacementKind::Paired } else { PlacementKind::LoadBalanced }
}

fn invalid(error: impl std::fmt::Display) -> Error {
    Error::Invalid(error.to_string())
}

fn view_of(catalog: &Catalog, name: &str) -> Result<cluster::Database> {
    catalog.database(name).map(|database| view(catalog, database)).map_err(invalid)
}

/// A database as sessions see it.
fn view(catalog: &Catalog, database: &CatalogDatabase) -> cluster::Database {
    let online =
        |id: &NodeId| catalog.leaves.get(id).filter(|leaf| leaf.state == LeafState::Online).map(|leaf| leaf.address.clone());
    let away = |(ordinal, partition): (u32, &Partition)| {
        let address = |id| catalog.leaves.get(&id).map(|leaf| leaf.address.clone());
        let offline = partition.copies.master.as_ref().and_then(online).is_none();
        offline.then(|| (ordinal, partition.copies.all().filter_map(address).collect()))
    };
    cluster::Database {
        name: database.name.to_lowercase(),
        masters: database.partitions.iter().map(|p| p.copies.master.as_ref().and_then(online)).collect(),
        away: (0u32..).zip(&database.partitions).filter_map(away).collect(),
        leaves: catalog.leaves.keys().filter_map(online).collect(),
        reference: catalog.leaves.values().filter(|leaf| !leaf.behind).map(|leaf| leaf.address.clone()).collect(),
        held: catalog.leaves.values().find(|leaf| leaf.receives).map(|leaf| leaf.address.clone()),
        tables: database.tables.iter().map(|(key, definition)| (key.clone(), definition.table().clone())).collect(),
        views: database.views.clone(),
        read: None,
    }
}
