//! A query on a leaf: its snapshot of the tables, its memory, the rows that other fragments sent for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use parking_lot::Mutex;
use stoa_columnstore::KeySet;
use stoa_columnstore::predicate::KeyMembers;
use stoa_exec::profile::Profile;
use stoa_exec::{MemoryBudget, Pass, Progress, QueryContext, Reservation, row_bytes, stream_fragment};
use stoa_plan::FilterId;
use stoa_plan::codec::decode;
use stoa_rpc::ipc::{CHUNK_BYTES, write_chunks};
use stoa_rpc::leaf::{
    Delivery, Filter, FilterMembers, FragmentRequest, LeafQuery, NodeProfile, QuerySetup, RowDestination, RunProfile,
};
use stoa_rpc::{ChunkSink, Failure, FailureKind, LeafPool, Result};

use crate::databases::Tables;
use crate::failure;
use crate::received::Incoming;
use crate::routes::Routes;

/// Batches of fewer rows are shuffled together with the next one.
const SHUFFLED: usize = 1024;

/// A query.
pub(crate) struct Query {
    setup: QuerySetup,
    tables: Tables,
    context: QueryContext,
    pass: Pass,
    received: Mutex<HashMap<u32, Received>>,
    /// Of all of its fragments.
    progress: Progress,
    pool: Arc<rayon::ThreadPool>,
    peers: Arc<LeafPool>,
}

/// Rows under one number, and the memory that they hold.
#[derive(Default)]
struct Received {
    batches: Vec<RecordBatch>,
    _reservations: Vec<Reservation>,
}

impl Query {
    pub fn new(
        setup: QuerySetup,
        tables: Tables,
        context: QueryContext,
        pass: Pass,
        pool: Arc<rayon::ThreadPool>,
        peers: Arc<LeafPool>,
    ) -> Query {
        let (received, progress) = (Mutex::default(), Progress::default());
        Query { setup, tables, context, pass, received, progress, pool, peers }
    }

    pub fn cancel(&self) {
        self.context.cancel.cancel();
    }

    pub fn memory(&self) -> &Arc<MemoryBudget> {
        &self.context.memory
    }

    /// Morsels that are done, and morsels of what has begun.
    pub fn progress(&self) -> (u64, u64) {
        self.progress.now()
    }

    pub fn is_cancelled(&self) -> bool {
        self.context.cancel.check().is_err()
    }

    /// Adds rows of another fragment.
    pub fn received(&self, number: u32, batches: Vec<RecordBatch>, reservation: Reservation) {
        let mut all = self.received.lock();
        let entry = all.entry(number).or_default();
        entry.batches.extend(batches);
        entry._reservations.push(reservation);
    }

    fn run(self: &Arc<Self>, fragment: &FragmentRequest, sink: &mut dyn ChunkSink) -> Result<RunProfile> {
        let plan = decode(&fragment.plan).map_err(|e| Failure::new(FailureKind::User, e.to_string()))?;
        let rows = self.received.lock().iter().map(|(number, rows)| (*number, rows.batches.clone())).collect();
        let filters = fragment.filters.iter().map(|filter| Ok((FilterId(filter.id), Arc::new(key_set(filter)?))));
        let received = stoa_exec::Received { rows, filters: filters.collect::<Result<_>>()? };
        let (profile_of, sent) = match &fragment.destination {
            RowDestination::Caller => self.stream(&plan, &received, &mut |batches| self.write(batches, sink))?,
            RowDestination::Leaves { number, addresses } => {
                let mut copies = Copies::new(self, *number, addresses)?;
                let (profile, sent) = self.stream(&plan, &received, &mut |batches| copies.take(batches))?;
                copies.finish()?;
                (profile, sent)
            }
            RowDestination::Shuffle { number, keys, addresses, owners } => {
                let mut shuffle = Shuffle::new(self, *number, addresses, Routes::new(keys, owners, addresses.len())?)?;
                let (profile, sent) = self.stream(&plan, &received, &mut |batches| shuffle.take(batches))?;
                (profile, sent + shuffle.finish()?)
            }
        };
        metrics::counter!("stoa_sent_bytes_total").increment(sent);
        Ok(profile(&profile_of, sent))
    }

