//! The catalog: which leaves, databases, tables and partitions there are, as a state machine.
//!
//! [`Catalog::apply`] is the only way to change it: the same commands in the same order give the same catalog on every coordinator. A
//! command that fails changes nothing. What stays true:
//! - every master and replica of a partition is a leaf of the catalog;
//! - a partition's term never goes down, and goes up whenever its master changes;
//! - the copies of a partition with a role are in different availability groups, and a partition has no two copies on one leaf;
//! - names of databases, of users, and of tables and views within a database, are unique without regard to case.

mod coordinators;
mod definition;
mod roles;
#[cfg(test)]
mod tests;
mod users;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::placement::{self, Copies, PlacementKind};

pub use coordinators::Coordinator;
pub use definition::Definition;
pub use roles::PartitionChange;
pub use users::{Grants, Privilege, Scope, User};

/// Names a node for as long as the cluster lives; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub u64);

/// Whether a leaf takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeafState {
    /// It answers and serves.
    #[default]
    Online,
    /// It does not answer.
    Offline,
    /// It may answer, but an operator took it out.
    Detached,
}

/// A leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// Where it listens, HOST:PORT.
    pub address: String,
    /// Its availability group, 1 or 2.
    pub group: u8,
    /// Its pair in the other group.
    pub pair: Option<NodeId>,
    /// Whether it takes part.
    pub state: LeafState,
    /// REFERENCE tables may have been changed while it was away: it takes part again once it has a new copy of them. Until then no change
    /// of them is acknowledged without it, wherever it is.
    #[serde(default)]
    pub behind: bool,
    /// It is given a new copy of the REFERENCE tables, and nobody changes them meanwhile.
    #[serde(default)]
    pub receives: bool,
    /// The version of the catalog since which it takes no part. Who knows that version was alive after it was lost.
    #[serde(default)]
    pub left: u64,
}

/// A partition of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Counts its masters: who acts for an older term is refused.
    pub term: u64,
    /// Where its copies are.
    pub copies: Copies,
}

/// A database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Its name as written.
    pub name: String,
    /// Copies of every partition.
    pub redundancy: u8,
    /// How second copies are spread.
    pub placement: PlacementKind,
    /// Partitions, by ordinal.
    pub partitions: Vec<Partition>,
    /// Tables, by name in lower case.
    pub tables: BTreeMap<String, Definition>,
    /// Views, by name in lower case: name as written and text.
    pub views: BTreeMap<String, (String, String)>,
    /// What an operator wants done with the copies, until it is done.
    #[serde(default)]
    pub job: Option<Job>,
    /// Whether rows count before they are on disk: `DURABILITY ASYNC`.
    #[serde(default)]
    pub asynchronous: bool,
}

/// What an operator wants done with the copies of a database. Steps are planned anew from the copies that there are, so that whoever
/// leads goes on where another stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Job {
    /// Copies and masters are spread evenly.
    Rebalance,
    /// They are spread evenly together with those of the other databases.
    RebalanceFull,
    /// Partitions without a replica get one; nothing else moves.
    RestoreRedundancy,
    /// A leaf is emptied.
    Drain(NodeId),
}

/// The catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// Counts the commands that changed it.
    pub version: u64,
    /// The last number that was given to a node.
    pub last_node: u64,
    /// The leaves.
    pub leaves: BTreeMap<NodeId, Leaf>,
    /// The databases, by name in lower case.
    pub databases: BTreeMap<String, Database>,
    /// The coordinators.
    #[serde(default)]
    pub coordinators: BTreeMap<NodeId, Coordinator>,
    /// The users, by name in lower case.
    #[serde(default)]
    pub users: BTreeMap<String, User>,
}

