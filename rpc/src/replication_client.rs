//! Heartbeats, and copies on leaves elsewhere as the [`FedCopy`] that they are.

use std::sync::Arc;
use std::time::Duration;

use stoa_schema::leaf_capnp::{fed, fed_copy, heartbeat, holdings, leaf, orders, position, report, stands};

use crate::client::{LONG, Remote};
use crate::done;
use crate::replication::{
    CopyOrder, CopyReport, CopyRole, FedCopy, FedReport, FedState, HeldCopy, Holdings, Orders, Position, Record, Report,
    RoleOrder,
};
use crate::watch::Watch;
use crate::{Failure, Io, Result};

/// A copy on another leaf, and that leaf.
pub(crate) struct RemoteCopy {
    remote: Remote<(fed_copy::Client, Watch)>,
}

/// Begins to feed a copy; call it on the I/O thread.
pub(crate) async fn feed(
    io: Io,
    leaf: leaf::Client,
    watch: Watch,
    (database, ordinal, term): (String, u32, u64),
) -> Result<(Arc<dyn FedCopy>, Position)> {
    let mut request = leaf.feed_request();
    request.get().set_database(&database);
    request.get().set_ordinal(ordinal);
    request.get().set_term(term);
    let response = request.send().promise.await?;
    match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
        fed::Open(open) => {
            let position = read_position(open.get_position()?);
            let copy = RemoteCopy { remote: Remote::new(io, (open.get_copy()?, watch)) };
            Ok((Arc::new(copy), position))
        }
        fed::Failure(failure) => Err(Failure::read(failure?)?),
    }
}

/// Sends orders; what the leaf reports.
pub(crate) async fn beat(leaf: leaf::Client, orders: Arc<Orders>) -> Result<Report> {
    let mut request = leaf.heartbeat_request();
    write_orders(&orders, request.get().init_orders());
    let response = request.send().promise.await?;
    match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
        heartbeat::Report(report) => Ok(read_report(report?)?),
        heartbeat::Failure(failure) => Err(Failure::read(failure?)?),
    }
}

/// All that a leaf has; call it on the I/O thread.
pub(crate) async fn holdings(leaf: leaf::Client) -> Result<Holdings> {
    let response = leaf.holdings_request().send().promise.await?;
    match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
        holdings::Held(held) => Ok(Holdings {
            catalog: held.get_catalog()?.to_vec(),
            copies: held.get_copies()?.iter().map(read_held).collect::<capnp::Result<_>>()?,
            silent: Duration::from_millis(held.get_silent_millis()),
        }),
        holdings::Failure(failure) => Err(Failure::read(failure?)?),
    }
}

fn read_held(from: holdings::copy::Reader<'_>) -> capnp::Result<HeldCopy> {
    Ok(HeldCopy {
        database: from.get_database()?.to_string()?,
        ordinal: from.get_ordinal(),
        term: from.get_term(),
        position: read_position(from.get_position()?),
        bytes: from.get_bytes(),
        tables: from.get_tables()?.iter().map(|table| Ok(table?.to_vec())).collect::<capnp::Result<_>>()?,
    })
}

impl RemoteCopy {
    /// Makes a call; a leaf that says nothing meanwhile counts as hung.
    fn call<T, F>(&self, call: impl FnOnce(fed_copy::Client) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + 'static,
    {
        self.remote.call(LONG, move |(copy, watch)| async move { watch.unless_silent("it has a copy", call(copy)).await })
    }
}

impl FedCopy for RemoteCopy {
    fn write(&self, records: Vec<Record>) -> Result<Position> {
        self.call(move |copy| async move {
            let mut request = copy.write_request();
            let mut to = request.get().init_records(records.len() as u32);
            for (i, record) in (0u32..).zip(&records) {
                let mut to = to.reborrow().get(i);
                to.set_lsn(record.lsn);
                to.set_term(record.term);
                to.set_body(&record.body);
                to.set_more(record.more);
            }
            read_stands(request.send().promise.await?.get()?.get_result()?)
        })
    }

