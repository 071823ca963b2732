//! BACKUP and RESTORE of a data directory, and what a backup of a cluster says of itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stoa_backup::{CLUSTER, MANIFEST, Place, new_name};
use stoa_columnstore::Database;
use stoa_exec::CancelToken;

use crate::catalog::{self, Definition};
use crate::{Error, Result};

/// Copies the state of a database; segments that are there already are not copied again, unless `anew`.
pub(crate) fn backup(database: &Arc<Database>, to: &str, anew: bool, cancel: &CancelToken) -> Result<String> {
    let place = Place::open(to, true)?;
    let source = database.backup_source()?;
    let name = new_name(source.lsn());
    let copied = place.copy(&source, (&name, MANIFEST), anew, &|| cancel.check().is_err())?;
    Ok(said(&name, copied))
}

/// What a backup did, for people.
pub(crate) fn said(name: &str, copied: stoa_backup::Copied) -> String {
    format!("backup {name}: {} segments copied ({} bytes), {} were there", copied.files, copied.bytes, copied.kept)
}

/// Makes the tables of the newest backup in a place; what was done.
pub(crate) fn restore(database: &Arc<Database>, from: &str, cancel: &CancelToken) -> Result<String> {
    let place = Place::open(from, false)?;
    let all = place.backups()?;
    let Some((name, _)) = all.iter().find(|(_, files)| files.contains(MANIFEST)) else {
        let what = match all.iter().any(|(_, files)| files.contains(CLUSTER)) {
            true => "its backups are of clusters: RESTORE on a cluster",
            false => "there is no backup in it",
        };
        return Err(Error::Invalid(format!("backup place '{from}': {what}")));
    };
    let tables = place.restore(database, (name, MANIFEST), &|| cancel.check().is_err())?;
    Ok(format!("backup {name}: {tables} tables restored"))
}

/// What a backup of a cluster says of its database.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Definitions {
    /// Of this file.
    version: u32,
    /// The name of the database.
    pub database: String,
    /// How many partitions it has.
    pub partitions: u32,
    /// Copies of every partition.
    pub redundancy: u8,
    /// Its tables.
    pub tables: Vec<Definition>,
    /// Its views: names and texts.
    pub views: Vec<(String, String)>,
    /// Whether rows count before they are on disk.
    #[serde(default)]
    pub asynchronous: bool,
}

/// The version of [`Definitions`] that is written, and the newest that is read.
const VERSION: u32 = 1;

impl Definitions {
    pub fn of(database: &catalog::Database) -> Definitions {
        Definitions {
            version: VERSION,
            database: database.name.clone(),
            partitions: database.partitions.len() as u32,
            redundancy: database.redundancy,
            tables: database.tables.values().cloned().collect(),
            views: database.views.values().cloned().collect(),
            asynchronous: database.asynchronous,
        }
    }

    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(|e| Error::Invalid(format!("a backup's definitions cannot be written: {e}")))
    }

    fn decode(bytes: &[u8]) -> std::result::Result<Definitions, String> {
        let definitions: Definitions = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if definitions.version > VERSION {
            return Err(format!("it is of version {}, and this program reads {VERSION}", definitions.version));
        }
        Ok(definitions)
    }

    /// The newest backup of a database in a place: its name, and what it says.
    pub fn newest(place: &Place, from: &str, database: &str) -> Result<(String, Definitions)> {
        let failed = |what: &str| Error::Invalid(format!("backup place '{from}': {what}"));
        let all = place.backups()?;
        let mut others = BTreeSet::new();
        for (backup, _) in all.iter().filter(|(_, files)| files.contains(CLUSTER)) {
            let bytes = place.read(backup, CLUSTER)?.unwrap_or_default();
            let read = Definitions::decode(&bytes);
            let definitions = read.map_err(|why| failed(&format!("backup {backup} cannot be read: {why}")))?;
            if definitions.database.eq_ignore_ascii_case(database) {
                return Ok((backup.clone(), definitions));
            }
            others.insert(definitions.database);
        }
        let others: Vec<String> = others.into_iter().collect();
        Err(failed(&match (others.is_empty(), all.iter().any(|(_, files)| files.contains(MANIFEST))) {
            (false, _) => format!("there is no backup of '{database}' in it, but of {}", others.join(", ")),
            (true, true) => "its backups are of data directories: RESTORE with --data".to_owned(),
            (true, false) => "there is no backup in it".to_owned(),
        }))
    }
}
