//! A [`LeafTransaction`] as an RPC object.

use std::sync::Arc;

use capnp::capability::Rc;
use capnp_rpc::new_client;
use stoa_schema::leaf_capnp::{duplicates, merge_status, numbered_rows, rows_read, transaction, transaction_setup};

use crate::done;
use crate::io::blocking;
use crate::leaf::{LeafTransaction, MergeStatus, NumberedRows, TransactionSetup};
use crate::leaf_server::LoadServer;
use crate::query_server::QueryServer;
use crate::{Failure, FailureKind, Result};

pub(crate) struct TransactionServer {
    transaction: Arc<dyn LeafTransaction>,
}

impl TransactionServer {
    pub fn new(transaction: Arc<dyn LeafTransaction>) -> TransactionServer {
        TransactionServer { transaction }
    }

    /// Runs a call of the transaction beside the I/O thread.
    async fn call<T: Send + 'static>(&self, call: impl FnOnce(&dyn LeafTransaction) -> Result<T> + Send + 'static) -> Result<T> {
        let transaction = self.transaction.clone();
        blocking(move || call(&*transaction)).await
    }
}

impl transaction::Server for TransactionServer {
    async fn query(
        self: Rc<Self>,
        params: transaction::QueryParams,
        mut results: transaction::QueryResults,
    ) -> capnp::Result<()> {
        let query = params.get()?.get_query();
        let mut result = results.get().init_result();
        match self.call(move |transaction| transaction.query(query)).await {
            Ok(query) => result.set_query(new_client(QueryServer(query))),
            Err(failure) => failure.write(result.init_failure()),
        }
        Ok(())
    }

    async fn insert(
        self: Rc<Self>,
        params: transaction::InsertParams,
        mut results: transaction::InsertResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let (table, ordinal, rows) = (params.get_table()?.to_string()?, params.get_ordinal(), read_rows(params.get_rows()?)?);
        let inserted = self.call(move |transaction| transaction.insert(&table, ordinal, rows)).await;
        done::write(inserted, results.get().init_result());
        Ok(())
    }

    async fn delete(
        self: Rc<Self>,
        params: transaction::DeleteParams,
        mut results: transaction::DeleteResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let (table, ordinal) = (params.get_table()?.to_string()?, params.get_ordinal());
        let addresses: Vec<u64> = params.get_addresses()?.iter().collect();
        let deleted = self.call(move |transaction| transaction.delete(&table, ordinal, &addresses)).await;
        done::write(deleted, results.get().init_result());
        Ok(())
    }

    async fn duplicates(
        self: Rc<Self>,
        params: transaction::DuplicatesParams,
        mut results: transaction::DuplicatesResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let (table, ordinal, rows) = (params.get_table()?.to_string()?, params.get_ordinal(), read_rows(params.get_rows()?)?);
        let found = self.call(move |transaction| transaction.duplicates(&table, ordinal, rows)).await;
        write_duplicates(found, results.get().init_result())
    }

    async fn read(self: Rc<Self>, params: transaction::ReadParams, mut results: transaction::ReadResults) -> capnp::Result<()> {
        let params = params.get()?;
        let (table, ordinal) = (params.get_table()?.to_string()?, params.get_ordinal());
        let addresses: Vec<u64> = params.get_addresses()?.iter().collect();
        let mut result: rows_read::Builder<'_> = results.get().init_result();
        match self.call(move |transaction| transaction.read(&table, ordinal, &addresses)).await {
            Ok(chunk) => result.set_chunk(&chunk),
            Err(failure) => failure.write(result.init_failure()),
        }
        Ok(())
    }

    async fn savepoint(
        self: Rc<Self>,
        _: transaction::SavepointParams,
        mut results: transaction::SavepointResults,
    ) -> capnp::Result<()> {
        done::write(self.call(|transaction| transaction.savepoint()).await, results.get().init_result());
        Ok(())
    }

    async fn undo(self: Rc<Self>, _: transaction::UndoParams, mut results: transaction::UndoResults) -> capnp::Result<()> {
        done::write(self.call(|transaction| transaction.undo()).await, results.get().init_result());
        Ok(())
    }

