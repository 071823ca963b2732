//! Transactions on leaves elsewhere, as the [`LeafTransaction`] that they are.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use stoa_schema::leaf_capnp::{duplicates, in_doubt, merge_status, numbered_rows, rows_read, transaction, transaction_setup};

use crate::client::{LONG, Remote};
use crate::done;
use crate::leaf::{InDoubt, LeafQuery, LeafTransaction, Load, MergeStatus, NumberedRows, TransactionSetup};
use crate::leaf_client::RemoteLoad;
use crate::query_client::RemoteQuery;
use crate::watch::Watch;
use crate::{Failure, Io, Result};

/// A transaction, and the leaf that it is on.
pub(crate) struct RemoteTransaction {
    remote: Remote<(transaction::Client, Watch)>,
    silence: Duration,
}

impl RemoteTransaction {
    /// Call it on the I/O thread.
    pub fn new(io: Io, transaction: transaction::Client, watch: Watch, silence: Duration) -> RemoteTransaction {
        RemoteTransaction { remote: Remote::new(io, (transaction, watch)), silence }
    }

    /// Makes a call; a leaf that says nothing meanwhile counts as hung.
    fn call<T, F>(&self, call: impl FnOnce(transaction::Client) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + 'static,
    {
        self.remote.call(LONG, move |(transaction, watch)| async move {
            watch.unless_silent("it runs a part of a transaction", call(transaction)).await
        })
    }
}

impl LeafTransaction for RemoteTransaction {
    fn query(&self, query: u64) -> Result<Arc<dyn LeafQuery>> {
        let io = self.remote.io().clone();
        let query = self.remote.call(self.silence, move |(transaction, watch)| async move {
            let mut request = transaction.query_request();
            request.get().set_query(query);
            let response = request.send().promise.await?;
            RemoteQuery::begun(response.get()?.get_result()?, query, io, watch)
        })?;
        Ok(Arc::new(query))
    }

    fn insert(&self, table: &str, ordinal: u32, rows: NumberedRows) -> Result<()> {
        let table = table.to_owned();
        self.call(move |transaction| async move {
            let mut request = transaction.insert_request();
            request.get().set_table(&table);
            request.get().set_ordinal(ordinal);
            write_rows(&rows, request.get().init_rows())?;
            done::read(request.send().promise.await?.get()?.get_result()?)
        })
    }

    fn delete(&self, table: &str, ordinal: u32, addresses: &[u64]) -> Result<()> {
        let (table, addresses) = (table.to_owned(), addresses.to_vec());
        self.call(move |transaction| async move {
            let mut request = transaction.delete_request();
            request.get().set_table(&table);
            request.get().set_ordinal(ordinal);
            request.get().set_addresses(&addresses[..])?;
            done::read(request.send().promise.await?.get()?.get_result()?)
        })
    }

    fn delete_rows(&self, table: &str, ordinal: u32, chunk: Vec<u8>) -> Result<()> {
        let table = table.to_owned();
        self.call(move |transaction| async move {
            let mut request = transaction.delete_rows_request();
            request.get().set_table(&table);
            request.get().set_ordinal(ordinal);
            request.get().set_chunk(&chunk);
            done::read(request.send().promise.await?.get()?.get_result()?)
        })
    }

    fn duplicates(&self, table: &str, ordinal: u32, rows: NumberedRows) -> Result<Vec<(u32, u64)>> {
        let table = table.to_owned();
        self.call(move |transaction| async move {
            let mut request = transaction.duplicates_request();
            request.get().set_table(&table);
            request.get().set_ordinal(ordinal);
            write_rows(&rows, request.get().init_rows())?;
            let response = request.send().promise.await?;
            match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                duplicates::Found(found) => Ok(found.get_rows()?.iter().zip(found.get_addresses()?.iter()).collect()),
                duplicates::Failure(failure) => Err(Failure::read(failure?)?),
            }
        })
    }

