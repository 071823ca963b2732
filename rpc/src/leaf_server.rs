//! A [`LeafService`] on a port.

use std::sync::Arc;

use capnp::capability::Rc;
use capnp_rpc::new_client;
use parking_lot::Mutex;
use stoa_schema::common_capnp::row_sink;
use stoa_schema::leaf_capnp::{change, gate, leaf, load};

use crate::backup_server::{self, BackupServer};
use crate::done;
use crate::door::{Door, Who};
use crate::io::{blocking, urgent};
use crate::leaf::{Change, Delivery, LeafService, Load, OptimizeHow};
use crate::listen::{Limits, Listener, listen};
use crate::query_server::{self, Guard, QueryServer};
use crate::replication_server::{self, FedCopyServer};
use crate::transaction_server::{self, TransactionServer};
use crate::{Io, MAJOR, MINOR, Result, Security, origin};

/// Serves a leaf on a port.
///
/// # Errors
/// If the address cannot be listened on, or would be open to others without a secret and TLS.
pub fn serve_leaf(
    io: &Io,
    address: &str,
    security: &Security,
    limits: Limits,
    service: Arc<dyn LeafService>,
) -> Result<Listener> {
    listen(io, address, security, limits, move |door| {
        let gate: gate::Client = new_client(GateServer { service: service.clone(), door });
        gate.client
    })
}

struct GateServer {
    service: Arc<dyn LeafService>,
    door: Door,
}

impl gate::Server for GateServer {
    async fn enter(self: Rc<Self>, params: gate::EnterParams, mut results: gate::EnterResults) -> capnp::Result<()> {
        let verdict = self.door.check(params.get()?.get_hello()?)?;
        let mut result = results.get().init_result();
        result.set_major(MAJOR);
        result.set_minor(MINOR);
        match verdict.and_then(|()| self.door.let_in(Who::Node)) {
            Ok(()) => result.set_leaf(new_client(LeafServer { service: self.service.clone() })),
            Err(failure) => failure.write(result.init_failure()),
        }
        Ok(())
    }
}

struct LeafServer {
    service: Arc<dyn LeafService>,
}

impl leaf::Server for LeafServer {
    async fn status(self: Rc<Self>, _: leaf::StatusParams, mut results: leaf::StatusResults) -> capnp::Result<()> {
        let service = self.service.clone();
        let databases = urgent(move || service.status()).await?;
        let mut list = results.get().init_status().init_databases(databases.len() as u32);
        for (i, database) in (0u32..).zip(&databases) {
            let mut to = list.reborrow().get(i);
            to.set_name(&database.name);
            to.set_bytes(database.bytes);
            to.set_ordinals(&database.ordinals[..])?;
        }
        Ok(())
    }

    async fn begin(self: Rc<Self>, params: leaf::BeginParams, mut results: leaf::BeginResults) -> capnp::Result<()> {
        let setup = query_server::read_setup(params.get()?.get_setup()?)?;
        let service = self.service.clone();
        let mut result = results.get().init_result();
        match blocking(move || service.begin(setup)).await {
            Ok(query) => result.set_query(new_client(QueryServer(query))),
            Err(failure) => failure.write(result.init_failure()),
        }
        Ok(())
    }

    async fn query(self: Rc<Self>, params: leaf::QueryParams, mut results: leaf::QueryResults) -> capnp::Result<()> {
        let params = params.get()?;
        let setup = query_server::read_setup(params.get_setup()?)?;
        let (service, guard) = (self.service.clone(), Guard::default());
        let begun = guard.begun();
        let begin = move || begun.keep(service.begin(setup)?);
        let (ran, rows) = query_server::run(params.get_fragment()?, params.get_sink()?, begin).await?;
        query_server::write_ran(ran, results.get().init_result());
        results.get().set_rows(&rows);
        Ok(())
    }

    async fn progress(self: Rc<Self>, params: leaf::ProgressParams, mut results: leaf::ProgressResults) -> capnp::Result<()> {
        let (service, query) = (self.service.clone(), params.get()?.get_query());
        let (done, total) = blocking(move || service.progress(query)).await?;
        results.get().set_done(done);
        results.get().set_total(total);
        Ok(())
    }

