//! A query on its leaves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use parking_lot::Mutex;
use stoa_columnstore::KeySet;
use stoa_columnstore::predicate::KeyMembers;
use stoa_exec::profile::{Profile, ScanCounters};
use stoa_exec::{Destination, Fragment, Fragments, HowFar, LeafRows, QueryContext, ReadLeaves, TakeRows};
use stoa_plan::codec::encode;
use stoa_rpc::ipc::write_chunks;
use stoa_rpc::leaf::{Filter, FilterMembers, FragmentRequest, LeafQuery, LeafService, QuerySetup, RowDestination, RunProfile};
use stoa_rpc::{Failure, FailureKind, Gather, Heard, Running};

use super::reader::{ReadRows, Reader};
use super::transaction::Participants;
use super::{Database, Shared};
use crate::error::remote;

/// A query on the leaves that have its database. It begins on them with its first fragment, and ends when this is dropped.
pub(super) struct QueryOnLeaves<'a> {
    number: u64,
    database: Arc<Database>,
    shared: &'a Shared,
    /// What it reads is as it was then.
    moment: u64,
    /// The transaction that it is a part of.
    within: Option<&'a Participants>,
    begun: Mutex<Option<Arc<Vec<OneLeaf>>>>,
    heard: Arc<HeardOfLeaves>,
    /// What a leaf said last of why it did not do its part.
    failure: Mutex<Option<Failure>>,
}

/// How far a query is on leaves, as each of its fragments there heard it last.
#[derive(Default)]
struct HeardOfLeaves(Mutex<BTreeMap<String, Vec<Arc<Heard>>>>);

impl HeardOfLeaves {
    fn add(&self, address: &str, running: &Running) {
        self.0.lock().entry(address.to_owned()).or_default().push(running.heard().clone());
    }

    fn now(&self) -> (u64, u64) {
        // A leaf tells of all that the query does there, and of no less the next time.
        let of_leaf = |heard: &Vec<Arc<Heard>>| heard.iter().map(|heard| heard.now()).max_by_key(|(done, total)| (*total, *done));
        let leaves = self.0.lock();
        leaves.values().filter_map(of_leaf).fold((0, 0), |sum, now| (sum.0 + now.0, sum.1 + now.1))
    }
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
        let moment = shared.clock.tick();
        let (begun, heard, failure) = (Mutex::default(), Arc::default(), Mutex::default());
        QueryOnLeaves { number, database, shared, moment, within, begun, heard, failure }
    }

    /// How far it is on all leaves together, as these said last.
    pub fn how_far(&self) -> HowFar {
        let heard = self.heard.clone();
        Arc::new(move || heard.now())
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
        self.shared.clock.hear(failure.moment);
        *self.failure.lock() = Some(failure.clone());
        remote(failure)
    }

    /// Fails if a leaf of the query is not online any more: nobody waits for it, nor for those that send it rows.
    fn lost(&self, leaves: &[String]) -> Result<(), Failure> {
        let Ok(now) = self.shared.control.database(&self.database.name) else { return Ok(()) };
        match leaves.iter().find(|leaf| !now.leaves.contains(leaf)) {
            Some(gone) => Err(Failure::new(FailureKind::Retryable, format!("leaf {gone} is not online any more"))),
            None => Ok(()),
        }
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

    /// Every leaf that is the master of a partition; without any, one leaf for the REFERENCE tables.
    fn placement(&self) -> crate::Result<BTreeMap<String, Vec<u32>>> {
        let mut placement: BTreeMap<String, Vec<u32>> = self.database.placement()?;
        if placement.is_empty() {
            placement.extend(self.database.leaves.first().map(|address| (address.clone(), vec![])));
        }
        Ok(placement)
    }

    fn setup(&self, address: &str, ordinals: &[u32]) -> QuerySetup {
        QuerySetup {
            query: self.number,
            database: self.database.name.clone(),
            address: address.to_owned(),
            ordinals: ordinals.to_vec(),
            // All leaves show what there is then: a transaction over several of them wholly or not at all.
            moment: self.moment,
        }
    }

    /// Begins on every leaf.
    fn begin(&self) -> crate::Result<Vec<OneLeaf>> {
        let begin = |(address, ordinals): (&String, &Vec<u32>)| {
            let service = self.shared.leaves.leaf(address)?;
            let query = match self.within {
                Some(transaction) => transaction.leaf(address)?.query(self.number),
                None => service.begin(self.setup(address, ordinals)),
            };
            let query = query.map_err(|e| at(address, e))?;
            Ok(OneLeaf { address: address.clone(), service, query, partitions: !ordinals.is_empty() })
        };
        Ok(in_parallel(&self.placement()?.iter().collect::<Vec<_>>(), |leaf| begin(*leaf))?)
    }
}

