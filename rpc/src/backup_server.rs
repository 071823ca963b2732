//! A [`LeafBackup`] as an RPC object.

use std::sync::Arc;

use capnp::capability::Rc;
use stoa_schema::leaf_capnp::{backup, backup_place, backup_setup, frozen};

use crate::Result;
use crate::backup::{BackupPlace, BackupSetup, FrozenPartition, LeafBackup};
use crate::io::blocking;

pub(crate) struct BackupServer {
    backup: Arc<dyn LeafBackup>,
}

impl BackupServer {
    pub fn new(backup: Arc<dyn LeafBackup>) -> BackupServer {
        BackupServer { backup }
    }
}

/// Nobody waits for it any more.
impl Drop for BackupServer {
    fn drop(&mut self) {
        self.backup.cancel();
    }
}

impl backup::Server for BackupServer {
    async fn freeze(self: Rc<Self>, _: backup::FreezeParams, mut results: backup::FreezeResults) -> capnp::Result<()> {
        let backup = self.backup.clone();
        write_frozen(blocking(move || backup.freeze()).await, results.get().init_result());
        Ok(())
    }

    async fn committed(
        self: Rc<Self>,
        params: backup::CommittedParams,
        mut results: backup::CommittedResults,
    ) -> capnp::Result<()> {
        let (backup, ordinal) = (self.backup.clone(), params.get()?.get_ordinal());
        let transactions: Vec<u64> = params.get()?.get_transactions()?.iter().collect();
        let mut result = results.get().init_result();
        match blocking(move || backup.committed(ordinal, &transactions)).await {
            Ok(committed) => result.set_transactions(&committed[..])?,
            Err(failure) => failure.write(result.init_failure()),
        }
        Ok(())
    }

    async fn copy(self: Rc<Self>, params: backup::CopyParams, mut results: backup::CopyResults) -> capnp::Result<()> {
        let params = params.get()?;
        let (ordinal, to, anew) = (params.get_ordinal(), read_place(params.get_to()?)?, params.get_anew());
        let committed: Vec<u64> = params.get_committed()?.iter().collect();
        let backup = self.backup.clone();
        let result = results.get().init_result();
        match blocking(move || backup.copy(ordinal, &to, anew, &committed)).await {
            Ok(copied) => {
                let mut counts = result.init_counts();
                counts.set_files(copied.files);
                counts.set_bytes(copied.bytes);
                counts.set_kept(copied.kept);
            }
            Err(failure) => failure.write(result.init_failure()),
        }
        Ok(())
    }
}

pub(crate) fn read_setup(from: backup_setup::Reader<'_>) -> capnp::Result<BackupSetup> {
    Ok(BackupSetup {
        database: from.get_database()?.to_string()?,
        ordinals: from.get_ordinals()?.iter().collect(),
        tables: from.get_tables()?.iter().map(|table| Ok(table?.to_vec())).collect::<capnp::Result<_>>()?,
    })
}

pub(crate) fn read_place(from: backup_place::Reader<'_>) -> capnp::Result<BackupPlace> {
    Ok(BackupPlace { place: from.get_place()?.to_string()?, name: from.get_name()?.to_string()? })
}

fn write_frozen(frozen: Result<Vec<FrozenPartition>>, to: frozen::Builder<'_>) {
    let partitions = match frozen {
        Ok(partitions) => partitions,
        Err(failure) => return failure.write(to.init_failure()),
    };
    let mut list = to.init_partitions(partitions.len() as u32);
    for (i, partition) in (0u32..).zip(&partitions) {
        let mut to = list.reborrow().get(i);
        to.set_ordinal(partition.ordinal);
        to.set_lsn(partition.lsn);
        let mut doubts = to.init_in_doubt(partition.in_doubt.len() as u32);
        for (j, (transaction, decider)) in (0u32..).zip(&partition.in_doubt) {
            let mut to = doubts.reborrow().get(j);
            to.set_ordinal(partition.ordinal);
            to.set_transaction(*transaction);
            to.set_decider(*decider);
        }
    }
}
