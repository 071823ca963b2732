//! Who may do what. As long as a cluster has no users, everybody who knows its secret may do everything; once it has some, clients need
//! none but their password. Whoever knows the secret is a node to the others, and may ask for anything as one.

use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use parking_lot::Mutex;
use stoa_sql::{ClusterStatement, Insert, OnDuplicate, Statement, UserStatement};

use crate::catalog::{Catalog, Privilege, Scope};
use crate::{Error, Result};

/// The user of what a cluster does by itself; clients cannot have this name.
pub(crate) const CLUSTER: &str = "";

/// The hash of nobody's password.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c3RvYXN0b2FzdG9h$wnP7Gp8WzSxS9dYsKp8ZVhnvFZGpu1iB8xZ4Y7p5Y0I";

/// A password is checked with 19 MiB of memory: one at a time.
static CHECKING: Mutex<()> = Mutex::new(());

/// What the catalog keeps of a password: an Argon2id hash with its salt, as a PHC string.
///
/// # Errors
/// If the system gives no random salt.
pub(crate) fn hash(password: &str) -> Result<String> {
    let _one = CHECKING.lock();
    let hash = Argon2::default().hash_password(password.as_bytes());
    Ok(hash.map_err(|e| Error::Invalid(format!("the password cannot be hashed: {e}")))?.to_string())
}

fn fits(password: &str, hash: &str) -> bool {
    let _one = CHECKING.lock();
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// Lets a user in, or not. It does not tell, not even by the time it takes, whether there is a user of that name.
pub(crate) fn enter(catalog: &Catalog, user: &str, password: &str, knows_secret: bool) -> Result<()> {
    if catalog.users.is_empty() {
        let what = "the cluster has no users yet: whoever enters needs its secret";
        return if knows_secret { Ok(()) } else { Err(Error::Denied(what.into())) };
    }
    let known = catalog.user(user);
    let right = fits(password, known.map_or(NOBODY, |user| &user.password_hash));
    if right && known.is_some() { Ok(()) } else { Err(Error::Denied(format!("user '{user}' or the password is wrong"))) }
}

/// What a user of a database asks of the catalog.
pub(crate) struct Asker<'a> {
    pub catalog: Arc<Catalog>,
    pub user: &'a str,
    pub database: &'a str,
}

