//! Users and what they may do.
//!
//! As long as there are no users nobody is asked who he is. The first user may do everything, and users never lack one who may
//! administer the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Catalog, CatalogError, missing};

/// Most bytes in a name of a user.
const MAX_NAME: usize = 128;

/// A name as it is compared.
fn key(name: &str) -> String {
    name.to_lowercase()
}

/// One thing that a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Privilege {
    /// Read rows.
    Select,
    /// Add rows.
    Insert,
    /// Change rows.
    Update,
    /// Delete rows.
    Delete,
    /// Make databases, tables and views.
    Create,
    /// Drop databases, tables and views, or all rows of a table.
    Drop,
    /// Change the definitions of tables, and how they are stored.
    Alter,
    /// Administer the cluster: nodes, users, rebalance. Everywhere or not at all.
    Cluster,
}

impl Privilege {
    /// Every privilege.
    pub const ALL: [Privilege; 8] = [
        Privilege::Select,
        Privilege::Insert,
        Privilege::Update,
        Privilege::Delete,
        Privilege::Create,
        Privilege::Drop,
        Privilege::Alter,
        Privilege::Cluster,
    ];

    /// The privilege that SQL calls so.
    #[must_use]
    pub fn parse(name: &str) -> Option<Privilege> {
        Privilege::ALL.into_iter().find(|privilege| privilege.to_string().eq_ignore_ascii_case(name))
    }

    /// What ALL means: everything that can be granted on this scope.
    #[must_use]
    pub fn all_on(scope: &Scope) -> BTreeSet<Privilege> {
        let fits = |privilege: &Privilege| *scope == Scope::Everywhere || *privilege != Privilege::Cluster;
        Privilege::ALL.into_iter().filter(fits).collect()
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Privilege::Select => "SELECT",
            Privilege::Insert => "INSERT",
            Privilege::Update => "UPDATE",
            Privilege::Delete => "DELETE",
            Privilege::Create => "CREATE",
            Privilege::Drop => "DROP",
            Privilege::Alter => "ALTER",
            Privilege::Cluster => "CLUSTER",
        })
    }
}

/// What a privilege is granted on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// `*.*`
    Everywhere,
    /// `database.*`
    Database(String),
    /// `database.table`; a view counts as a table.
    Table(String, String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Everywhere => f.write_str("*.*"),
            Scope::Database(database) => write!(f, "{database}.*"),
            Scope::Table(database, table) => write!(f, "{database}.{table}"),
        }
    }
}

/// What was granted to a user, by scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// On `*.*`.
    pub everywhere: BTreeSet<Privilege>,
    /// On `database.*`, by the database's name in lower case.
    pub databases: BTreeMap<String, BTreeSet<Privilege>>,
    /// On `database.table`, by both names in lower case.
    pub tables: BTreeMap<String, BTreeMap<String, BTreeSet<Privilege>>>,
}

impl Grants {
    /// The privileges granted on exactly this scope, to change them.
    fn on(&mut self, scope: &Scope) -> &mut BTreeSet<Privilege> {
        match scope {
            Scope::Everywhere => &mut self.everywhere,
            Scope::Database(database) => self.databases.entry(key(database)).or_default(),
            Scope::Table(database, table) => self.tables.entry(key(database)).or_default().entry(key(table)).or_default(),
        }
    }

    /// Forgets scopes on which nothing is granted.
    fn tidy(&mut self) {
        self.databases.retain(|_, privileges| !privileges.is_empty());
        self.tables.values_mut().for_each(|tables| tables.retain(|_, privileges| !privileges.is_empty()));
        self.tables.retain(|_, tables| !tables.is_empty());
    }

    /// Whether a privilege on this scope follows from what was granted on it or on one that contains it.
    #[must_use]
    pub fn allow(&self, privilege: Privilege, scope: &Scope) -> bool {
        let database = |name: &str| self.databases.get(&key(name)).is_some_and(|set| set.contains(&privilege));
        let table = |database: &str, table: &str| {
            self.tables.get(&key(database)).and_then(|tables| tables.get(&key(table))).is_some_and(|set| set.contains(&privilege))
        };
        self.everywhere.contains(&privilege)
            || match scope {
                Scope::Everywhere => false,
                Scope::Database(name) => database(name),
                Scope::Table(name, of) => database(name) || table(name, of),
            }
    }

    /// Everything granted, as (scope, privileges).
    #[must_use]
    pub fn list(&self) -> Vec<(Scope, BTreeSet<Privilege>)> {
        let mut all = vec![(Scope::Everywhere, self.everywhere.clone())];
        all.extend(self.databases.iter().map(|(name, set)| (Scope::Database(name.clone()), set.clone())));
        for (database, tables) in &self.tables {
            all.extend(tables.iter().map(|(table, set)| (Scope::Table(database.clone(), table.clone()), set.clone())));
        }
        all.retain(|(_, privileges)| !privileges.is_empty());
        all
    }
}

