//! A query on its leaves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use parking_lot::Mutex;
use stoa_columnstore::KeySet;
use stoa_columnstore::predicate::KeyMembers;
use stoa_exec::profile::{Profile, ScanCounters};
use stoa_exec::{CancelToken, Destination, Fragment, Fragments, QueryContext, ReadLeaves, TakeRows};
use stoa_plan::codec::encode;
use stoa_rpc::ipc::{take_chunk, write_chunks};
use stoa_rpc::leaf::{Filter, FilterMembers, FragmentRequest, LeafQuery, LeafService, QuerySetup, RowDestination, RunProfile};
use stoa_rpc::{ChunkSink, Failure, FailureKind};

use super::transaction::Participants;
use super::{Database, Shared, streaming};
use crate::error::remote;

/// A query on the leaves that have its database. It begins on them with its first fragment, and ends when this is dropped.
pub(super) struct QueryOnLeaves<'a> {
    number: u64,
    database: Arc<Database>,
    shared: &'a Shared,
    /// The transaction that it is a part of.
    within: Option<&'a Participants>,
    begun: Mutex<Option<Arc<Vec<OneLeaf>>>>,
    /// What a leaf said last of why it did not do its part.
    failure: Mutex<Option<Failure>>,
}

struct OneLeaf {
    address: String,
    service: Arc<dyn LeafService>,
    query: Arc<dyn LeafQuery>,
    /// Whether it has partitions; otherwise it only has REFERENCE tables.
    partitions: bool,
}

impl<'a> QueryOnLeaves<'a> {
    pub fn new(database: Arc<Database>, shared: &'a Shared, number: u64, within: Option<&'a Participants>) -> QueryOnLeaves<'a> {
        QueryOnLeaves { number, database, shared, within, begun: Mutex::default(), failure: Mutex::default() }
    }

    /// An error of the query, as the failure of the leaf if it comes from one.
    pub fn explained(&self, error: stoa_exec::Error) -> crate::Error {
        match (error, self.failure.lock().take()) {
            (stoa_exec::Error::Remote { .. } | stoa_exec::Error::Cancelled, Some(failure)) => failure.into(),
            (error, _) => error.into(),
        }
    }

    /// A failure of a leaf as the executor takes it.
    pub(super) fn failed(&self, failure: Failure) -> stoa_exec::Error {
        *self.failure.lock() = Some(failure.clone());
        remote(failure)
    }

    /// A leaf of the query that is not online any more: nobody waits for it, nor for those that send it rows.
    fn lost(&self, leaves: &[OneLeaf]) -> Option<Failure> {
        let now = self.shared.control.database(&self.database.name).ok()?;
        let gone = leaves.iter().find(|leaf| !now.leaves.contains(&leaf.address))?;
        Some(Failure::new(FailureKind::Retryable, format!("leaf {} is not online any more", gone.address)))
    }

    /// The leaves of the query; begins on them if it has not.
    fn leaves(&self) -> stoa_exec::Result<Arc<Vec<OneLeaf>>> {
        let mut begun = self.begun.lock();
        if let Some(leaves) = &*begun {
            return Ok(leaves.clone());
        }
        let leaves = Arc::new(self.begin().map_err(|e| self.failed(e.into_failure()))?);
        *begun = Some(leaves.clone());
        Ok(leaves)
    }

    /// Begins on every leaf that is the master of a partition; without any, on one leaf for the REFERENCE tables.
    fn begin(&self) -> crate::Result<Vec<OneLeaf>> {
        let mut placement: BTreeMap<String, Vec<u32>> = self.database.placement()?;
        if placement.is_empty() {
            placement.extend(self.database.leaves.first().map(|address| (address.clone(), vec![])));
        }
        let begin = |(address, ordinals): (&String, &Vec<u32>)| {
            let service = self.shared.leaves.leaf(address)?;
            let setup = QuerySetup {
                query: self.number,
                database: self.database.name.clone(),
                address: address.clone(),
                ordinals: ordinals.clone(),
            };
            let query = match self.within {
                Some(transaction) => transaction.leaf(address)?.query(self.number),
                None => service.begin(setup),
            };
            let query = query.map_err(|e| at(address, e))?;
            Ok(OneLeaf { address: address.clone(), service, query, partitions: !ordinals.is_empty() })
        };
        Ok(in_parallel(&placement.iter().collect::<Vec<_>>(), |leaf| begin(*leaf))?)
    }
}

impl QueryOnLeaves<'_> {
    /// Where rows go, by the addresses of leaves.
    fn destination(&self, to: &Destination, leaves: &[OneLeaf]) -> RowDestination {
        let addresses = |leaves: &[&OneLeaf]| leaves.iter().map(|leaf| leaf.address.clone()).collect();
        match to {
            Destination::Caller => RowDestination::Caller,
            Destination::Leaves(number) => {
                RowDestination::Leaves { number: *number, addresses: addresses(&leaves.iter().collect::<Vec<_>>()) }
            }
            Destination::Shuffle { number, keys } => {
                let leaves: Vec<&OneLeaf> = leaves.iter().filter(|leaf| leaf.partitions).collect();
                let place = |master: &Option<String>| leaves.iter().position(|leaf| Some(&leaf.address) == master.as_ref());
                // A partition that the query does not read: what would meet its rows may be anywhere, but all of it in one place.
                let owner = |(ordinal, master)| place(master).unwrap_or(ordinal % leaves.len().max(1)) as u32;
                let owners = self.database.masters.iter().enumerate().map(owner).collect();
                RowDestination::Shuffle { number: *number, keys: keys.clone(), addresses: addresses(&leaves), owners }
            }
        }
    }
}

