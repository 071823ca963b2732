//! REFERENCE tables for a leaf that joins, or was away.
//!
//! Nobody changes them while they are copied. The catalog says so first, together with another version of their definitions. Then all
//! leaves that have them are told of that version: from there on they refuse rows of the one before, and what was committed before is
//! seen by the copy. The leaf takes part at the moment from which changes go on.

use std::sync::Arc;

use stoa_columnstore::{TableDef, encode_definition};
use stoa_exec::CancelToken;
use stoa_rpc::FailureKind;
use stoa_rpc::ipc::write_chunks;
use stoa_rpc::leaf::{Change, LeafService, REFERENCE};

use super::Control;
use crate::access::CLUSTER;
use crate::catalog::{Catalog, Command, Database, Definition};
use crate::cluster::{Cluster, Shared};
use crate::retry::is_conflict;
use crate::{Error, Result, Session};

impl Control {
    /// Gives a leaf that is behind the REFERENCE tables of all databases. They are not changed any more when this returns, until it takes
    /// part.
    pub(super) fn give_reference(&self, shared: &Shared, address: &str) -> Result<()> {
        // What it has of them counts no more. What it cannot drop yet keeps nobody else from his changes.
        let (catalog, leaf) = (self.catalog(), self.leaves.leaf(address)?);
        for (name, database) in &catalog.databases {
            leaf.change(Change::CreatePartitions { database: name.clone(), ordinals: vec![] })?;
            for table in reference_tables(database) {
                let drop = Change::DropTable { database: name.clone(), table: table.name.clone() };
                leaf.change(drop).map_err(|failure| not_for_long(failure.into()))?;
            }
        }
        self.decide(&Command::Receive { address: address.to_owned() })?;
        let given = self.give_held(shared, address).map_err(not_for_long);
        if given.is_err() {
            self.decide(&Command::FallBehind { address: address.to_owned() })?;
        }
        given
    }

    fn give_held(&self, shared: &Shared, address: &str) -> Result<()> {
        let (catalog, leaf) = (self.catalog(), self.leaves.leaf(address)?);
        for (name, database) in &catalog.databases {
            let cluster = Cluster::named(name, CLUSTER, shared);
            for table in reference_tables(database) {
                cluster.tell(table).map_err(|error| not_copied(database, table, &error))?;
            }
            copy(shared, database, &*leaf)?;
        }
        Ok(())
    }

    /// If somebody who led before began to give a leaf the REFERENCE tables, he does not any more: changes of them go on.
    pub(crate) fn end_receiving(&self, catalog: &Catalog) -> Result<()> {
        let Some(leaf) = catalog.leaves.values().find(|leaf| leaf.receives) else { return Ok(()) };
        let Some(_changing) = self.changing.try_lock() else { return Ok(()) };
        if self.catalog().leaf(&leaf.address).is_some_and(|(_, leaf)| leaf.receives) {
            self.decide(&Command::FallBehind { address: leaf.address.clone() })?;
        }
        Ok(())
    }
}

fn reference_tables(database: &Database) -> impl Iterator<Item = &Arc<TableDef>> {
    database.tables.values().map(Definition::table).filter(|table| table.reference)
}

/// Transactions that are about to commit, or in doubt, are not so for long.
fn not_for_long(error: Error) -> Error {
    if is_conflict(&error) { Error::retryable(error.to_string()) } else { error }
}

/// Why a leaf does not get a REFERENCE table. The error of one that no leaf has any more stays until somebody acts.
fn not_copied(database: &Database, table: &TableDef, error: &Error) -> Error {
    let what = format!("REFERENCE table '{}' of database '{}' cannot be copied: {error}", table.name, database.name);
    match error {
        error if error.is_retryable() || is_conflict(error) => Error::retryable(what),
        Error::Node(failure) if failure.kind == FailureKind::User => Error::Invalid(format!(
            "{what}; if no leaf has it any more, drop it, or drop the database and restore it from a backup"
        )),
        _ => Error::Invalid(what),
    }
}

/// Gives a leaf the REFERENCE tables of a database, with their rows, instead of those that it may have.
fn copy(shared: &Shared, database: &Database, leaf: &dyn LeafService) -> Result<()> {
    let name = database.name.to_lowercase();
    for def in reference_tables(database) {
        leaf.change(Change::DropTable { database: name.clone(), table: def.name.clone() })?;
        leaf.change(Change::CreateTable { database: name.clone(), definition: encode_definition(def) })?;
        let session = Session::new(Arc::new(Cluster::open(&name, CLUSTER, shared)?));
        let all = session.query(&format!("SELECT * FROM \"{}\"", def.name.replace('"', "\"\"")), &CancelToken::default())?;
        let now = shared.control.database(&name)?.tables.get(&def.name.to_lowercase()).map(|now| now.version());
        if now != Some(def.version()) {
            return Err(Error::retryable(format!("table '{}' was altered while it was copied: try again", def.name)));
        }
        let mut load = leaf.load(&name, &def.name, REFERENCE)?;
        write_chunks(&all.batches, &mut |chunk| load.write(chunk, None))?;
        load.prepare()?;
        load.commit()?;
    }
    Ok(())
}