/// A user.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its name, as written.
    pub name: String,
    /// The hash of its password, in the form of whoever checks it.
    pub password_hash: String,
    /// What it may do.
    pub grants: Grants,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).field("grants", &self.grants).finish_non_exhaustive()
    }
}

type Result = std::result::Result<(), CatalogError>;

impl Catalog {
    /// A user, by its name without regard to case.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(&key(name))
    }

    /// Whether a user may do something. Somebody that the catalog does not know may do nothing.
    #[must_use]
    pub fn allows(&self, user: &str, privilege: Privilege, scope: &Scope) -> bool {
        self.user(user).is_some_and(|user| user.grants.allow(privilege, scope))
    }

    pub(super) fn create_user(&mut self, name: &str, password_hash: &str) -> Result {
        if name.trim().is_empty() || name.len() > MAX_NAME || name.contains(char::is_control) {
            let shown: String = name.chars().take(40).collect();
            return Err(CatalogError::Refused(format!("{shown:?} cannot be the name of a user")));
        }
        if self.user(name).is_some() {
            return Err(CatalogError::Exists { kind: "user", name: name.to_owned() });
        }
        let mut grants = Grants::default();
        if self.users.is_empty() {
            grants.everywhere = Privilege::all_on(&Scope::Everywhere);
        }
        self.users.insert(key(name), User { name: name.to_owned(), password_hash: password_hash.to_owned(), grants });
        Ok(())
    }

    pub(super) fn set_password(&mut self, name: &str, password_hash: &str) -> Result {
        self.user_mut(name)?.password_hash = password_hash.to_owned();
        Ok(())
    }

    pub(super) fn drop_user(&mut self, name: &str) -> Result {
        self.user_mut(name)?;
        self.check_administered(name, |other| other != key(name), self.users.len() > 1)?;
        self.users.remove(&key(name));
        Ok(())
    }

    pub(super) fn grant(&mut self, user: &str, privileges: &BTreeSet<Privilege>, scope: &Scope) -> Result {
        self.check_scope(scope)?;
        if privileges.contains(&Privilege::Cluster) && *scope != Scope::Everywhere {
            return Err(CatalogError::Refused(format!("CLUSTER cannot be granted on {scope}: grant it on *.*")));
        }
        let grants = &mut self.user_mut(user)?.grants;
        grants.on(scope).extend(privileges);
        grants.tidy();
        Ok(())
    }

    pub(super) fn revoke(&mut self, user: &str, privileges: &BTreeSet<Privilege>, scope: &Scope) -> Result {
        let mut grants = self.user_mut(user)?.grants.clone();
        let granted = grants.on(scope);
        let before = granted.len();
        granted.retain(|privilege| !privileges.contains(privilege));
        if granted.len() == before {
            let names: Vec<String> = privileges.iter().map(ToString::to_string).collect();
            let wider = privileges.iter().any(|privilege| grants.allow(*privilege, scope));
            let hint = if wider { "; it was granted on a wider scope: revoke it there" } else { "" };
            let what = format!("user '{user}' was not granted {} on {scope}{hint}", names.join(", "));
            return Err(CatalogError::Refused(what));
        }
        if *scope == Scope::Everywhere && privileges.contains(&Privilege::Cluster) {
            self.check_administered(user, |other| other != key(user), true)?;
        }
        grants.tidy();
        self.user_mut(user)?.grants = grants;
        Ok(())
    }

    /// Grants on a database, or on one table or view of it, go with it: what comes under that name later does not inherit them.
    pub(super) fn forget_grants(&mut self, database: &str, table: Option<&str>) {
        for user in self.users.values_mut() {
            let grants = &mut user.grants;
            match table {
                Some(table) => {
                    grants.tables.get_mut(&key(database)).map(|tables| tables.remove(&key(table)));
                }
                None => {
                    grants.tables.remove(&key(database));
                    grants.databases.remove(&key(database));
                }
            }
            grants.tidy();
        }
    }

    fn user_mut(&mut self, name: &str) -> std::result::Result<&mut User, CatalogError> {
        self.users.get_mut(&key(name)).ok_or_else(|| missing("user", name))
    }

    /// Refuses a scope that does not exist.
    fn check_scope(&self, scope: &Scope) -> Result {
        match scope {
            Scope::Everywhere => Ok(()),
            Scope::Database(database) => self.database(database).map(drop),
            Scope::Table(database, table) => {
                let of = self.database(database)?;
                let found = of.tables.contains_key(&key(table)) || of.views.contains_key(&key(table));
                if found { Ok(()) } else { Err(missing("table or view", table)) }
            }
        }
    }

    /// Refuses a change after which nobody among the users that `stay` may administer the cluster, if `needed`.
    fn check_administered(&self, last: &str, stay: impl Fn(&str) -> bool, needed: bool) -> Result {
        let administers = |(name, user): (&String, &User)| stay(name) && user.grants.everywhere.contains(&Privilege::Cluster);
        if !needed || self.users.iter().any(administers) {
            return Ok(());
        }
        let what = format!("user '{last}' is the last who may administer the cluster: GRANT CLUSTER ON *.* to another first");
        Err(CatalogError::Refused(what))
    }
}