/// A change of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A leaf joins.
    AddLeaf {
        /// Where it listens.
        address: String,
        /// Its availability group; otherwise the smaller one.
        group: Option<u8>,
    },
    /// A leaf leaves.
    RemoveLeaf {
        /// Where it listens.
        address: String,
        /// Also if it has partitions; they are off line then unless another leaf has them.
        force: bool,
    },
    /// A database is made.
    CreateDatabase {
        /// Its name.
        name: String,
        /// Partitions of its tables.
        partitions: u32,
        /// Copies of every partition.
        redundancy: u8,
        /// How second copies are spread.
        placement: PlacementKind,
        /// Whether rows count before they are on disk.
        #[serde(default)]
        asynchronous: bool,
    },
    /// A database is there, with all that is in it, on leaves that have it already.
    AddDatabase(Box<Database>),
    /// The catalog of a cluster whose coordinators are lost takes the place of an empty one.
    Recover(Box<Catalog>),
    /// A database goes with all that is in it.
    DropDatabase(String),
    /// A table is added.
    CreateTable {
        /// The database.
        database: String,
        /// The table.
        definition: Definition,
    },
    /// A table goes.
    DropTable {
        /// The database.
        database: String,
        /// The table.
        table: String,
    },
    /// A view is added, or replaced.
    CreateView {
        /// The database.
        database: String,
        /// The view.
        name: String,
        /// Its text.
        sql: String,
        /// Whether one of this name may be there.
        or_replace: bool,
    },
    /// A view goes.
    DropView {
        /// The database.
        database: String,
        /// The view.
        name: String,
    },
    /// A leaf joins that has no REFERENCE tables yet: it takes part once it has been given them.
    Join {
        /// Where it listens.
        address: String,
        /// Its availability group; otherwise the smaller one.
        group: Option<u8>,
    },
    /// Changes of REFERENCE tables go on without a leaf that takes no part: another one is known to be alive, which has all of them.
    FallBehind {
        /// Where it listens.
        address: String,
    },
    /// A leaf that is behind is given the REFERENCE tables. Nobody changes them until it takes part or falls behind again: their
    /// definitions get another version, so that leaves refuse whoever does not know.
    Receive {
        /// Where it listens.
        address: String,
    },
    /// A leaf changes its state. No role changes by that. One that is behind takes part only after it was given the REFERENCE tables.
    SetLeafState {
        /// Where it listens.
        address: String,
        /// What it is from now on.
        state: LeafState,
    },
    /// A coordinator joins.
    AddCoordinator {
        /// Where it listens.
        address: String,
    },
    /// A coordinator leaves.
    RemoveCoordinator {
        /// Where it listens.
        address: String,
    },
    /// New roles for copies of partitions: all of them or none. A change of the master begins a new term.
    SetPartitions(Vec<PartitionChange>),
    /// A user is made. The first one may do everything, so that there is always somebody who may administer the cluster.
    CreateUser {
        /// Its name.
        name: String,
        /// The hash of its password, in the form of whoever checks it.
        password_hash: String,
    },
    /// A user gets a new password.
    SetPassword {
        /// Whose.
        name: String,
        /// The hash of the new password.
        password_hash: String,
    },
    /// A user goes.
    DropUser(String),
    /// A user may do more.
    Grant {
        /// Who.
        user: String,
        /// What.
        privileges: BTreeSet<Privilege>,
        /// On what.
        scope: Scope,
    },
    /// A user may do less.
    Revoke {
        /// Who.
        user: String,
        /// What.
        privileges: BTreeSet<Privilege>,
        /// On what, as it was granted.
        scope: Scope,
    },
    /// A leaf takes no part any more. Replicas that are in sync take over where it was the master, in a new term; where there is none,
    /// the partition is off line until one is back. Its own copies are still waited for, and may take over, until a master that is known
    /// to have been alive after this goes on without them.
    TakeOut {
        /// Where it listens.
        address: String,
        /// Off line or detached.
        state: LeafState,
    },
    /// A partition's master begins a new term: its log failed, and what was not acknowledged is given up.
    BeginTerm {
        /// The database.
        database: String,
        /// The partition's ordinal.
        partition: u32,
        /// The term that ends.
        term: u64,
    },
    /// An operator wants something done with the copies of a database, or it is done or given up.
    SetJob {
        /// The database.
        database: String,
        /// What; none: nothing.
        job: Option<Job>,
    },
    /// A table gets another definition.
    AlterTable {
        /// The database.
        database: String,
        /// The version of the definition that was altered.
        before: u64,
        /// The definition from now on, of a later version.
        definition: Definition,
    },
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// What is to be made is there.
    #[error("{kind} '{name}' is there already")]
    Exists {
        /// What it is.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// What is to be changed is not there.
    #[error("there is no {kind} '{name}'")]
    Missing {
        /// What it is.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A leaf that is to go has partitions.
    #[error("leaf {address} has {partitions} partitions: move them away first, or say FORCE to give them up")]
    InUse {
        /// The leaf.
        address: String,
        /// Copies of partitions on it.
        partitions: usize,
    },
    /// There is no group of this number.
    #[error("there is no availability group {0}: it is 1 or 2")]
    Group(u8),
    /// A number of partitions that cannot be.
    #[error("a database has 1 to {most} partitions, not {0}", most = stoa_columnstore::MAX_PARTITIONS)]
    Partitions(u32),
    /// No placement.
    #[error(transparent)]
    Placement(#[from] placement::PlacementError),
    /// It does not fit the catalog.
    #[error("{0}")]
    Refused(String),
    /// It was decided on an older state than the present one: look again.
    #[error("{0}")]
    Stale(String),
}

type Applied = Result<(), CatalogError>;

impl Catalog {
    /// Changes the catalog.
    ///
    /// # Errors
    /// Why it cannot be changed so; nothing has changed then.
    pub fn apply(&mut self, command: &Command) -> Applied {
        match command {
            Command::AddLeaf { address, group } => self.add_leaf(address, *group)?,
            Command::RemoveLeaf { address, force } => self.remove_leaf(address, *force)?,
            Command::CreateDatabase { name, partitions, redundancy, placement, asynchronous } => {
                self.create_database(name, *partitions, *redundancy, *placement, *asynchronous)?;
            }
            Command::Recover(catalog) => self.recover(catalog)?,
            Command::AddDatabase(database) => self.add_database(database)?,
            Command::DropDatabase(name) => {
                self.databases.remove(&name.to_lowercase()).ok_or_else(|| missing("database", name))?;
                self.forget_grants(name, None);
            }
            Command::CreateTable { database, definition } => {
                let name = definition.table().name.clone();
                let database = self.database_mut(database)?;
                database.check_free(&name)?;
                database.tables.insert(name.to_lowercase(), definition.clone());
            }
            Command::DropTable { database, table } => {
                let removed = self.database_mut(database)?.tables.remove(&table.to_lowercase());
                removed.ok_or_else(|| missing("table", table))?;
                self.forget_grants(database, Some(table));
            }
            Command::AlterTable { database, before, definition } => self.alter_table(database, *before, definition)?,
            Command::CreateView { database, name, sql, or_replace } => {
                let database = self.database_mut(database)?;
                if !(*or_replace && database.views.contains_key(&name.to_lowercase())) {
                    database.check_free(name)?;
                }
                database.views.insert(name.to_lowercase(), (name.clone(), sql.clone()));
            }
            Command::DropView { database, name } => {
                let removed = self.database_mut(database)?.views.remove(&name.to_lowercase());
                removed.ok_or_else(|| missing("view", name))?;
                self.forget_grants(database, Some(name));
            }
            Command::SetLeafState { address, state } => self.set_leaf_state(address, *state)?,
            Command::Join { address, group } => {
                self.add_leaf(address, *group)?;
                self.leaves.values_mut().filter(|leaf| leaf.address == *address).for_each(|leaf| {
                    (leaf.state, leaf.behind, leaf.left) = (LeafState::Offline, true, self.version + 1);
                });
            }
            Command::FallBehind { address } => self.fall_behind(address)?,
            Command::Receive { address } => self.receive(address)?,
            Command::AddCoordinator { address } => self.add_coordinator(address)?,
            Command::RemoveCoordinator { address } => self.remove_coordinator(address)?,
            Command::SetPartitions(changes) => {
                // The one command of several parts: done on a copy, so that it is all or nothing.
                let mut next = self.clone();
                next.set_partitions(changes)?;
                *self = next;
            }
            Command::CreateUser { name, password_hash } => self.create_user(name, password_hash)?,
            Command::SetPassword { name, password_hash } => self.set_password(name, password_hash)?,
            Command::DropUser(name) => self.drop_user(name)?,
            Command::Grant { user, privileges, scope } => self.grant(user, privileges, scope)?,
            Command::Revoke { user, privileges, scope } => self.revoke(user, privileges, scope)?,
            Command::TakeOut { address, state } => self.take_out(address, *state)?,
            Command::BeginTerm { database, partition, term } => self.begin_term(database, *partition, *term)?,
            Command::SetJob { database, job } => self.set_job(database, *job)?,
        }
        self.version += 1;
        Ok(())
    }

    /// A database, by its name without regard to case.
    ///
    /// # Errors
    /// If there is none.
    pub fn database(&self, name: &str) -> Result<&Database, CatalogError> {
        self.databases.get(&name.to_lowercase()).ok_or_else(|| missing("database", name))
    }

    fn database_mut(&mut self, name: &str) -> Result<&mut Database, CatalogError> {
        self.databases.get_mut(&name.to_lowercase()).ok_or_else(|| missing("database", name))
    }

    /// The leaf that listens at an address.
    #[must_use]
    pub fn leaf(&self, address: &str) -> Option<(NodeId, &Leaf)> {
        self.leaves.iter().find(|(_, leaf)| leaf.address == address).map(|(id, leaf)| (*id, leaf))
    }

    fn add_leaf(&mut self, address: &str, group: Option<u8>) -> Applied {
        if self.leaf(address).is_some() {
            return Err(CatalogError::Exists { kind: "leaf", name: address.to_owned() });
        }
        if self.coordinator(address).is_some() {
            return Err(CatalogError::Refused(format!("{address} is a coordinator of this cluster")));
        }
        let in_group = |group: u8| self.leaves.values().filter(|leaf| leaf.group == group).count();
        let group = match group {
            Some(group) if placement::GROUPS.contains(&group) => group,
            Some(group) => return Err(CatalogError::Group(group)),
            None if in_group(2) < in_group(1) => 2,
            None => 1,
        };
        let id = NodeId(self.last_node + 1);
        self.last_node += 1;
        let (address, state) = (address.to_owned(), LeafState::Online);
        self.leaves.insert(id, Leaf { address, group, pair: None, state, behind: false, receives: false, left: 0 });
        self.pair_up();
        Ok(())
    }

    fn alter_table(&mut self, database: &str, before: u64, definition: &Definition) -> Applied {
        let def = definition.table();
        let table = self.database_mut(database)?.tables.get_mut(&def.name.to_lowercase());
        let table = table.ok_or_else(|| missing("table", &def.name))?;
        if table.table().version() != before || def.version() <= before {
            return Err(CatalogError::Stale(format!("table '{}' was altered by another statement: try again", def.name)));
        }
        *table = definition.clone();
        Ok(())
    }

    fn remove_leaf(&mut self, address: &str, force: bool) -> Applied {
        let (id, _) = self.leaf(address).ok_or_else(|| missing("leaf", address))?;
        let partitions = self.databases.values().flat_map(|d| &d.partitions);
        let held = partitions.filter(|p| p.copies.all().any(|copy| copy == id)).count();
        if held > 0 && !force {
            return Err(CatalogError::InUse { address: address.to_owned(), partitions: held });
        }
        self.leaves.remove(&id);
        self.leaves.values_mut().filter(|leaf| leaf.pair == Some(id)).for_each(|leaf| leaf.pair = None);
        for partition in self.databases.values_mut().flat_map(|d| &mut d.partitions) {
            partition.give_up(id);
        }
        self.pair_up();
        Ok(())
    }

    /// Pairs leaves that have no pair, those that joined first.
    fn pair_up(&mut self) {
        loop {
            let single = |group: u8| self.leaves.iter().find(|(_, l)| l.group == group && l.pair.is_none()).map(|(id, _)| *id);
            let [first, second] = placement::GROUPS.map(single);
            let (Some(first), Some(second)) = (first, second) else { return };
            self.leaves.entry(first).and_modify(|leaf| leaf.pair = Some(second));
            self.leaves.entry(second).and_modify(|leaf| leaf.pair = Some(first));
        }
    }

    fn create_database(
        &mut self,
        name: &str,
        partitions: u32,
        redundancy: u8,
        kind: PlacementKind,
        asynchronous: bool,
    ) -> Applied {
        if self.databases.contains_key(&name.to_lowercase()) {
            return Err(CatalogError::Exists { kind: "database", name: name.to_owned() });
        }
        if partitions == 0 || partitions > stoa_columnstore::MAX_PARTITIONS {
            return Err(CatalogError::Partitions(partitions));
        }
        let online = self.leaves.iter().filter(|(_, leaf)| leaf.state == LeafState::Online);
        let leaves: Vec<placement::Leaf> =
            online.map(|(id, leaf)| placement::Leaf { id: *id, group: leaf.group, pair: leaf.pair, draining: false }).collect();
        // A replica counts once it has what the master has, be it nothing.
        let placed = placement::place(partitions, redundancy, kind, &leaves)?;
        let database = Database {
            name: name.to_owned(),
            redundancy,
            placement: kind,
            partitions: placed.into_iter().map(|copies| Partition { term: 1, copies: copies.unsynced() }).collect(),
            tables: BTreeMap::new(),
            views: BTreeMap::new(),
            job: None,
            asynchronous,
        };
        self.databases.insert(name.to_lowercase(), database);
        Ok(())
    }

    /// The coordinators, and the users that only this one knows, stay.
    fn recover(&mut self, catalog: &Catalog) -> Applied {
        if !self.leaves.is_empty() || !self.databases.is_empty() {
            return Err(CatalogError::Refused("the catalog has leaves or databases already".to_owned()));
        }
        let mut users = catalog.users.clone();
        for (name, user) in &self.users {
            users.entry(name.clone()).or_insert_with(|| user.clone());
        }
        let (version, last_node) = (self.version.max(catalog.version), self.last_node.max(catalog.last_node));
        *self = Catalog { version, last_node, users, coordinators: std::mem::take(&mut self.coordinators), ..catalog.clone() };
        self.outdo_definitions();
        Ok(())
    }

    fn add_database(&mut self, database: &Database) -> Applied {
        let name = &database.name;
        if self.databases.contains_key(&name.to_lowercase()) {
            return Err(CatalogError::Exists { kind: "database", name: name.clone() });
        }
        let online = |id: NodeId| self.leaves.get(&id).is_some_and(|leaf| leaf.state == LeafState::Online);
        let served = |partition: &Partition| {
            partition.copies.master.is_some_and(online) && partition.copies.all().all(|id| self.leaves.contains_key(&id))
        };
        if !database.partitions.iter().all(served) {
            return Err(CatalogError::Stale(format!("leaves went away while database '{name}' was made: make it again")));
        }
        self.databases.insert(name.to_lowercase(), database.clone());
        self.outdo_definitions();
        Ok(())
    }

    /// Definitions get the version of the catalog that they are made in: those that came from elsewhere are earlier than the next one.
    fn outdo_definitions(&mut self) {
        let tables = self.databases.values().flat_map(|database| database.tables.values());
        self.version = tables.map(|table| table.table().version()).fold(self.version, u64::max);
    }
}

impl Database {
    fn check_free(&self, name: &str) -> Applied {
        let key = name.to_lowercase();
        if self.tables.contains_key(&key) || self.views.contains_key(&key) {
            return Err(CatalogError::Exists { kind: "table or view", name: name.to_owned() });
        }
        Ok(())
    }
}

fn missing(kind: &'static str, name: &str) -> CatalogError {
    CatalogError::Missing { kind, name: name.to_owned() }
}
