//! BACKUP of a database whose partitions are on leaves.
//!
//! Every leaf lets commits wait on the masters that it has; when all do, each takes its states, and commits go on. A state is what a
//! crash at that moment would have left, so that a transaction that is in doubt in one partition commits if the partition that decides
//! says so in its own. The masters must be the same when all is taken: a leaf that was replaced meanwhile may not know it yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stoa_backup::{BEGUN, CLUSTER, Copied, Place, new_name};
use stoa_columnstore::encode_definition;
use stoa_exec::CancelToken;
use stoa_rpc::backup::{BackupPlace, BackupSetup, FrozenPartition, LeafBackup};
use stoa_rpc::leaf::REFERENCE;
use stoa_rpc::{Failure, FailureKind};

use super::Shared;
use super::fragments::{at, in_parallel};
use crate::backup::{Definitions, said};
use crate::catalog::{Catalog, Database};
use crate::{Error, Result};

/// The states of all partitions at one moment.
struct Frozen {
    leaves: Vec<OneLeaf>,
    /// Transactions in doubt that commit.
    committed: Vec<u64>,
    definitions: Definitions,
}

struct OneLeaf {
    address: String,
    backup: Arc<dyn LeafBackup>,
    partitions: Vec<FrozenPartition>,
}

/// Copies a database to a place; what was done, for people.
pub(super) fn backup(shared: &Shared, name: &str, to: &str, anew: bool, cancel: &CancelToken) -> Result<String> {
    shared.control.database(name)?;
    let place = Place::open(to, true)?;
    let frozen = shared.retry_limit.persist(cancel, || freeze(shared, name))?;
    let lsns = frozen.leaves.iter().flat_map(|leaf| &leaf.partitions).map(|partition| partition.lsn);
    let backup = new_name(lsns.max().unwrap_or(0));
    place.write(&backup, BEGUN, frozen.definitions.database.clone().into_bytes())?;
    let target = BackupPlace { place: to.to_owned(), name: backup.clone() };
    let copies = in_parallel(&frozen.leaves, |leaf| {
        let mut sum = Copied::default();
        for partition in &leaf.partitions {
            cancel.check().map_err(|e| Failure::new(FailureKind::Cancelled, e.to_string()))?;
            let copied = leaf.backup.copy(partition.ordinal, &target, anew, &frozen.committed);
            let copied = copied.map_err(|e| at(&leaf.address, e))?;
            sum += Copied { files: copied.files, bytes: copied.bytes, kept: copied.kept };
        }
        Ok(sum)
    })?;
    place.write(&backup, CLUSTER, frozen.definitions.encode()?)?;
    let mut all = Copied::default();
    copies.into_iter().for_each(|copied| all += copied);
    Ok(said(&backup, all))
}

/// Takes the states of all partitions as of one moment.
fn freeze(shared: &Shared, name: &str) -> Result<Frozen> {
    let before = shared.control.catalog();
    let database = before.database(name).map_err(|e| Error::Invalid(e.to_string()))?;
    let mut asked = shared.control.database(name)?.placement()?;
    if database.tables.values().any(|definition| definition.table().reference)
        && let Some(ordinals) = asked.values_mut().next()
    {
        ordinals.push(REFERENCE);
    }
    let tables: Vec<Vec<u8>> = database.tables.values().map(|definition| encode_definition(definition.table())).collect();
    let asked: Vec<(String, Vec<u32>)> = asked.into_iter().collect();
    let begun = in_parallel(&asked, |(address, ordinals)| {
        let setup = BackupSetup { database: name.to_lowercase(), ordinals: ordinals.clone(), tables: tables.clone() };
        let backup = shared.leaves.leaf(address)?.backup(setup).map_err(|e| at(address, e))?;
        Ok((address.clone(), backup))
    })?;
    let leaves = in_parallel(&begun, |(address, backup)| {
        let partitions = backup.freeze().map_err(|e| at(address, e))?;
        Ok(OneLeaf { address: address.clone(), backup: backup.clone(), partitions })
    })?;
    shared.control.confirm()?;
    if !is_same(database, &shared.control.catalog()) {
        let what = format!("partitions or tables of '{name}' changed while the backup began");
        return Err(Error::retryable(what));
    }
    let committed = committed(&leaves)?;
    Ok(Frozen { leaves, committed, definitions: Definitions::of(database) })
}

/// Whether a database still has the same masters and definitions.
fn is_same(before: &Database, now: &Catalog) -> bool {
    let masters = |database: &Database| database.partitions.iter().map(|p| (p.term, p.copies.master)).collect::<Vec<_>>();
    now.database(&before.name).is_ok_and(|now| {
        masters(now) == masters(before)
            && (&now.tables, &now.views, now.redundancy) == (&before.tables, &before.views, before.redundancy)
    })
}

/// The transactions in doubt that the partitions that decide on them commit.
fn committed(leaves: &[OneLeaf]) -> Result<Vec<u64>> {
    let mut doubts: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
    for (transaction, decider) in leaves.iter().flat_map(|leaf| &leaf.partitions).flat_map(|p| &p.in_doubt) {
        doubts.entry(*decider).or_default().insert(*transaction);
    }
    let mut committed = Vec::new();
    for leaf in leaves {
        for partition in &leaf.partitions {
            if let Some(transactions) = doubts.get(&partition.ordinal) {
                let transactions: Vec<u64> = transactions.iter().copied().collect();
                let found = leaf.backup.committed(partition.ordinal, &transactions).map_err(|e| at(&leaf.address, e))?;
                committed.extend(found);
            }
        }
    }
    Ok(committed)
}