    async fn receive(self: Rc<Self>, params: leaf::ReceiveParams, mut results: leaf::ReceiveResults) -> capnp::Result<()> {
        let (query, number) = (params.get()?.get_query(), params.get()?.get_number());
        let service = self.service.clone();
        let mut result = results.get().init_result();
        match blocking(move || service.receive(query, number)).await {
            Ok(delivery) => result.set_sink(new_client(DeliveryServer(Arc::new(Mutex::new(delivery))))),
            Err(failure) => failure.write(result.init_failure()),
        }
        Ok(())
    }

    async fn change(self: Rc<Self>, params: leaf::ChangeParams, mut results: leaf::ChangeResults) -> capnp::Result<()> {
        let change = read_change(params.get()?.get_change()?)?;
        let service = self.service.clone();
        done::write(blocking(move || service.change(change)).await, results.get().init_result());
        Ok(())
    }

    async fn load(self: Rc<Self>, params: leaf::LoadParams, mut results: leaf::LoadResults) -> capnp::Result<()> {
        let params = params.get()?;
        let (database, table) = (params.get_database()?.to_string()?, params.get_table()?.to_string()?);
        let (service, ordinal) = (self.service.clone(), params.get_ordinal());
        let mut result = results.get().init_result();
        match blocking(move || service.load(&database, &table, ordinal)).await {
            Ok(load) => result.set_load(new_client(LoadServer::new(load))),
            Err(failure) => failure.write(result.init_failure()),
        }
        Ok(())
    }

    async fn statistics(
        self: Rc<Self>,
        params: leaf::StatisticsParams,
        mut results: leaf::StatisticsResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let database = params.get_database()?.to_string()?;
        let ordinals: Vec<u32> = params.get_ordinals()?.iter().collect();
        let service = self.service.clone();
        let mut result = results.get().init_result();
        match blocking(move || service.statistics(&database, &ordinals)).await {
            Ok(tables) => result.set_tables(&tables),
            Err(failure) => failure.write(result.init_failure()),
        }
        Ok(())
    }

    async fn begin_transaction(
        self: Rc<Self>,
        params: leaf::BeginTransactionParams,
        mut results: leaf::BeginTransactionResults,
    ) -> capnp::Result<()> {
        let setup = transaction_server::read_setup(params.get()?.get_setup()?, params.get()?.get_blind())?;
        let service = self.service.clone();
        let mut result = results.get().init_result();
        match blocking(move || service.begin_transaction(setup)).await {
            Ok(transaction) => result.set_transaction(new_client(TransactionServer::new(transaction))),
            Err(failure) => failure.write(result.init_failure()),
        }
        Ok(())
    }

    async fn resolve(self: Rc<Self>, params: leaf::ResolveParams, mut results: leaf::ResolveResults) -> capnp::Result<()> {
        let params = params.get()?;
        let (database, ordinal) = (params.get_database()?.to_string()?, params.get_ordinal());
        let (transaction, commit) = (params.get_transaction(), params.get_commit().then_some(params.get_moment()));
        let service = self.service.clone();
        let resolved = urgent(move || service.resolve(&database, ordinal, transaction, commit)).await;
        done::write(resolved, results.get().init_result());
        Ok(())
    }

    async fn outcome(self: Rc<Self>, params: leaf::OutcomeParams, mut results: leaf::OutcomeResults) -> capnp::Result<()> {
        let params = params.get()?;
        let (database, ordinal) = (params.get_database()?.to_string()?, params.get_ordinal());
        let (service, transaction) = (self.service.clone(), params.get_transaction());
        let mut result = results.get().init_result();
        match urgent(move || service.outcome(&database, ordinal, transaction)).await {
            Ok(commit) => {
                result.set_commit(commit.is_some());
                result.set_moment(commit.unwrap_or(0));
            }
            Err(failure) => failure.write(result.init_failure()),
        }
        Ok(())
    }