/// A fragment that is about to run on leaves.
pub(super) struct Going {
    all: Arc<Vec<OneLeaf>>,
    /// Those of `all` that run it.
    which: Vec<usize>,
    request: FragmentRequest,
}

impl Going {
    /// How many leaves run it.
    pub fn leaves(&self) -> usize {
        self.which.len()
    }

    /// One of those that run it.
    fn leaf(&self, which: usize) -> &OneLeaf {
        &self.all[self.which[which]]
    }

    /// Stops what runs of the query on a leaf.
    pub fn cancel(&self, which: usize) {
        self.leaf(which).query.cancel();
    }
}

impl QueryOnLeaves<'_> {
    /// Begins on the leaves if need be, and makes a fragment ready to go there.
    pub(super) fn going(&self, fragment: &Fragment) -> stoa_exec::Result<Going> {
        let all = self.leaves()?;
        let plan = encode(&fragment.query).map_err(|e| stoa_exec::Error::Internal(e.to_string()))?;
        let destination = self.destination(&fragment.destination, &all);
        let filters = fragment.filters.iter().map(|(id, keys)| filter(id.0, keys)).collect();
        let which =
            if fragment.once { (0..all.len().min(1)).collect() } else { (0..all.len()).filter(|i| all[*i].partitions).collect() };
        Ok(Going { all, which, request: FragmentRequest { plan, destination, filters } })
    }

    /// Runs a fragment on one of its leaves and hands `take` the rows that come back, until the query is cancelled, `over` is set, or a
    /// leaf is lost.
    pub(super) fn run_on(
        &self,
        going: &Going,
        which: usize,
        (ctx, over): (&QueryContext, &CancelToken),
        take: &mut dyn FnMut(Vec<RecordBatch>) -> Result<(), Failure>,
    ) -> Result<RunProfile, Failure> {
        let leaf = going.leaf(which);
        let lost = || self.lost(&going.all);
        let mut sink = Gather { take, cancel: &ctx.cancel, over, lost: &lost };
        leaf.query.run(going.request.clone(), &mut sink).map_err(|e| at(&leaf.address, e))
    }

    /// What leaves did, each by its place among those of the fragment.
    pub(super) fn profile(&self, going: &Going, ran: Vec<(usize, RunProfile)>) -> Profile {
        let mut profile = Profile::default();
        let rows: Vec<u64> = ran.iter().map(|(_, ran)| rows_of_root(ran)).collect();
        let root = ran.iter().filter_map(|(_, ran)| root(ran)).min();
        for (which, ran) in ran {
            add(&mut profile, &going.leaf(which).address, going.leaves(), ran);
        }
        if let Some(entry) = root.and_then(|root| profile.nodes.get_mut(&root))
            && let (Some(most), all @ 1..) = (rows.iter().max(), rows.iter().sum::<u64>())
            && rows.len() > 1
        {
            entry.notes.push(format!("skew {:.2}", *most as f64 * rows.len() as f64 / all as f64));
        }
        profile
    }
}

impl Fragments for QueryOnLeaves<'_> {
    fn run(&self, fragment: &Fragment, ctx: &QueryContext) -> stoa_exec::Result<(Vec<Vec<RecordBatch>>, Profile)> {
        let going = self.going(fragment)?;
        let failed = CancelToken::default();
        let run = |which: &usize| {
            let mut rows = vec![];
            let ran = self.run_on(&going, *which, (ctx, &failed), &mut |batches| {
                rows.extend(batches);
                Ok(())
            });
            let ran = ran.inspect_err(|_| {
                // The others need not finish what nobody will read.
                failed.cancel();
                going.cancel(*which);
            });
            ran.map(|profile| (rows, (*which, profile)))
        };
        let ran = in_parallel(&(0..going.leaves()).collect::<Vec<_>>(), run).map_err(|e| self.failed(e))?;
        let (rows, ran): (Vec<_>, Vec<_>) = ran.into_iter().unzip();
        Ok((rows, self.profile(&going, ran)))
    }

    fn stream(&self, fragment: &Fragment, ctx: &QueryContext, each: &mut TakeRows<'_>) -> stoa_exec::Result<Profile> {
        streaming::stream(self, fragment, ctx, each)
    }

    fn pull(&self, fragment: &Fragment, ctx: &QueryContext, read: &mut ReadLeaves<'_>) -> stoa_exec::Result<Profile> {
        streaming::pull(self, &self.going(fragment)?, ctx, &mut |basin| read(basin))
    }

    fn give(&self, number: u32, batches: &[RecordBatch], ctx: &QueryContext) -> stoa_exec::Result<()> {
        let mut chunks = Vec::new();
        ctx.cancel.check()?;
        write_chunks(batches, &mut |chunk| {
            chunks.push(chunk);
            Ok(())
        })
        .map_err(|e| self.failed(e))?;
        let give = |leaf: &OneLeaf| {
            let mut delivery = leaf.service.receive(self.number, number)?;
            chunks.iter().try_for_each(|chunk| delivery.write(chunk.clone()))?;
            delivery.finish().map_err(|e| at(&leaf.address, e))
        };
        in_parallel(&self.leaves()?, give).map(drop).map_err(|e| self.failed(e))
    }
}