    /// Runs a fragment and hands its rows to `send` while it runs: what it did, and the bytes that went out.
    fn stream(
        &self,
        plan: &stoa_plan::Query,
        received: &stoa_exec::Received,
        send: &mut dyn FnMut(&[RecordBatch]) -> Result<u64>,
    ) -> Result<(Profile, u64)> {
        let (mut sent, mut refused) = (0, None);
        let mut each = |batches: &[RecordBatch]| {
            // Who waits for others does not hold up those who wait to run.
            let bytes = self.pass.lend(|| send(batches)).map_err(|why| {
                refused = Some(why);
                stoa_exec::Error::Cancelled
            })?;
            sent += bytes;
            Ok(())
        };
        let ran = stream_fragment(plan, &self.tables, received, &self.context, &self.progress, &self.pool, &mut each);
        let profile = ran.map_err(|error| refused.unwrap_or_else(|| failure(error)))?;
        Ok((profile, sent))
    }

    /// Writes rows into a sink: their bytes.
    fn write(&self, batches: &[RecordBatch], sink: &mut dyn ChunkSink) -> Result<u64> {
        let mut sent = 0;
        write_chunks(batches, &mut |chunk| {
            self.context.cancel.check().map_err(failure)?;
            sent += chunk.len() as u64;
            sink.write(chunk)
        })?;
        Ok(sent)
    }

    /// The way to the query on each of these leaves, `None` for this one.
    fn ways(&self, number: u32, addresses: &[String]) -> Result<Vec<Option<Box<dyn Delivery>>>> {
        let way = |address: &String| {
            let here = *address == self.setup.address;
            if here { Ok(None) } else { self.peers.leaf(address)?.receive(self.setup.query, number).map(Some) }
        };
        addresses.iter().map(way).collect()
    }
}

/// Rows that go to several leaves, to this one without a detour.
struct Copies<'a> {
    query: &'a Query,
    /// This leaf, if it is one of them.
    own: Option<Incoming>,
    others: Vec<Box<dyn Delivery>>,
}

impl<'a> Copies<'a> {
    fn new(query: &'a Arc<Query>, number: u32, addresses: &[String]) -> Result<Copies<'a>> {
        let (here, others): (Vec<_>, Vec<_>) = query.ways(number, addresses)?.into_iter().partition(Option::is_none);
        let own = (!here.is_empty()).then(|| Incoming::new(query.clone(), number));
        Ok(Copies { query, own, others: others.into_iter().flatten().collect() })
    }

    fn take(&mut self, batches: &[RecordBatch]) -> Result<u64> {
        if let Some(own) = &mut self.own {
            own.take(batches)?;
        }
        if self.others.is_empty() {
            return Ok(0);
        }
        let mut sent = 0;
        write_chunks(batches, &mut |chunk| {
            self.query.context.cancel.check().map_err(failure)?;
            sent += (chunk.len() * self.others.len()) as u64;
            self.others.iter_mut().try_for_each(|other| other.write(chunk.clone()))
        })?;
        Ok(sent)
    }

    fn finish(mut self) -> Result<()> {
        self.own.iter_mut().try_for_each(Delivery::finish)?;
        self.others.iter_mut().try_for_each(|other| other.finish())
    }
}

/// Rows of which each goes to the leaf that it belongs to.
struct Shuffle<'a> {
    query: &'a Query,
    routes: Routes,
    own: Incoming,
    /// By the places of the leaves in the routes; `None` is this one.
    leaves: Vec<Option<Together>>,
}

impl<'a> Shuffle<'a> {
    fn new(query: &'a Arc<Query>, number: u32, addresses: &[String], routes: Routes) -> Result<Shuffle<'a>> {
        let together = |to| Together { to, waiting: vec![], bytes: 0 };
        let leaves = query.ways(number, addresses)?.into_iter().map(|to| to.map(together)).collect();
        Ok(Shuffle { query, routes, own: Incoming::new(query.clone(), number), leaves })
    }

    fn take(&mut self, batches: &[RecordBatch]) -> Result<u64> {
        let mut sent = 0;
        for group in batches.chunk_by(|a, _| a.num_rows() < SHUFFLED) {
            self.query.context.cancel.check().map_err(failure)?;
            for (leaf, rows) in self.leaves.iter_mut().zip(self.routes.split(group)?) {
                match leaf {
                    None => self.own.take(&rows)?,
                    Some(leaf) => sent += leaf.take(rows)?,
                }
            }
        }
        Ok(sent)
    }

    fn finish(mut self) -> Result<u64> {
        self.own.finish()?;
        self.leaves.iter_mut().flatten().map(Together::finish).sum()
    }
}

/// Rows for another leaf, which go out when they fill a chunk.
struct Together {
    to: Box<dyn Delivery>,
    waiting: Vec<RecordBatch>,
    bytes: usize,
}

impl Together {
    /// Takes rows: the bytes that went out.
    fn take(&mut self, rows: Vec<RecordBatch>) -> Result<u64> {
        self.bytes += rows.iter().map(row_bytes).sum::<usize>();
        self.waiting.extend(rows);
        if self.bytes >= CHUNK_BYTES { self.send() } else { Ok(0) }
    }

