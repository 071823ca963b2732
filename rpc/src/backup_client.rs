//! Backups of leaves elsewhere, as the [`LeafBackup`] that they are.

use std::sync::Arc;
use std::time::Duration;

use stoa_schema::leaf_capnp::{backup, backup_begun, backup_place, committed, copied, frozen, leaf};

use crate::backup::{BackupPlace, BackupSetup, Copied, FrozenPartition, LeafBackup};
use crate::client::Remote;
use crate::done;
use crate::watch::Watch;
use crate::{Failure, Io, Result};

/// What a leaf does that backs up or restores.
const COPIES: &str = "it copies a partition";
/// How long the copy of one partition may take.
const COPY: Duration = Duration::from_secs(24 * 3600);

/// A backup, and the leaf that it is of.
struct RemoteBackup {
    remote: Remote<(backup::Client, Watch)>,
    silence: Duration,
}

/// Begins a backup; call it on the I/O thread.
pub(crate) async fn begin(
    io: Io,
    leaf: leaf::Client,
    watch: Watch,
    silence: Duration,
    setup: BackupSetup,
) -> Result<Arc<dyn LeafBackup>> {
    let mut request = leaf.backup_request();
    let mut to = request.get().init_setup();
    to.set_database(&setup.database);
    to.set_ordinals(&setup.ordinals[..])?;
    let mut tables = to.init_tables(setup.tables.len() as u32);
    for (i, table) in (0u32..).zip(&setup.tables) {
        tables.set(i, table);
    }
    let response = request.send().promise.await?;
    match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
        backup_begun::Backup(backup) => Ok(Arc::new(RemoteBackup { remote: Remote::new(io, (backup?, watch)), silence })),
        backup_begun::Failure(failure) => Err(Failure::read(failure?)?),
    }
}

/// Restores a partition; call it on the I/O thread.
pub(crate) async fn restore(
    leaf: leaf::Client,
    watch: Watch,
    (database, ordinal): (String, u32),
    from: BackupPlace,
) -> Result<()> {
    let mut request = leaf.restore_request();
    request.get().set_database(&database);
    request.get().set_ordinal(ordinal);
    write_place(&from, request.get().init_from());
    watch.unless_silent(COPIES, async { done::read(request.send().promise.await?.get()?.get_result()?) }).await
}

/// How long a restore of one partition may take.
pub(crate) const RESTORE: Duration = COPY;

impl LeafBackup for RemoteBackup {
    fn freeze(&self) -> Result<Vec<FrozenPartition>> {
        self.remote.call(self.silence, |(backup, _)| async move {
            let response = backup.freeze_request().send().promise.await?;
            match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                frozen::Partitions(partitions) => {
                    Ok(partitions?.iter().map(read_partition).collect::<capnp::Result<Vec<_>>>()?)
                }
                frozen::Failure(failure) => Err(Failure::read(failure?)?),
            }
        })
    }

    fn committed(&self, ordinal: u32, transactions: &[u64]) -> Result<Vec<u64>> {
        let transactions = transactions.to_vec();
        self.remote.call(self.silence, move |(backup, _)| async move {
            let mut request = backup.committed_request();
            request.get().set_ordinal(ordinal);
            request.get().set_transactions(&transactions[..])?;
            let response = request.send().promise.await?;
            match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                committed::Transactions(transactions) => Ok(transactions?.iter().collect()),
                committed::Failure(failure) => Err(Failure::read(failure?)?),
            }
        })
    }

    fn copy(&self, ordinal: u32, to: &BackupPlace, anew: bool, committed: &[u64]) -> Result<Copied> {
        let (to, committed) = (to.clone(), committed.to_vec());
        self.remote.call(COPY, move |(backup, watch)| async move {
            let mut request = backup.copy_request();
            request.get().set_ordinal(ordinal);
            request.get().set_anew(anew);
            request.get().set_committed(&committed[..])?;
            write_place(&to, request.get().init_to());
            let copied = async {
                let response = request.send().promise.await?;
                match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                    copied::Counts(counts) => {
                        Ok(Copied { files: counts.get_files(), bytes: counts.get_bytes(), kept: counts.get_kept() })
                    }
                    copied::Failure(failure) => Err(Failure::read(failure?)?),
                }
            };
            watch.unless_silent(COPIES, copied).await
        })
    }

    /// The leaf ends it when this is dropped.
    fn cancel(&self) {}
}

fn write_place(from: &BackupPlace, mut to: backup_place::Builder<'_>) {
    to.set_place(&from.place);
    to.set_name(&from.name);
}

fn read_partition(from: frozen::partition::Reader<'_>) -> capnp::Result<FrozenPartition> {
    let in_doubt = from.get_in_doubt()?.iter().map(|one| (one.get_transaction(), one.get_decider())).collect();
    Ok(FrozenPartition { ordinal: from.get_ordinal(), lsn: from.get_lsn(), in_doubt })
}