    async fn forget(self: Rc<Self>, params: leaf::ForgetParams, mut results: leaf::ForgetResults) -> capnp::Result<()> {
        let params = params.get()?;
        let (database, ordinal) = (params.get_database()?.to_string()?, params.get_ordinal());
        let transactions: Vec<u64> = params.get_transactions()?.iter().collect();
        let service = self.service.clone();
        done::write(blocking(move || service.forget(&database, ordinal, &transactions)).await, results.get().init_result());
        Ok(())
    }

    async fn optimize(self: Rc<Self>, params: leaf::OptimizeParams, mut results: leaf::OptimizeResults) -> capnp::Result<()> {
        let params = params.get()?;
        let (database, table) = (params.get_database()?.to_string()?, params.get_table()?.to_string()?);
        let how = match params.get_how()? {
            stoa_schema::leaf_capnp::OptimizeHow::Merge => OptimizeHow::Merge,
            stoa_schema::leaf_capnp::OptimizeHow::Full => OptimizeHow::Full,
            stoa_schema::leaf_capnp::OptimizeHow::Flush => OptimizeHow::Flush,
        };
        let service = self.service.clone();
        done::write(blocking(move || service.optimize(&database, &table, how)).await, results.get().init_result());
        Ok(())
    }

    async fn merge_status(
        self: Rc<Self>,
        params: leaf::MergeStatusParams,
        mut results: leaf::MergeStatusResults,
    ) -> capnp::Result<()> {
        let (service, database) = (self.service.clone(), params.get()?.get_database()?.to_string()?);
        let result = results.get().init_result();
        transaction_server::write_merge_status(blocking(move || service.merge_status(&database)).await, result);
        Ok(())
    }

    async fn heartbeat(self: Rc<Self>, params: leaf::HeartbeatParams, mut results: leaf::HeartbeatResults) -> capnp::Result<()> {
        let orders = Arc::new(replication_server::read_orders(params.get()?.get_orders()?)?);
        let service = self.service.clone();
        replication_server::write_heartbeat(urgent(move || service.heartbeat(&orders)).await, results.get().init_result());
        Ok(())
    }

    async fn feed(self: Rc<Self>, params: leaf::FeedParams, mut results: leaf::FeedResults) -> capnp::Result<()> {
        let params = params.get()?;
        let (database, ordinal, term) = (params.get_database()?.to_string()?, params.get_ordinal(), params.get_term());
        let service = self.service.clone();
        let result = results.get().init_result();
        match urgent(move || service.feed(&database, ordinal, term)).await {
            Ok((copy, position)) => {
                let mut open = result.init_open();
                open.set_copy(new_client(FedCopyServer::new(copy)));
                replication_server::write_position(position, open.init_position());
            }
            Err(failure) => failure.write(result.init_failure()),
        }
        Ok(())
    }

    async fn drop_partition(
        self: Rc<Self>,
        params: leaf::DropPartitionParams,
        mut results: leaf::DropPartitionResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let (database, ordinal) = (params.get_database()?.to_string()?, params.get_ordinal());
        let service = self.service.clone();
        done::write(blocking(move || service.drop_partition(&database, ordinal)).await, results.get().init_result());
        Ok(())
    }

    async fn backup(self: Rc<Self>, params: leaf::BackupParams, mut results: leaf::BackupResults) -> capnp::Result<()> {
        let setup = backup_server::read_setup(params.get()?.get_setup()?)?;
        let service = self.service.clone();
        let mut result = results.get().init_result();
        match blocking(move || service.backup(setup)).await {
            Ok(backup) => result.set_backup(new_client(BackupServer::new(backup))),
            Err(failure) => failure.write(result.init_failure()),
        }
        Ok(())
    }

    async fn restore(self: Rc<Self>, params: leaf::RestoreParams, mut results: leaf::RestoreResults) -> capnp::Result<()> {
        let params = params.get()?;
        let (database, ordinal) = (params.get_database()?.to_string()?, params.get_ordinal());
        let (service, from) = (self.service.clone(), backup_server::read_place(params.get_from()?)?);
        done::write(blocking(move || service.restore(&database, ordinal, &from)).await, results.get().init_result());
        Ok(())
    }