/// A fragment that runs on leaves, each by its address.
struct Started {
    addresses: Vec<String>,
    running: Vec<Running>,
    queries: Vec<Arc<dyn LeafQuery>>,
}

impl QueryOnLeaves<'_> {
    /// Starts a fragment on the leaves that run it.
    fn start(&self, fragment: &Fragment) -> stoa_exec::Result<Started> {
        let plan = encode(&fragment.query).map_err(|e| stoa_exec::Error::Internal(e.to_string()))?;
        let filters: Vec<Filter> = fragment.filters.iter().map(|(id, keys)| filter(id.0, keys)).collect();
        let request = |destination| FragmentRequest { plan: plan.clone(), destination, filters: filters.clone() };
        if fragment.only && self.within.is_none() && self.begun.lock().is_none() {
            return self.start_only(fragment, &request).map_err(|e| self.failed(e.into_failure()));
        }
        let all = self.leaves()?;
        let destination = self.destination(&fragment.destination, &all);
        let leaves = all.iter().filter(|leaf| fragment.once || leaf.partitions).take(if fragment.once { 1 } else { all.len() });
        let mut started = Started { addresses: vec![], running: vec![], queries: vec![] };
        for leaf in leaves {
            let running = leaf.query.clone().start(request(destination.clone()));
            self.heard.add(&leaf.address, &running);
            started.addresses.push(leaf.address.clone());
            started.running.push(running);
            started.queries.push(leaf.query.clone());
        }
        Ok(started)
    }

    /// Starts a fragment that is all that its query does on leaves: it begins and ends with it.
    fn start_only(&self, fragment: &Fragment, request: &dyn Fn(RowDestination) -> FragmentRequest) -> crate::Result<Started> {
        let placement = self.placement()?;
        let leaves = placement.iter().filter(|(_, ordinals)| fragment.once || !ordinals.is_empty());
        let mut started = Started { addresses: vec![], running: vec![], queries: vec![] };
        for (address, ordinals) in leaves.take(if fragment.once { 1 } else { placement.len() }) {
            let running = self
                .shared
                .leaves
                .leaf(address)
                .and_then(|leaf| leaf.query(self.setup(address, ordinals), request(RowDestination::Caller)));
            let running = running.map_err(|e| at(address, e))?;
            self.heard.add(address, &running);
            started.running.push(running);
            started.addresses.push(address.clone());
        }
        Ok(started)
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

impl QueryOnLeaves<'_> {
    /// Runs a fragment for `read`, which takes rows as it wants them and may end before the leaves do: what those did that ran to the end.
    fn read(&self, fragment: &Fragment, ctx: &QueryContext, read: &mut ReadRows<'_>) -> stoa_exec::Result<Profile> {
        let Started { addresses, running, queries } = self.start(fragment)?;
        let mut poll = || ctx.cancel.check().map_err(|_| Failure::cancelled()).and_then(|()| self.lost(&addresses));
        // The others need not finish what nobody will read.
        let mut give_up = || queries.iter().for_each(|query| query.cancel());
        let mut gather = Gather::new(running, &mut poll, &mut give_up);
        let done = read(&mut Reader::new(&mut gather, &ctx.cancel));
        let failed = gather.has_failed();
        let ended = gather.ended().into_iter().zip(&addresses).map(|(ran, address)| ran.map_err(|e| at(address, e)));
        if failed {
            let failure = all_or_worst(ended).err().unwrap_or_else(Failure::cancelled);
            return Err(self.failed(failure));
        }
        done?;
        let ran = ended.zip(&addresses).filter_map(|(ran, address)| Some((address, ran.ok()?)));
        Ok(profile(ran.collect(), addresses.len()))
    }
}