    async fn prepare(
        self: Rc<Self>,
        params: transaction::PrepareParams,
        mut results: transaction::PrepareResults,
    ) -> capnp::Result<()> {
        let ordinals: Vec<u32> = params.get()?.get_ordinals()?.iter().collect();
        let decider = params.get()?.get_decider();
        let prepared = self.call(move |transaction| transaction.prepare(&ordinals, decider)).await;
        results.get().set_moment(*prepared.as_ref().unwrap_or(&0));
        done::write(prepared.map(drop), results.get().init_result());
        Ok(())
    }

    async fn commit(
        self: Rc<Self>,
        params: transaction::CommitParams,
        mut results: transaction::CommitResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let (ordinal, deciding, prepared) = (params.get_ordinal(), params.get_deciding(), params.get_prepared());
        let committed = self.call(move |transaction| transaction.commit(ordinal, deciding, prepared)).await;
        results.get().set_moment(*committed.as_ref().unwrap_or(&0));
        done::write(committed.map(drop), results.get().init_result());
        Ok(())
    }

    async fn delete_rows(
        self: Rc<Self>,
        params: transaction::DeleteRowsParams,
        mut results: transaction::DeleteRowsResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let (table, ordinal, chunk) = (params.get_table()?.to_string()?, params.get_ordinal(), params.get_chunk()?.to_vec());
        let deleted = self.call(move |transaction| transaction.delete_rows(&table, ordinal, chunk)).await;
        done::write(deleted, results.get().init_result());
        Ok(())
    }

    async fn load(self: Rc<Self>, params: transaction::LoadParams, mut results: transaction::LoadResults) -> capnp::Result<()> {
        let (table, ordinal) = (params.get()?.get_table()?.to_string()?, params.get()?.get_ordinal());
        let mut result = results.get().init_result();
        match self.call(move |transaction| transaction.load(&table, ordinal)).await {
            Ok(load) => result.set_load(new_client(LoadServer::new(load))),
            Err(failure) => failure.write(result.init_failure()),
        }
        Ok(())
    }

    async fn truncate(
        self: Rc<Self>,
        params: transaction::TruncateParams,
        mut results: transaction::TruncateResults,
    ) -> capnp::Result<()> {
        let (table, ordinal) = (params.get()?.get_table()?.to_string()?, params.get()?.get_ordinal());
        let truncated = self.call(move |transaction| transaction.truncate(&table, ordinal)).await;
        done::write(truncated, results.get().init_result());
        Ok(())
    }
}

pub(crate) fn read_setup(from: transaction_setup::Reader<'_>, blind: bool) -> capnp::Result<TransactionSetup> {
    Ok(TransactionSetup {
        transaction: from.get_transaction(),
        database: from.get_database()?.to_string()?,
        address: from.get_address()?.to_string()?,
        ordinals: from.get_ordinals()?.iter().collect(),
        moment: from.get_moment(),
        blind,
    })
}

fn read_rows(from: numbered_rows::Reader<'_>) -> capnp::Result<NumberedRows> {
    Ok(NumberedRows { chunk: from.get_chunk()?.to_vec(), numbers: from.get_numbers()?.iter().collect() })
}

fn write_duplicates(found: Result<Vec<(u32, u64)>>, mut to: duplicates::Builder<'_>) -> capnp::Result<()> {
    match found {
        Ok(found) => {
            let mut to = to.init_found();
            to.set_rows(&found.iter().map(|(row, _)| *row).collect::<Vec<_>>()[..])?;
            to.set_addresses(&found.iter().map(|(_, address)| *address).collect::<Vec<_>>()[..])?;
        }
        Err(failure) => failure.write(to.reborrow().init_failure()),
    }
    Ok(())
}

pub(crate) fn write_merge_status(status: Result<Vec<MergeStatus>>, to: merge_status::Builder<'_>) {
    let many = || Failure::new(FailureKind::Fatal, "there are too many partitions to tell of");
    let status = status.and_then(|all| u32::try_from(all.len()).map(|count| (all, count)).map_err(|_| many()));
    let (all, count) = match status {
        Ok(status) => status,
        Err(failure) => return failure.write(to.init_failure()),
    };
    let mut list = to.init_partitions(count);
    for (i, one) in (0u32..).zip(&all) {
        let mut to = list.reborrow().get(i);
        to.set_table(&one.table);
        to.set_ordinal(one.ordinal);
        to.set_segments(one.segments);
        to.set_to_merge(one.to_merge);
        to.set_rows_in_memory(one.rows_in_memory);
        to.set_deleted_rows(one.deleted_rows);
        to.set_state(&one.state);
        to.set_error(&one.error);
    }
}