impl Asker<'_> {
    /// Whether the user may do something.
    pub fn may(&self, privilege: Privilege, scope: &Scope) -> bool {
        self.catalog.users.is_empty() || self.user == CLUSTER || self.catalog.allows(self.user, privilege, scope)
    }

    /// The user may do something.
    pub fn check(&self, privilege: Privilege, scope: &Scope) -> Result<()> {
        if self.may(privilege, scope) {
            return Ok(());
        }
        if self.catalog.user(self.user).is_none() {
            return Err(Error::Denied(format!("there is no user '{}' any more: log in as another one", self.user)));
        }
        let way_out = format!("GRANT {privilege} ON {scope} TO '{}'", self.user);
        Err(Error::Denied(format!("user '{}' may not {privilege} on {scope}: {way_out} allows it", self.user)))
    }

    /// The user may do something with a table or view of the database.
    pub fn check_table(&self, privilege: Privilege, table: &str) -> Result<()> {
        self.check(privilege, &self.table(table))
    }

    /// A table or view of the database.
    pub fn table(&self, table: &str) -> Scope {
        Scope::Table(self.database.to_owned(), table.to_lowercase())
    }

    fn here(&self) -> Scope {
        Scope::Database(self.database.to_owned())
    }

    /// The user may run a statement, as far as that does not depend on which tables it reads.
    pub fn check_statement(&self, statement: &Statement) -> Result<()> {
        match statement {
            Statement::Query(_) | Statement::Explain { .. } | Statement::ShowTables => Ok(()),
            Statement::CreateTable(_) | Statement::CreateTableAs { .. } | Statement::CreateView { .. } => {
                self.check(Privilege::Create, &self.here())
            }
            Statement::DropTable { names, .. } | Statement::DropView { names, .. } => {
                names.iter().try_for_each(|name| self.check_table(Privilege::Drop, name))
            }
            Statement::Insert(insert) => self.check_insert(insert),
            Statement::Update(update) => self.check_table(Privilege::Update, &update.table),
            Statement::Delete(delete) => self.check_table(Privilege::Delete, &delete.table),
            Statement::Truncate { table } => self.check_table(Privilege::Drop, table),
            Statement::Alter(alter) => self.check_table(Privilege::Alter, &alter.table),
            Statement::Optimize { table, .. } => self.check_table(Privilege::Alter, table),
            Statement::Begin | Statement::Commit | Statement::Rollback => Ok(()),
            Statement::ShowMergeStatus { table: Some(table) } => self.check_described(table),
            Statement::ShowMergeStatus { table: None } => self.check(Privilege::Cluster, &Scope::Everywhere),
            Statement::Backup { .. } | Statement::Restore { .. } => self.check(Privilege::Cluster, &Scope::Everywhere),
            Statement::Describe { name } => self.check_described(name),
            Statement::Cluster(statement) => self.check_cluster(statement),
            Statement::User(UserStatement::SetPassword { name, .. }) if name.eq_ignore_ascii_case(self.user) => Ok(()),
            Statement::User(UserStatement::ShowGrants { user: None }) => Ok(()),
            Statement::User(_) => self.check(Privilege::Cluster, &Scope::Everywhere),
        }
    }

    fn check_insert(&self, insert: &Insert) -> Result<()> {
        self.check_table(Privilege::Insert, &insert.table)?;
        match insert.on_duplicate {
            OnDuplicate::Refuse => Ok(()),
            OnDuplicate::Replace => self.check_table(Privilege::Delete, &insert.table),
            OnDuplicate::Update => self.check_table(Privilege::Update, &insert.table),
        }
    }

    /// Who may read or fill a table may know its columns.
    pub fn check_described(&self, table: &str) -> Result<()> {
        if self.may(Privilege::Insert, &self.table(table)) { Ok(()) } else { self.check_table(Privilege::Select, table) }
    }

    fn check_cluster(&self, statement: &ClusterStatement) -> Result<()> {
        match statement {
            ClusterStatement::CreateDatabase { name, .. } => self.check(Privilege::Create, &Scope::Database(name.clone())),
            ClusterStatement::DropDatabase { name, .. } => self.check(Privilege::Drop, &Scope::Database(name.clone())),
            ClusterStatement::AddLeaf { .. }
            | ClusterStatement::RemoveLeaf { .. }
            | ClusterStatement::AddCoordinator { .. }
            | ClusterStatement::RemoveCoordinator { .. }
            | ClusterStatement::AttachLeaf { .. }
            | ClusterStatement::DetachLeaf { .. }
            | ClusterStatement::Move { .. }
            | ClusterStatement::CancelMove { .. }
            | ClusterStatement::ShowMoves { .. }
            | ClusterStatement::ClearOrphans { .. }
            | ClusterStatement::Recover { .. }
            | ClusterStatement::ShowLeaves
            | ClusterStatement::ShowAggregators
            | ClusterStatement::ShowClusterStatus => self.check(Privilege::Cluster, &Scope::Everywhere),
            // Everybody sees what is his.
            ClusterStatement::ShowDatabases
            | ClusterStatement::ShowPartitions { .. }
            | ClusterStatement::ShowProcesslist
            | ClusterStatement::Kill { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use stoa_rpc::FailureKind;

    use super::*;
    use crate::catalog::Command;

    #[test]
    fn passwords_are_checked_by_their_hashes() {
        let mut catalog = Catalog::default();
        enter(&catalog, "anybody", "", true).unwrap();
        let stranger = enter(&catalog, "anybody", "", false).unwrap_err().into_failure();
        assert!(stranger.kind == FailureKind::Denied && stranger.message.contains("needs its secret"), "{stranger}");
        let password_hash = hash("right").unwrap();
        assert!(password_hash.starts_with("$argon2id$") && password_hash != hash("right").unwrap());
        catalog.apply(&Command::CreateUser { name: "Ada".into(), password_hash }).unwrap();
        for knows_secret in [false, true] {
            enter(&catalog, "ada", "right", knows_secret).unwrap();
            for (user, password) in [("ada", "wrong"), ("ada", ""), ("bob", "right"), ("", "")] {
                let error = enter(&catalog, user, password, knows_secret).unwrap_err().into_failure();
                assert_eq!(error.kind, FailureKind::Denied);
            }
        }
    }

    #[test]
    fn the_hash_of_nobody_is_one() {
        assert!(PasswordHash::new(NOBODY).is_ok());
    }
}