    fn send(&mut self) -> Result<u64> {
        let mut sent = 0;
        self.bytes = 0;
        write_chunks(&std::mem::take(&mut self.waiting), &mut |chunk| {
            sent += chunk.len() as u64;
            self.to.write(chunk)
        })?;
        Ok(sent)
    }

    fn finish(&mut self) -> Result<u64> {
        let sent = self.send()?;
        self.to.finish()?;
        Ok(sent)
    }
}

/// A run-time filter as scans use it.
fn key_set(filter: &Filter) -> Result<KeySet> {
    let range = (filter.max as u64).wrapping_sub(filter.min as u64);
    let fits = match &filter.members {
        FilterMembers::All => true,
        FilterMembers::Bits(words) => range / 64 < words.len() as u64,
        FilterMembers::Bloom(words) => words.len().is_power_of_two(),
    };
    if filter.min > filter.max || !fits {
        return Err(Failure::new(FailureKind::Fatal, format!("run-time filter {} is malformed", filter.id)));
    }
    let members = match filter.members.clone() {
        FilterMembers::All => KeyMembers::All,
        FilterMembers::Bits(words) => KeyMembers::Bits(words),
        FilterMembers::Bloom(words) => KeyMembers::Bloom(words),
    };
    Ok(KeySet { min: filter.min, max: filter.max, keys: usize::try_from(filter.keys).unwrap_or(usize::MAX), members })
}

/// What the one who began a query holds.
pub(crate) struct Handle(pub Arc<Query>);

impl LeafQuery for Handle {
    fn run(&self, fragment: FragmentRequest, sink: &mut dyn ChunkSink) -> Result<RunProfile> {
        let began = Instant::now();
        let ran = self.0.run(&fragment, sink);
        let (query, took) = (self.0.setup.query, began.elapsed());
        let outcome = if ran.is_ok() { "done" } else { "failed" };
        metrics::counter!("stoa_fragments_total", "outcome" => outcome).increment(1);
        metrics::histogram!("stoa_fragment_seconds").record(took.as_secs_f64());
        match &ran {
            Ok(profile) => tracing::debug!(query, ?took, peak_memory = profile.peak_memory, "fragment done"),
            Err(failure) => tracing::info!(query, ?took, error = %failure, "fragment failed"),
        }
        ran
    }

    fn cancel(&self) {
        self.0.cancel();
    }
}

fn profile(profile: &Profile, sent_bytes: u64) -> RunProfile {
    let node = |(id, node): (&u32, &stoa_exec::profile::NodeProfile)| NodeProfile {
        node: *id,
        rows: node.rows,
        batches: node.batches,
        cpu: node.cpu,
        memory: node.memory,
        scan: node.scan.map(|scan| scan.to_array()),
        notes: node.notes.clone(),
    };
    RunProfile {
        nodes: profile.nodes.iter().map(node).collect(),
        wall: profile.wall,
        peak_memory: profile.peak_memory,
        sent_bytes,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow::array::{ArrayRef, Int64Array};
    use stoa_rpc::ipc::read_chunk;

    use super::*;

    /// Counts chunks, and the rows in them.
    struct Counted(Arc<[AtomicUsize; 2]>);

    impl ChunkSink for Counted {
        fn write(&mut self, chunk: Vec<u8>) -> Result<()> {
            let rows = read_chunk(chunk)?.1.iter().map(RecordBatch::num_rows).sum();
            self.0[0].fetch_add(1, Ordering::Relaxed);
            self.0[1].fetch_add(rows, Ordering::Relaxed);
            Ok(())
        }
    }

    impl Delivery for Counted {
        fn finish(&mut self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn small_batches_of_a_shuffle_go_out_together() {
        let counts = Arc::<[AtomicUsize; 2]>::default();
        let mut together = Together { to: Box::new(Counted(counts.clone())), waiting: vec![], bytes: 0 };
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
        let mut sent: u64 = (0..1000).map(|_| together.take(vec![batch.clone()]).unwrap()).sum();
        assert!(counts[1].load(Ordering::Relaxed) > 800_000, "rows that fill chunks wait for the end");
        sent += together.finish().unwrap();
        let [chunks, rows] = [0, 1].map(|i: usize| counts[i].load(Ordering::Relaxed));
        assert_eq!(rows, 1_000_000);
        assert!(chunks <= 16 && sent > 8_000_000, "{chunks} chunks of {sent} bytes");
    }
}
