//! Queries of a leaf for those on the other side of a connection.

use std::sync::Arc;

use capnp::capability::Rc;
use parking_lot::Mutex;
use stoa_schema::common_capnp::{node_profile, row_sink};
use stoa_schema::leaf_capnp::{filter, fragment, query, query_setup, ran};

use crate::io::blocking;
use crate::leaf::{Filter, FilterMembers, FragmentRequest, LeafQuery, NodeProfile, QuerySetup, RowDestination, RunProfile};
use crate::pump::{self, LastInAnswer};
use crate::{Failure, FailureKind, Result};

/// A query that has begun.
pub(crate) struct QueryServer(pub Arc<dyn LeafQuery>);

/// Nobody can ask for this query any more: what still runs of it stops.
impl Drop for QueryServer {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl query::Server for QueryServer {
    async fn run(self: Rc<Self>, params: query::RunParams, mut results: query::RunResults) -> capnp::Result<()> {
        let (params, query) = (params.get()?, self.0.clone());
        let (ran, rows) = run(params.get_fragment()?, params.get_sink()?, || Ok(query)).await?;
        write_ran(ran, results.get().init_result());
        results.get().set_rows(&rows);
        Ok(())
    }

    async fn cancel(self: Rc<Self>, _: query::CancelParams, _: query::CancelResults) -> capnp::Result<()> {
        self.0.cancel();
        Ok(())
    }
}

/// A query that begins and ends within a call: dropped with the call, it stops what runs.
#[derive(Default)]
pub(crate) struct Guard(Begun);

/// What a [`Guard`] stops.
#[derive(Clone, Default)]
pub(crate) struct Begun(Arc<Mutex<State>>);

#[derive(Default)]
enum State {
    #[default]
    Nothing,
    Query(Arc<dyn LeafQuery>),
    GivenUp,
}

impl Guard {
    pub fn begun(&self) -> Begun {
        self.0.clone()
    }
}

impl Begun {
    /// The query, if the call is still there.
    pub fn keep(&self, query: Arc<dyn LeafQuery>) -> Result<Arc<dyn LeafQuery>> {
        let mut state = self.0.lock();
        if matches!(*state, State::GivenUp) {
            return Err(Failure::cancelled());
        }
        *state = State::Query(query.clone());
        Ok(query)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let State::Query(query) = std::mem::replace(&mut *self.0.0.lock(), State::GivenUp) {
            query.cancel();
        }
    }
}

/// Runs a fragment of the query that `begin` gives: what came of it, and the last rows for the answer.
pub(crate) async fn run(
    fragment: fragment::Reader<'_>,
    to: row_sink::Client,
    begin: impl FnOnce() -> Result<Arc<dyn LeafQuery>> + Send + 'static,
) -> capnp::Result<(Result<RunProfile>, Vec<u8>)> {
    let in_answer = fragment.get_rows_in_answer();
    let request = read_fragment(fragment)?;
    let (mut queue, chunks) = pump::queue();
    let run = blocking(move || {
        let query = begin()?;
        if !in_answer {
            return Ok((query.run(request, &mut queue)?, vec![]));
        }
        let mut sink = LastInAnswer::new(queue);
        Ok((query.run(request, &mut sink)?, sink.last()))
    });
    // The two run together: the rows go out while the fragment runs, and if they cannot, the fragment ends by it.
    let (ran, sent) = futures_util::future::join(run, pump::send(chunks, &to)).await;
    let ran = match (ran, sent) {
        (Err(failure), Err(sent)) if failure.kind == FailureKind::Cancelled => Err(sent),
        (Ok(_), Err(sent)) => Err(sent),
        (ran, _) => ran,
    };
    Ok(match ran {
        Ok((profile, rows)) => (Ok(profile), rows),
        Err(failure) => (Err(failure), vec![]),
    })
}

pub(crate) fn read_setup(from: query_setup::Reader<'_>) -> capnp::Result<QuerySetup> {
    Ok(QuerySetup {
        query: from.get_query(),
        database: from.get_database()?.to_string()?,
        address: from.get_address()?.to_string()?,
        ordinals: from.get_ordinals()?.iter().collect(),
        moment: from.get_moment(),
    })
}

fn read_fragment(from: fragment::Reader<'_>) -> capnp::Result<FragmentRequest> {
    let destination = match from.get_destination().which()? {
        fragment::destination::Caller(()) => RowDestination::Caller,
        fragment::destination::Leaves(to) => {
            let addresses = to.get_addresses()?.iter().map(|a| Ok(a?.to_string()?)).collect::<capnp::Result<_>>()?;
            RowDestination::Leaves { number: to.get_number(), addresses }
        }
        fragment::destination::Shuffle(to) => RowDestination::Shuffle {
            number: to.get_shuffle_number(),
            keys: to.get_keys()?.iter().collect(),
            addresses: to.get_to()?.iter().map(|a| Ok(a?.to_string()?)).collect::<capnp::Result<_>>()?,
            owners: to.get_owners()?.iter().collect(),
        },
    };
    let filters = from.get_filters()?.iter().map(read_filter).collect::<capnp::Result<_>>()?;
    Ok(FragmentRequest { plan: from.get_plan()?.to_vec(), destination, filters })
}

fn read_filter(from: filter::Reader<'_>) -> capnp::Result<Filter> {
    let members = match from.get_members().which()? {
        filter::members::All(()) => FilterMembers::All,
        filter::members::Bits(words) => FilterMembers::Bits(words?.iter().collect()),
        filter::members::Bloom(words) => FilterMembers::Bloom(words?.iter().collect()),
    };
    Ok(Filter { id: from.get_id(), min: from.get_min(), max: from.get_max(), keys: from.get_keys(), members })
}

pub(crate) fn write_ran(ran: Result<RunProfile>, to: ran::Builder<'_>) {
    let profile = match ran {
        Ok(profile) => profile,
        Err(failure) => return failure.write(to.init_failure()),
    };
    let mut to = to.init_profile();
    to.set_wall_nanos(profile.wall.as_nanos() as u64);
    to.set_peak_memory(profile.peak_memory);
    to.set_sent_bytes(profile.sent_bytes);
    let mut nodes = to.init_nodes(profile.nodes.len() as u32);
    for (i, node) in (0u32..).zip(&profile.nodes) {
        write_node(node, nodes.reborrow().get(i));
    }
}

fn write_node(node: &NodeProfile, mut to: node_profile::Builder<'_>) {
    to.set_node(node.node);
    to.set_rows(node.rows);
    to.set_batches(node.batches);
    to.set_nanos(node.cpu.as_nanos() as u64);
    to.set_memory(node.memory);
    let mut notes = to.reborrow().init_notes(node.notes.len() as u32);
    for (i, note) in (0u32..).zip(&node.notes) {
        notes.set(i, note);
    }
    if let Some(scan) = node.scan {
        let mut to = to.init_scan();
        to.set_segments(scan[0]);
        to.set_segments_skipped(scan[1]);
        to.set_blocks(scan[2]);
        to.set_blocks_skipped(scan[3]);
        to.set_blocks_by_index(scan[4]);
        to.set_rows(scan[5]);
        to.set_rows_selected(scan[6]);
        to.set_values_decoded(scan[7]);
    }
}