    fn file(&self, name: &str, data: Vec<u8>, last: bool) -> Result<()> {
        let name = name.to_owned();
        self.call(move |copy| async move {
            let mut request = copy.file_request();
            request.get().set_name(&name);
            request.get().set_data(&data);
            request.get().set_last(last);
            done::read(request.send().promise.await?.get()?.get_result()?)
        })
    }

    fn copy_anew(&self) -> Result<()> {
        self.call(|copy| async move { done::read(copy.copy_anew_request().send().promise.await?.get()?.get_result()?) })
    }

    fn finish_copy(&self) -> Result<Position> {
        self.call(|copy| async move { read_stands(copy.finish_copy_request().send().promise.await?.get()?.get_result()?) })
    }
}

fn read_position(from: position::Reader<'_>) -> Position {
    Position { lsn: from.get_lsn(), term: from.get_term(), checksum: from.get_checksum() }
}

fn read_stands(from: stands::Reader<'_>) -> Result<Position> {
    match from.which().map_err(capnp::Error::from)? {
        stands::Position(position) => Ok(read_position(position?)),
        stands::Failure(failure) => Err(Failure::read(failure?)?),
    }
}

fn write_orders(from: &Orders, mut to: orders::Builder<'_>) {
    to.set_version(from.version);
    to.set_supersedes(from.supersedes);
    to.set_incarnation(from.processed.0);
    to.set_sequence(from.processed.1);
    to.set_catalog(&from.catalog);
    let mut copies = to.init_copies(from.copies.len() as u32);
    for (i, CopyOrder { database, ordinal, term, role, asynchronous }) in (0u32..).zip(&from.copies) {
        let mut to = copies.reborrow().get(i);
        to.set_database(database);
        to.set_ordinal(*ordinal);
        to.set_term(*term);
        to.set_async(*asynchronous);
        match role {
            RoleOrder::Replica => to.init_role().set_replica(()),
            RoleOrder::Master { in_sync, feed } => {
                let mut to = to.init_role().init_master();
                let mut list = to.reborrow().init_in_sync(in_sync.len() as u32);
                (0u32..).zip(in_sync).for_each(|(i, address)| list.set(i, address));
                let mut list = to.init_feed(feed.len() as u32);
                (0u32..).zip(feed).for_each(|(i, address)| list.set(i, address));
            }
        }
    }
}

fn read_report(from: report::Reader<'_>) -> capnp::Result<Report> {
    let copies = from.get_copies()?.iter().map(read_copy).collect::<capnp::Result<_>>()?;
    let (incarnation, sequence, version) = (from.get_incarnation(), from.get_sequence(), from.get_version());
    let (rate, kept) = (from.get_rate(), from.get_kept());
    let free = Some(from.get_free()).filter(|free| *free > 0);
    Ok(Report { incarnation, sequence, version, copies, free, rate, kept })
}

fn read_copy(from: report::copy::Reader<'_>) -> capnp::Result<CopyReport> {
    let role = match from.get_role()? {
        report::Role::None => CopyRole::None,
        report::Role::Master => CopyRole::Master,
        report::Role::Replica => CopyRole::Replica,
    };
    Ok(CopyReport {
        database: from.get_database()?.to_string()?,
        ordinal: from.get_ordinal(),
        term: from.get_term(),
        role,
        position: read_position(from.get_position()?),
        failure: from.get_failure()?.to_string()?,
        fed: from.get_fed()?.iter().map(read_fed).collect::<capnp::Result<_>>()?,
        bytes: from.get_bytes(),
    })
}

fn read_fed(from: report::fed_copy::Reader<'_>) -> capnp::Result<FedReport> {
    let state = match from.get_state()? {
        report::State::Connecting => FedState::Connecting,
        report::State::Copying => FedState::Copying,
        report::State::Following => FedState::Following,
        report::State::InSync => FedState::InSync,
        report::State::Failed => FedState::Failed,
    };
    Ok(FedReport {
        address: from.get_address()?.to_string()?,
        state,
        lsn: from.get_lsn(),
        failure: from.get_failure()?.to_string()?,
        copied: (from.get_bytes_copied(), from.get_bytes_to_copy()),
    })
}
