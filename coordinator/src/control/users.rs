//! Users: made, dropped, granted, shown.

use std::collections::BTreeSet;

use stoa_sql::{Grant, GrantScope, UserStatement};

use super::Control;
use crate::access;
use crate::catalog::{Catalog, Command, Privilege, Scope};
use crate::session::text_table;
use crate::{Error, Outcome, Result};

impl Control {
    /// Runs a statement about users, for a user's session on `database`.
    pub(crate) fn user_statement(&self, statement: &UserStatement, user: &str, database: &str) -> Result<Outcome> {
        let catalog = self.catalog();
        let done = match statement {
            UserStatement::Create { name, password, if_not_exists } => {
                if *if_not_exists && catalog.user(name).is_some() {
                    format!("user '{name}' is there already")
                } else {
                    self.change(&Command::CreateUser { name: name.clone(), password_hash: access::hash(password)? })?;
                    created(&catalog, name)
                }
            }
            UserStatement::Drop { name, if_exists } => {
                if *if_exists && catalog.user(name).is_none() {
                    format!("there is no user '{name}'")
                } else {
                    self.change(&Command::DropUser(name.clone()))?;
                    format!("user '{name}' dropped")
                }
            }
            UserStatement::SetPassword { name, password } => {
                self.change(&Command::SetPassword { name: name.clone(), password_hash: access::hash(password)? })?;
                format!("password of '{name}' set")
            }
            UserStatement::Grant(grant) => {
                let (privileges, scope) = granted(grant, database)?;
                self.change(&Command::Grant { user: grant.user.clone(), privileges, scope: scope.clone() })?;
                format!("granted on {scope} to '{}'", grant.user)
            }
            UserStatement::Revoke(grant) => {
                let (privileges, scope) = granted(grant, database)?;
                self.change(&Command::Revoke { user: grant.user.clone(), privileges, scope: scope.clone() })?;
                format!("revoked on {scope} from '{}'", grant.user)
            }
            UserStatement::ShowUsers => {
                let rows: Vec<[String; 1]> = catalog.users.values().map(|user| [user.name.clone()]).collect();
                return text_table(&["User"], &rows);
            }
            UserStatement::ShowGrants { user: named } => return show_grants(&catalog, named.as_deref().unwrap_or(user)),
        };
        Ok(Outcome::Done(done))
    }
}

/// The first user changes how everybody else comes in: that must not be a surprise.
fn created(before: &Catalog, name: &str) -> String {
    if before.users.is_empty() {
        return format!("user '{name}' created, who may do everything; from now on clients need --user and --password");
    }
    format!("user '{name}' created")
}

fn granted(grant: &Grant, database: &str) -> Result<(BTreeSet<Privilege>, Scope)> {
    let or_this = |named: &Option<String>| named.clone().unwrap_or_else(|| database.to_owned());
    let scope = match &grant.on {
        GrantScope::Everywhere => Scope::Everywhere,
        GrantScope::Database(named) => Scope::Database(or_this(named)),
        GrantScope::Table(named, table) => Scope::Table(or_this(named), table.clone()),
    };
    if grant.privileges.is_empty() {
        return Ok((Privilege::all_on(&scope), scope));
    }
    let privilege = |name: &String| {
        Privilege::parse(name).ok_or_else(|| {
            let all: Vec<String> = Privilege::ALL.iter().map(ToString::to_string).collect();
            Error::Invalid(format!("there is no privilege {name}: there are ALL, {}", all.join(", ")))
        })
    };
    Ok((grant.privileges.iter().map(privilege).collect::<Result<_>>()?, scope))
}

fn show_grants(catalog: &Catalog, name: &str) -> Result<Outcome> {
    let Some(user) = catalog.user(name) else {
        if catalog.users.is_empty() {
            return Err(Error::Invalid("this cluster has no users: everybody may do everything".into()));
        }
        return Err(Error::Invalid(format!("there is no user '{name}'")));
    };
    let row = |(scope, privileges): (Scope, BTreeSet<Privilege>)| {
        let names: Vec<String> = privileges.iter().map(ToString::to_string).collect();
        [format!("GRANT {} ON {scope} TO '{}'", names.join(", "), user.name)]
    };
    let rows: Vec<[String; 1]> = user.grants.list().into_iter().map(row).collect();
    text_table(&["Grants"], &rows)
}