    async fn holdings(self: Rc<Self>, _: leaf::HoldingsParams, mut results: leaf::HoldingsResults) -> capnp::Result<()> {
        let service = self.service.clone();
        replication_server::write_holdings(blocking(move || service.holdings()).await, results.get().init_result());
        Ok(())
    }

    async fn in_doubt(self: Rc<Self>, _: leaf::InDoubtParams, mut results: leaf::InDoubtResults) -> capnp::Result<()> {
        let service = self.service.clone();
        let all = urgent(move || service.in_doubt()).await?;
        let mut list = results.get().init_transactions(all.len() as u32);
        for (i, one) in (0u32..).zip(&all) {
            let mut to = list.reborrow().get(i);
            to.set_database(&one.database);
            to.set_ordinal(one.ordinal);
            to.set_transaction(one.transaction);
            to.set_decider(one.decider);
        }
        Ok(())
    }
}

struct DeliveryServer(Arc<Mutex<Box<dyn Delivery>>>);

impl row_sink::Server for DeliveryServer {
    async fn write(self: Rc<Self>, params: row_sink::WriteParams, _: row_sink::WriteResults) -> capnp::Result<()> {
        let chunk = params.get()?.get_chunk()?.to_vec();
        let delivery = self.0.clone();
        Ok(blocking(move || delivery.lock().write(chunk)).await?)
    }

    async fn done(self: Rc<Self>, params: row_sink::DoneParams, _: row_sink::DoneResults) -> capnp::Result<()> {
        let last = params.get()?.get_chunk()?.to_vec();
        let delivery = self.0.clone();
        let finish = move || {
            let mut delivery = delivery.lock();
            if !last.is_empty() {
                delivery.write(last)?;
            }
            delivery.finish()
        };
        Ok(blocking(finish).await?)
    }
}

pub(crate) struct LoadServer(Arc<Mutex<Box<dyn Load>>>);

impl LoadServer {
    pub fn new(load: Box<dyn Load>) -> LoadServer {
        LoadServer(Arc::new(Mutex::new(load)))
    }
}

impl load::Server for LoadServer {
    async fn write(self: Rc<Self>, params: load::WriteParams, mut results: load::WriteResults) -> capnp::Result<()> {
        let params = params.get()?;
        let (chunk, from) = (params.get_chunk()?.to_vec(), origin::sent(params.has_origin(), || params.get_origin())?);
        let load = self.0.clone();
        done::write(blocking(move || load.lock().write(chunk, from)).await, results.get().init_result());
        Ok(())
    }

    async fn prepare(self: Rc<Self>, _: load::PrepareParams, mut results: load::PrepareResults) -> capnp::Result<()> {
        let load = self.0.clone();
        done::write(blocking(move || load.lock().prepare()).await, results.get().init_result());
        Ok(())
    }

    async fn commit(self: Rc<Self>, _: load::CommitParams, mut results: load::CommitResults) -> capnp::Result<()> {
        let load = self.0.clone();
        done::write(blocking(move || load.lock().commit()).await, results.get().init_result());
        Ok(())
    }
}

fn read_change(from: change::Reader<'_>) -> capnp::Result<Change> {
    Ok(match from.which()? {
        change::CreatePartitions(from) => Change::CreatePartitions {
            database: from.get_database()?.to_string()?,
            ordinals: from.get_ordinals()?.iter().collect(),
        },
        change::DropDatabase(name) => Change::DropDatabase(name?.to_string()?),
        change::CreateTable(from) => {
            Change::CreateTable { database: from.get_database()?.to_string()?, definition: from.get_definition()?.to_vec() }
        }
        change::DropTable(from) => {
            Change::DropTable { database: from.get_database()?.to_string()?, table: from.get_table()?.to_string()? }
        }
        change::TruncateTable(from) => {
            Change::TruncateTable { database: from.get_database()?.to_string()?, table: from.get_table()?.to_string()? }
        }
        change::AlterTable(from) => {
            Change::AlterTable { database: from.get_database()?.to_string()?, definition: from.get_definition()?.to_vec() }
        }
    })
}