impl Fragments for QueryOnLeaves<'_> {
    fn run(&self, fragment: &Fragment, ctx: &QueryContext) -> stoa_exec::Result<(Vec<Vec<RecordBatch>>, Profile)> {
        let mut rows: Vec<Vec<RecordBatch>> = Vec::new();
        let profile = self.read(fragment, ctx, &mut |reader| {
            rows.resize(reader.leaves(), vec![]);
            while let Some((leaf, batches)) = reader.any()? {
                rows[leaf].extend(batches);
            }
            Ok(())
        })?;
        Ok((rows, profile))
    }

    fn stream(&self, fragment: &Fragment, ctx: &QueryContext, each: &mut TakeRows<'_>) -> stoa_exec::Result<Profile> {
        self.read(fragment, ctx, &mut |reader| {
            while let Some((_, batches)) = reader.any()? {
                if !each(batches)? {
                    break;
                }
            }
            Ok(())
        })
    }

    fn pull(&self, fragment: &Fragment, ctx: &QueryContext, read: &mut ReadLeaves<'_>) -> stoa_exec::Result<Profile> {
        self.read(fragment, ctx, &mut |reader| read(reader))
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

/// The failure with the leaf that it is of; the user's own mistakes are the same everywhere.
pub(crate) fn at(address: &str, failure: Failure) -> Failure {
    match failure.kind {
        FailureKind::User | FailureKind::Cancelled | FailureKind::Memory => failure,
        FailureKind::Conflict | FailureKind::DuplicateKey | FailureKind::Altered => failure,
        _ if failure.message.contains(address) => failure,
        _ => Failure { message: format!("leaf {address}: {}", failure.message), ..failure },
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
    let Some((first, others)) = items.split_first() else { return Ok(vec![]) };
    std::thread::scope(|scope| {
        let threads: Vec<_> = others.iter().map(|item| scope.spawn(|| each(item))).collect();
        let defect = |_| Err(Failure::new(FailureKind::Fatal, "a defect stopped a call to a leaf"));
        let of_first = each(first);
        let of_others = threads.into_iter().map(|thread| thread.join().unwrap_or_else(defect));
        all_or_worst(std::iter::once(of_first).chain(of_others))
    })
}

/// All results, or the error that tells most.
pub(crate) fn all_or_worst<R>(results: impl Iterator<Item = Result<R, Failure>>) -> Result<Vec<R>, Failure> {
    let mut failures = Vec::new();
    let all = results.filter_map(|result| result.map_err(|failure| failures.push(failure)).ok()).collect();
    failures.into_iter().min_by_key(consequence).map_or(Ok(all), Err)
}

/// The number of the node at the top of what a leaf ran.
fn root(ran: &RunProfile) -> Option<u32> {
    ran.nodes.iter().map(|node| node.node).min()
}

fn rows_of_root(ran: &RunProfile) -> u64 {
    ran.nodes.iter().min_by_key(|node| node.node).map_or(0, |node| node.rows)
}

/// What leaves did, each by its address, of so many.
fn profile(ran: Vec<(&String, RunProfile)>, leaves: usize) -> Profile {
    let mut profile = Profile::default();
    let rows: Vec<u64> = ran.iter().map(|(_, ran)| rows_of_root(ran)).collect();
    let root = ran.iter().filter_map(|(_, ran)| root(ran)).min();
    ran.into_iter().for_each(|(address, ran)| add(&mut profile, address, leaves, ran));
    if let Some(entry) = root.and_then(|root| profile.nodes.get_mut(&root))
        && let (Some(most), all @ 1..) = (rows.iter().max(), rows.iter().sum::<u64>())
        && rows.len() > 1
    {
        entry.notes.push(format!("skew {:.2}", *most as f64 * rows.len() as f64 / all as f64));
    }
    profile
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
