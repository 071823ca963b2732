//! A query on its leaves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use parking_lot::Mutex;
use stoa_columnstore::KeySet;
use stoa_columnstore::predicate::KeyMembers;
use stoa_exec::profile::{Profile, ScanCounters};
use stoa_exec::{CancelToken, Destination, Fragment, Fragments, QueryContext};
use stoa_plan::codec::encode;
use stoa_rpc::ipc::{read_chunk, write_chunks};
use stoa_rpc::leaf::{Filter, FilterMembers, FragmentRequest, LeafQuery, LeafService, QuerySetup, RowDestination, RunProfile};
use stoa_rpc::{ChunkSink, Failure, FailureKind};

use super::transaction::Participants;
use super::{Database, Shared};
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
    fn failed(&self, failure: Failure) -> stoa_exec::Error {
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
        // All leaves show what there is then: a transaction over several of them wholly or not at all.
        let moment = self.shared.clock.tick();
        let begin = |(address, ordinals): (&String, &Vec<u32>)| {
            let service = self.shared.leaves.leaf(address)?;
            let setup = QuerySetup {
                query: self.number,
                database: self.database.name.clone(),
                address: address.clone(),
                ordinals: ordinals.clone(),
                moment,
            };
            let query = match self.within {
                Some(transaction) => transaction.leaf(address)?.query(self.number),
                None => service.begin(setup),
            };
            let query = query.inspect_err(|e| self.shared.clock.hear(e.moment)).map_err(|e| at(address, e))?;
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

impl Fragments for QueryOnLeaves<'_> {
    fn run(&self, fragment: &Fragment, ctx: &QueryContext) -> stoa_exec::Result<(Vec<Vec<RecordBatch>>, Profile)> {
        let all = self.leaves()?;
        let plan = encode(&fragment.query).map_err(|e| stoa_exec::Error::Internal(e.to_string()))?;
        let destination = self.destination(&fragment.destination, &all);
        let leaves: Vec<&OneLeaf> =
            if fragment.once { all.iter().take(1).collect() } else { all.iter().filter(|leaf| leaf.partitions).collect() };
        let filters: Vec<Filter> = fragment.filters.iter().map(|(id, keys)| filter(id.0, keys)).collect();
        let failed = CancelToken::default();
        let run = |leaf: &&OneLeaf| {
            let request = FragmentRequest { plan: plan.clone(), destination: destination.clone(), filters: filters.clone() };
            let lost = || self.lost(&all);
            let mut gathered = Gather { batches: vec![], cancel: &ctx.cancel, failed: &failed, lost: &lost };
            let ran = leaf.query.run(request, &mut gathered);
            let ran = ran.inspect_err(|_| {
                // The others need not finish what nobody will read.
                failed.cancel();
                leaf.query.cancel();
            });
            ran.map(|profile| (gathered.batches, profile)).map_err(|e| at(&leaf.address, e))
        };
        let (rows_of_leaves, profiles): (Vec<_>, Vec<_>) =
            in_parallel(&leaves, run).map_err(|e| self.failed(e))?.into_iter().unzip();
        let mut profile = Profile::default();
        let rows: Vec<u64> = profiles.iter().map(rows_of_root).collect();
        let root = profiles.iter().filter_map(root).min();
        leaves.iter().zip(profiles).for_each(|(leaf, ran)| add(&mut profile, &leaf.address, leaves.len(), ran));
        if let Some(entry) = root.and_then(|root| profile.nodes.get_mut(&root))
            && let (Some(most), all @ 1..) = (rows.iter().max(), rows.iter().sum::<u64>())
            && leaves.len() > 1
        {
            entry.notes.push(format!("skew {:.2}", *most as f64 * rows.len() as f64 / all as f64));
        }
        Ok((rows_of_leaves, profile))
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

/// Gathers the rows of one leaf; ends when the query is cancelled, another leaf has failed, or one is lost.
struct Gather<'a> {
    batches: Vec<RecordBatch>,
    cancel: &'a CancelToken,
    failed: &'a CancelToken,
    lost: &'a (dyn Fn() -> Option<Failure> + Sync),
}

impl ChunkSink for Gather<'_> {
    fn write(&mut self, chunk: Vec<u8>) -> Result<(), Failure> {
        self.poll()?;
        let (_, batches) = read_chunk(&chunk)?;
        self.batches.extend(batches);
        Ok(())
    }

    fn poll(&mut self) -> Result<(), Failure> {
        let stopped = self.cancel.check().is_err() || self.failed.check().is_err();
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
fn consequence(failure: &Failure) -> u8 {
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
