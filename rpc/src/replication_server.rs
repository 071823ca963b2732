//! Heartbeats, and a [`FedCopy`] as an RPC object.

use std::sync::Arc;

use capnp::capability::Rc;
use stoa_schema::leaf_capnp::{fed_copy, heartbeat, holdings, orders, position, report, stands};

use crate::Result;
use crate::done;
use crate::io::urgent;
use crate::replication::{
    CopyOrder, CopyReport, CopyRole, FedCopy, FedState, Holdings, Orders, Position, Record, Report, RoleOrder,
};

pub(crate) struct FedCopyServer {
    copy: Arc<dyn FedCopy>,
}

impl FedCopyServer {
    pub fn new(copy: Arc<dyn FedCopy>) -> FedCopyServer {
        FedCopyServer { copy }
    }

    /// Runs a call of the copy beside the I/O thread.
    async fn call<T: Send + 'static>(&self, call: impl FnOnce(&dyn FedCopy) -> Result<T> + Send + 'static) -> Result<T> {
        let copy = self.copy.clone();
        urgent(move || call(&*copy)).await
    }
}

impl fed_copy::Server for FedCopyServer {
    async fn write(self: Rc<Self>, params: fed_copy::WriteParams, mut results: fed_copy::WriteResults) -> capnp::Result<()> {
        let record = |from: stoa_schema::leaf_capnp::record::Reader<'_>| {
            let body = from.get_body()?.to_vec();
            capnp::Result::Ok(Record { lsn: from.get_lsn(), term: from.get_term(), body, more: from.get_more() })
        };
        let records = params.get()?.get_records()?.iter().map(record).collect::<capnp::Result<_>>()?;
        write_stands(self.call(move |copy| copy.write(records)).await, results.get().init_result());
        Ok(())
    }

    async fn file(self: Rc<Self>, params: fed_copy::FileParams, mut results: fed_copy::FileResults) -> capnp::Result<()> {
        let params = params.get()?;
        let (name, data, last) = (params.get_name()?.to_string()?, params.get_data()?.to_vec(), params.get_last());
        done::write(self.call(move |copy| copy.file(&name, data, last)).await, results.get().init_result());
        Ok(())
    }

    async fn copy_anew(self: Rc<Self>, _: fed_copy::CopyAnewParams, mut results: fed_copy::CopyAnewResults) -> capnp::Result<()> {
        done::write(self.call(|copy| copy.copy_anew()).await, results.get().init_result());
        Ok(())
    }

    async fn finish_copy(
        self: Rc<Self>,
        _: fed_copy::FinishCopyParams,
        mut results: fed_copy::FinishCopyResults,
    ) -> capnp::Result<()> {
        write_stands(self.call(|copy| copy.finish_copy()).await, results.get().init_result());
        Ok(())
    }
}

pub(crate) fn write_position(from: Position, mut to: position::Builder<'_>) {
    to.set_lsn(from.lsn);
    to.set_term(from.term);
    to.set_checksum(from.checksum);
}

fn write_stands(outcome: Result<Position>, to: stands::Builder<'_>) {
    match outcome {
        Ok(position) => write_position(position, to.init_position()),
        Err(failure) => failure.write(to.init_failure()),
    }
}

pub(crate) fn read_orders(from: orders::Reader<'_>) -> capnp::Result<Orders> {
    let copies = from.get_copies()?.iter().map(read_copy).collect::<capnp::Result<_>>()?;
    let (version, supersedes, catalog) = (from.get_version(), from.get_supersedes(), from.get_catalog()?.to_vec());
    Ok(Orders { version, processed: (from.get_incarnation(), from.get_sequence()), copies, supersedes, catalog })
}

fn read_copy(from: orders::copy::Reader<'_>) -> capnp::Result<CopyOrder> {
    let addresses =
        |list: capnp::text_list::Reader<'_>| list.iter().map(|a| Ok(a?.to_string()?)).collect::<capnp::Result<Vec<String>>>();
    let role = match from.get_role().which()? {
        orders::copy::role::Replica(()) => RoleOrder::Replica,
        orders::copy::role::Master(master) => {
            RoleOrder::Master { in_sync: addresses(master.get_in_sync()?)?, feed: addresses(master.get_feed()?)? }
        }
    };
    let database = from.get_database()?.to_string()?;
    Ok(CopyOrder { database, ordinal: from.get_ordinal(), term: from.get_term(), role, asynchronous: from.get_async() })
}

pub(crate) fn write_heartbeat(outcome: Result<Report>, to: heartbeat::Builder<'_>) {
    let report = match outcome {
        Ok(report) => report,
        Err(failure) => return failure.write(to.init_failure()),
    };
    let mut to = to.init_report();
    to.set_incarnation(report.incarnation);
    to.set_sequence(report.sequence);
    to.set_version(report.version);
    // 0 says that it is not known, and a full disk is not to be taken for that.
    to.set_free(report.free.map_or(0, |free| free.max(1)));
    to.set_rate(report.rate);
    to.set_kept(report.kept);
    let mut copies = to.init_copies(report.copies.len() as u32);
    for (i, copy) in (0u32..).zip(&report.copies) {
        write_copy(copy, copies.reborrow().get(i));
    }
}

pub(crate) fn write_holdings(outcome: Result<Holdings>, to: holdings::Builder<'_>) {
    let held = match outcome {
        Ok(held) => held,
        Err(failure) => return failure.write(to.init_failure()),
    };
    let mut to = to.init_held();
    to.set_catalog(&held.catalog);
    to.set_silent_millis(u64::try_from(held.silent.as_millis()).unwrap_or(u64::MAX));
    let mut copies = to.init_copies(held.copies.len() as u32);
    for (i, copy) in (0u32..).zip(&held.copies) {
        let mut to = copies.reborrow().get(i);
        to.set_database(&copy.database);
        to.set_ordinal(copy.ordinal);
        to.set_term(copy.term);
        to.set_bytes(copy.bytes);
        write_position(copy.position, to.reborrow().init_position());
        let mut tables = to.init_tables(copy.tables.len() as u32);
        (0u32..).zip(&copy.tables).for_each(|(i, table)| tables.set(i, table));
    }
}

fn write_copy(from: &CopyReport, mut to: report::copy::Builder<'_>) {
    to.set_database(&from.database);
    to.set_ordinal(from.ordinal);
    to.set_term(from.term);
    to.set_role(match from.role {
        CopyRole::None => report::Role::None,
        CopyRole::Master => report::Role::Master,
        CopyRole::Replica => report::Role::Replica,
    });
    write_position(from.position, to.reborrow().init_position());
    to.set_failure(&from.failure);
    to.set_bytes(from.bytes);
    let mut fed = to.init_fed(from.fed.len() as u32);
    for (i, copy) in (0u32..).zip(&from.fed) {
        let mut to = fed.reborrow().get(i);
        to.set_address(&copy.address);
        to.set_lsn(copy.lsn);
        to.set_failure(&copy.failure);
        to.set_bytes_copied(copy.copied.0);
        to.set_bytes_to_copy(copy.copied.1);
        to.set_state(match copy.state {
            FedState::Connecting => report::State::Connecting,
            FedState::Copying => report::State::Copying,
            FedState::Following => report::State::Following,
            FedState::InSync => report::State::InSync,
            FedState::Failed => report::State::Failed,
        });
    }
}
