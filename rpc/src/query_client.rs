//! Queries on leaves elsewhere.

use std::sync::Arc;
use std::time::Duration;

use capnp_rpc::new_client;
use stoa_schema::common_capnp::{node_profile, row_sink};
use stoa_schema::leaf_capnp::{begun, fragment, query, query_setup, ran};

use crate::client::Remote;
use crate::leaf::{FilterMembers, FragmentRequest, LeafQuery, NodeProfile, QuerySetup, RowDestination, RunProfile};
use crate::pump::SinkServer;
use crate::running::{Heard, Part, Running, gather};
use crate::watch::Watch;
use crate::{ChunkSink, Failure, Io, Result};

pub(crate) struct RemoteQuery {
    /// The query, and the leaf that runs it.
    remote: Remote<(query::Client, Watch)>,
    number: u64,
}

impl RemoteQuery {
    /// The query of this number that began on a leaf, or why it did not; call it on the I/O thread.
    pub(crate) fn begun(from: begun::Reader<'_>, number: u64, io: Io, watch: Watch) -> Result<RemoteQuery> {
        match from.which().map_err(capnp::Error::from)? {
            begun::Query(query) => Ok(RemoteQuery { remote: Remote::new(io, (query?, watch)), number }),
            begun::Failure(failure) => Err(Failure::read(failure?)?),
        }
    }

    fn begin_fragment(&self, fragment: FragmentRequest) -> Running {
        let number = self.number;
        start(&self.remote, move |(query, watch), sink, heard| async move {
            let mut request = query.run_request();
            write_fragment(&fragment, request.get().init_fragment())?;
            request.get().set_sink(sink);
            let ran = async {
                let response = request.send().promise.await?;
                let ran = response.get()?;
                Ok((read_ran(ran.get_result()?)?, ran.get_rows()?.to_vec()))
            };
            watch.unless_silent_about(number, &heard, ran).await
        })
    }
}

impl LeafQuery for RemoteQuery {
    fn run(&self, fragment: FragmentRequest, sink: &mut dyn ChunkSink) -> Result<RunProfile> {
        let running = vec![self.begin_fragment(fragment)];
        let sink = std::cell::RefCell::new(sink);
        let mut take = |_, chunk| sink.borrow_mut().write(chunk);
        let ended = gather(running, &mut take, &mut || sink.borrow_mut().poll(), &mut || self.cancel());
        ended.into_iter().next().unwrap_or_else(|| Err(Failure::cancelled()))
    }

    fn start(self: Arc<Self>, fragment: FragmentRequest) -> Running {
        self.begin_fragment(fragment)
    }

    fn cancel(&self) {
        self.remote.tell(|(query, _)| async move {
            let _ = query.cancel_request().send().promise.await;
        });
    }
}

/// A fragment that a call runs, which writes rows to the sink that it gets, gives the last of them with its answer, and is dropped when
/// nobody waits for it any more.
pub(crate) fn start<C, F>(remote: &Remote<C>, call: impl FnOnce(C, row_sink::Client, Arc<Heard>) -> F + Send + 'static) -> Running
where
    C: Clone + 'static,
    F: Future<Output = Result<(RunProfile, Vec<u8>)>> + 'static,
{
    let (parts, running) = Running::new();
    let heard = running.heard().clone();
    remote.tell(move |object| async move {
        let sink: row_sink::Client = new_client(SinkServer(parts.clone()));
        let ran = tokio::select! {
            ran = call(object, sink, heard) => ran,
            () = parts.closed() => return,
        };
        let _ = parts.send(Part::Ended(ran)).await;
    });
    running
}

pub(crate) fn write_setup(from: &QuerySetup, mut to: query_setup::Builder<'_>) -> capnp::Result<()> {
    to.set_query(from.query);
    to.set_database(&from.database);
    to.set_address(&from.address);
    to.set_moment(from.moment);
    to.set_ordinals(&from.ordinals[..])
}

pub(crate) fn write_fragment(from: &FragmentRequest, mut to: fragment::Builder<'_>) -> capnp::Result<()> {
    to.set_plan(&from.plan);
    to.set_rows_in_answer(true);
    let mut filters = to.reborrow().init_filters(from.filters.len() as u32);
    for (i, filter) in (0u32..).zip(&from.filters) {
        let mut to = filters.reborrow().get(i);
        to.set_id(filter.id);
        to.set_min(filter.min);
        to.set_max(filter.max);
        to.set_keys(filter.keys);
        let mut members = to.init_members();
        match &filter.members {
            FilterMembers::All => members.set_all(()),
            FilterMembers::Bits(words) => members.set_bits(&words[..])?,
            FilterMembers::Bloom(words) => members.set_bloom(&words[..])?,
        }
    }
    match &from.destination {
        RowDestination::Caller => to.init_destination().set_caller(()),
        RowDestination::Leaves { number, addresses } => {
            let mut to = to.init_destination().init_leaves();
            to.set_number(*number);
            let mut list = to.init_addresses(addresses.len() as u32);
            (0u32..).zip(addresses).for_each(|(i, address)| list.set(i, address));
        }
        RowDestination::Shuffle { number, keys, addresses, owners } => {
            let mut to = to.init_destination().init_shuffle();
            to.set_shuffle_number(*number);
            to.set_keys(&keys[..])?;
            to.set_owners(&owners[..])?;
            let mut list = to.init_to(addresses.len() as u32);
            (0u32..).zip(addresses).for_each(|(i, address)| list.set(i, address));
        }
    }
    Ok(())
}

/// What a fragment did.
pub(crate) fn read_ran(from: ran::Reader<'_>) -> Result<RunProfile> {
    let profile = match from.which().map_err(capnp::Error::from)? {
        ran::Profile(profile) => profile,
        ran::Failure(failure) => return Err(Failure::read(failure?)?),
    };
    let nodes = profile.get_nodes()?.iter().map(read_node).collect::<capnp::Result<_>>()?;
    let wall = Duration::from_nanos(profile.get_wall_nanos());
    Ok(RunProfile { nodes, wall, peak_memory: profile.get_peak_memory(), sent_bytes: profile.get_sent_bytes() })
}

fn read_node(from: node_profile::Reader<'_>) -> capnp::Result<NodeProfile> {
    let scan = if from.has_scan() {
        let scan = from.get_scan()?;
        Some([
            scan.get_segments(),
            scan.get_segments_skipped(),
            scan.get_blocks(),
            scan.get_blocks_skipped(),
            scan.get_blocks_by_index(),
            scan.get_rows(),
            scan.get_rows_selected(),
            scan.get_values_decoded(),
        ])
    } else {
        None
    };
    let notes = from.get_notes()?.iter().map(|n| Ok(n?.to_string()?)).collect::<capnp::Result<_>>()?;
    Ok(NodeProfile {
        node: from.get_node(),
        rows: from.get_rows(),
        batches: from.get_batches(),
        cpu: Duration::from_nanos(from.get_nanos()),
        memory: from.get_memory(),
        scan,
        notes,
    })
}