    fn read(&self, table: &str, ordinal: u32, addresses: &[u64]) -> Result<Vec<u8>> {
        let (table, addresses) = (table.to_owned(), addresses.to_vec());
        self.call(move |transaction| async move {
            let mut request = transaction.read_request();
            request.get().set_table(&table);
            request.get().set_ordinal(ordinal);
            request.get().set_addresses(&addresses[..])?;
            let response = request.send().promise.await?;
            match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                rows_read::Chunk(chunk) => Ok(chunk?.to_vec()),
                rows_read::Failure(failure) => Err(Failure::read(failure?)?),
            }
        })
    }

    fn load(&self, table: &str, ordinal: u32) -> Result<Box<dyn Load>> {
        let (table, io) = (table.to_owned(), self.remote.io().clone());
        let load = self.remote.call(self.silence, move |(transaction, watch)| async move {
            let mut request = transaction.load_request();
            request.get().set_table(&table);
            request.get().set_ordinal(ordinal);
            RemoteLoad::begun(request.send().promise.await?.get()?.get_result()?, io, watch)
        })?;
        Ok(Box::new(load))
    }

    fn truncate(&self, table: &str, ordinal: u32) -> Result<()> {
        let table = table.to_owned();
        self.call(move |transaction| async move {
            let mut request = transaction.truncate_request();
            request.get().set_table(&table);
            request.get().set_ordinal(ordinal);
            done::read(request.send().promise.await?.get()?.get_result()?)
        })
    }

    fn savepoint(&self) -> Result<()> {
        self.call(
            |transaction| async move { done::read(transaction.savepoint_request().send().promise.await?.get()?.get_result()?) },
        )
    }

    fn undo(&self) -> Result<()> {
        self.call(|transaction| async move { done::read(transaction.undo_request().send().promise.await?.get()?.get_result()?) })
    }

    fn prepare(&self, ordinals: &[u32], decider: u32) -> Result<u64> {
        let ordinals = ordinals.to_vec();
        self.call(move |transaction| async move {
            let mut request = transaction.prepare_request();
            request.get().set_ordinals(&ordinals[..])?;
            request.get().set_decider(decider);
            let response = request.send().promise.await?;
            done::read(response.get()?.get_result()?)?;
            Ok(response.get()?.get_moment())
        })
    }

    fn commit(&self, ordinal: u32, deciding: bool, prepared: u64) -> Result<u64> {
        self.call(move |transaction| async move {
            let mut request = transaction.commit_request();
            request.get().set_ordinal(ordinal);
            request.get().set_deciding(deciding);
            request.get().set_prepared(prepared);
            let response = request.send().promise.await?;
            done::read(response.get()?.get_result()?)?;
            Ok(response.get()?.get_moment())
        })
    }
}

pub(crate) fn write_setup(from: &TransactionSetup, mut to: transaction_setup::Builder<'_>) -> capnp::Result<()> {
    to.set_transaction(from.transaction);
    to.set_database(&from.database);
    to.set_address(&from.address);
    to.set_moment(from.moment);
    to.set_ordinals(&from.ordinals[..])
}

fn write_rows(from: &NumberedRows, mut to: numbered_rows::Builder<'_>) -> capnp::Result<()> {
    to.set_chunk(&from.chunk);
    to.set_numbers(&from.numbers[..])
}

pub(crate) fn read_in_doubt(from: in_doubt::Reader<'_>) -> capnp::Result<InDoubt> {
    Ok(InDoubt {
        database: from.get_database()?.to_string()?,
        ordinal: from.get_ordinal(),
        transaction: from.get_transaction(),
        decider: from.get_decider(),
    })
}

pub(crate) fn read_merge_status(from: merge_status::Reader<'_>) -> Result<Vec<MergeStatus>> {
    let partitions = match from.which().map_err(capnp::Error::from)? {
        merge_status::Partitions(partitions) => partitions?,
        merge_status::Failure(failure) => return Err(Failure::read(failure?)?),
    };
    let read = |from: merge_status::partition::Reader<'_>| {
        Ok(MergeStatus {
            table: from.get_table()?.to_string()?,
            ordinal: from.get_ordinal(),
            segments: from.get_segments(),
            to_merge: from.get_to_merge(),
            rows_in_memory: from.get_rows_in_memory(),
            deleted_rows: from.get_deleted_rows(),
            state: from.get_state()?.to_string()?,
            error: from.get_error()?.to_string()?,
        })
    };
    Ok(partitions.iter().map(read).collect::<capnp::Result<_>>()?)
}
