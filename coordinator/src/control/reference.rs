//! REFERENCE tables for a leaf that joins, or was away.

use std::sync::Arc;

use stoa_columnstore::encode_definition;
use stoa_exec::CancelToken;
use stoa_rpc::ipc::write_chunks;
use stoa_rpc::leaf::{Change, LeafService, REFERENCE};

use crate::access::CLUSTER;
use crate::catalog::Database;
use crate::cluster::{Cluster, Shared};
use crate::{Error, Result, Session};

/// Gives a leaf the REFERENCE tables of a database, with their rows, instead of those that it may have.
pub(super) fn copy(shared: &Shared, database: &Database, leaf: &dyn LeafService) -> Result<()> {
    let name = database.name.to_lowercase();
    leaf.change(Change::CreatePartitions { database: name.clone(), ordinals: vec![] })?;
    for definition in database.tables.values().filter(|d| d.table().reference) {
        let def = definition.table();
        leaf.change(Change::DropTable { database: name.clone(), table: def.name.clone() })?;
        leaf.change(Change::CreateTable { database: name.clone(), definition: encode_definition(def) })?;
        let session = Session::new(Arc::new(Cluster::open(&name, CLUSTER, shared)?));
        let all = session.query(&format!("SELECT * FROM \"{}\"", def.name.replace('"', "\"\"")), &CancelToken::default())?;
        let now = shared.control.database(&name)?.tables.get(&def.name.to_lowercase()).map(|now| now.version());
        if now != Some(def.version()) {
            return Err(Error::retryable(format!("table '{}' was altered while it was copied: try again", def.name)));
        }
        let mut load = leaf.load(&name, &def.name, REFERENCE)?;
        write_chunks(&all.batches, &mut |chunk| load.write(chunk))?;
        load.prepare()?;
        load.commit()?;
    }
    Ok(())
}