/// A run-time filter for the wire.
fn filter(id: u32, keys: &KeySet) -> Filter {
    let members = match &keys.members {
        KeyMembers::All => FilterMembers::All,
        KeyMembers::Bits(words) => FilterMembers::Bits(words.clone()),
        KeyMembers::Bloom(words) => FilterMembers::Bloom(words.clone()),
    };
    Filter { id, min: keys.min, max: keys.max, keys: keys.keys as u64, members }
}

/// Hands on the rows of one leaf; ends when the query is cancelled, no more are wanted, another leaf has failed, or one is lost.
struct Gather<'a> {
    take: &'a mut dyn FnMut(Vec<RecordBatch>) -> Result<(), Failure>,
    cancel: &'a CancelToken,
    over: &'a CancelToken,
    lost: &'a dyn Fn() -> Option<Failure>,
}

impl ChunkSink for Gather<'_> {
    fn write(&mut self, chunk: Vec<u8>) -> Result<(), Failure> {
        self.poll()?;
        (self.take)(take_chunk(chunk)?.1)
    }

    fn poll(&mut self) -> Result<(), Failure> {
        let stopped = self.cancel.check().is_err() || self.over.check().is_err();
        if stopped { Err(Failure::cancelled()) } else { (self.lost)().map_or(Ok(()), Err) }
    }
}

/// The failure with the leaf that it is of; the user's own mistakes are the same everywhere.
pub(crate) fn at(address: &str, failure: Failure) -> Failure {
    match failure.kind {
        FailureKind::User | FailureKind::Cancelled | FailureKind::Memory => failure,
        FailureKind::Conflict | FailureKind::DuplicateKey | FailureKind::Altered => failure,
        _ if failure.message.contains(address) => failure,
        kind => Failure::new(kind, format!("leaf {address}: {}", failure.message)),
    }
}

/// How little a failure tells of why others failed too: when one leaf fails the rest is cancelled, and those that send it rows find
/// nobody who takes them.
pub(super) fn consequence(failure: &Failure) -> u8 {
    match failure.kind {
        FailureKind::Cancelled => 3,
        FailureKind::Fatal => 2,
        FailureKind::Retryable => 1,
        _ => 0,
    }
}

/// Does the same for each, at once: the results in order, or the error that tells most.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    each: impl Fn(&T) -> Result<R, Failure> + Sync,
) -> Result<Vec<R>, Failure> {
    let results: Vec<Result<R, Failure>> = match items {
        [only] => vec![each(only)],
        _ => std::thread::scope(|scope| {
            let threads: Vec<_> = items.iter().map(|item| scope.spawn(|| each(item))).collect();
            let defect = |_| Err(Failure::new(FailureKind::Fatal, "a defect stopped a call to a leaf"));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(defect)).collect()
        }),
    };
    let mut failures = Vec::new();
    let all = results.into_iter().filter_map(|result| result.map_err(|failure| failures.push(failure)).ok()).collect();
    failures.into_iter().min_by_key(consequence).map_or(Ok(all), Err)
}

/// The number of the node at the top of what a leaf ran.
fn root(ran: &RunProfile) -> Option<u32> {
    ran.nodes.iter().map(|node| node.node).min()
}

fn rows_of_root(ran: &RunProfile) -> u64 {
    ran.nodes.iter().min_by_key(|node| node.node).map_or(0, |node| node.rows)
}

/// Adds what a leaf did; where there are several, each says its own share.
fn add(profile: &mut Profile, address: &str, leaves: usize, ran: RunProfile) {
    profile.wall = profile.wall.max(ran.wall);
    profile.peak_memory = profile.peak_memory.max(ran.peak_memory);
    let (root, sent) = (root(&ran), ran.sent_bytes);
    for node in ran.nodes {
        let entry = profile.nodes.entry(node.node).or_default();
        entry.rows += node.rows;
        entry.batches += node.batches;
        entry.cpu += node.cpu;
        entry.memory += node.memory;
        if let Some(scan) = node.scan {
            entry.scan.get_or_insert_default().add(&ScanCounters::from_array(scan));
        }
        for note in node.notes {
            if !entry.notes.contains(&note) {
                entry.notes.push(note);
            }
        }
        if Some(node.node) == root && leaves > 1 {
            entry.notes.push(format!("leaf {address}: rows={} sent={sent}B wall={:.3?}", node.rows, round(ran.wall)));
        }
    }
}

fn round(time: Duration) -> Duration {
    Duration::from_micros(time.as_micros() as u64)
}
