//! What a query did, per plan node: rows, batches, time, memory, scan counters, strategies. Always on: workers count locally and
//! merge once at the end of a pipeline.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use stoa_plan::NodeId;

/// How far a running query is; poll it from another thread.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<ProgressCounters>);

/// Tells how far something is: what is done, and of how much.
pub type HowFar = Arc<dyn Fn() -> (u64, u64) + Send + Sync>;

#[derive(Default)]
struct ProgressCounters {
    done: AtomicU64,
    total: AtomicU64,
    elsewhere: Mutex<Option<HowFar>>,
}

impl std::fmt::Debug for ProgressCounters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProgressCounters").field("done", &self.done).field("total", &self.total).finish_non_exhaustive()
    }
}

impl Progress {
    /// Morsels that are done, and morsels of the pipelines that have started; the latter grow while the query runs. What runs elsewhere
    /// counts as it was last heard of.
    #[must_use]
    pub fn now(&self) -> (u64, u64) {
        let elsewhere = self.0.elsewhere.lock().clone();
        let (done, total) = elsewhere.map_or((0, 0), |elsewhere| elsewhere());
        let [here_done, here_total] = [&self.0.done, &self.0.total].map(|counter| counter.load(Ordering::Relaxed));
        (done.saturating_add(here_done), total.saturating_add(here_total))
    }

    /// Counts what runs elsewhere for the query, in place of what was counted before.
    pub fn follow(&self, elsewhere: HowFar) {
        *self.0.elsewhere.lock() = Some(elsewhere);
    }

    pub(crate) fn add_total(&self, morsels: u64) {
        self.0.total.fetch_add(morsels, Ordering::Relaxed);
    }

    pub(crate) fn add_done(&self, morsels: u64) {
        self.0.done.fetch_add(morsels, Ordering::Relaxed);
    }
}

/// What scans count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanCounters {
    /// Segments of the partitions that were read.
    pub segments: u64,
    /// Segments that a zone map or an empty run-time filter excluded whole.
    pub segments_skipped: u64,
    /// Blocks in all.
    pub blocks: u64,
    /// Blocks that were not read because no row could pass.
    pub blocks_skipped: u64,
    /// Blocks that a bitmap index decided, once for each predicate.
    pub blocks_by_index: u64,
    /// Rows in all.
    pub rows: u64,
    /// Rows that the predicates on encoded data let pass.
    pub rows_selected: u64,
    /// Values that were decoded for output.
    pub values_decoded: u64,
}

impl ScanCounters {
    /// The counters in the order of their fields, for the wire.
    #[must_use]
    pub fn to_array(&self) -> [u64; 8] {
        let ScanCounters {
            segments,
            segments_skipped,
            blocks,
            blocks_skipped,
            blocks_by_index,
            rows,
            rows_selected,
            values_decoded,
        } = *self;
        [segments, segments_skipped, blocks, blocks_skipped, blocks_by_index, rows, rows_selected, values_decoded]
    }

    /// The counters of [`ScanCounters::to_array`].
    #[must_use]
    pub fn from_array(all: [u64; 8]) -> ScanCounters {
        let [segments, segments_skipped, blocks, blocks_skipped, blocks_by_index, rows, rows_selected, values_decoded] = all;
        ScanCounters { segments, segments_skipped, blocks, blocks_skipped, blocks_by_index, rows, rows_selected, values_decoded }
    }

    /// Adds the counts of another worker.
    pub fn add(&mut self, other: &ScanCounters) {
        self.segments += other.segments;
        self.segments_skipped += other.segments_skipped;
        self.blocks += other.blocks;
        self.blocks_skipped += other.blocks_skipped;
        self.blocks_by_index += other.blocks_by_index;
        self.rows += other.rows;
        self.rows_selected += other.rows_selected;
        self.values_decoded += other.values_decoded;
    }
}

/// What one plan node did.
#[derive(Clone, Debug, Default)]
pub struct NodeProfile {
    /// Rows that it produced.
    pub rows: u64,
    /// Batches that it produced.
    pub batches: u64,
    /// Time spent in it, summed over workers.
    pub cpu: Duration,
    /// Most bytes that it held.
    pub memory: u64,
    /// Scan counters, for scans.
    pub scan: Option<ScanCounters>,
    /// Groups that the workers of an aggregation found, by strategy; those of several workers count several times.
    pub groups: BTreeMap<String, u64>,
    /// Strategies and the like, each once, with a number where it is counted.
    pub notes: Vec<String>,
}

/// What a query did.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// Per node.
    pub nodes: BTreeMap<u32, NodeProfile>,
    /// Wall-clock time of the whole.
    pub wall: Duration,
    /// Most bytes that the query held.
    pub peak_memory: u64,
    /// The instruction set of the kernels that ran.
    pub kernels: &'static str,
}

impl Profile {
    /// The lines that EXPLAIN ANALYZE prints under a node.
    #[must_use]
    pub fn lines(&self, node: NodeId) -> Vec<String> {
        let Some(profile) = self.nodes.get(&node.0) else { return vec![] };
        let mut first = format!("rows={} batches={} time={:.3?}", profile.rows, profile.batches, profile.cpu);
        if profile.memory > 0 {
            first += &format!(" memory={}", bytes(profile.memory));
        }
        let mut lines = vec![first];
        if let Some(scan) = &profile.scan {
            lines.push(format!(
                "segments={} skipped={} blocks={} skipped={} by index={} rows={} selected={} values decoded={}",
                scan.segments,
                scan.segments_skipped,
                scan.blocks,
                scan.blocks_skipped,
                scan.blocks_by_index,
                scan.rows,
                scan.rows_selected,
                scan.values_decoded
            ));
        }
        lines.extend(profile.groups.iter().map(|(strategy, groups)| format!("{strategy}: groups={groups}")));
        lines.extend(profile.notes.iter().cloned());
        lines
    }

    /// Rows that all scans looked at or skipped.
    #[must_use]
    pub fn rows_scanned(&self) -> u64 {
        self.scans().map(|s| s.rows).sum()
    }

    /// Segments and blocks that all scans skipped.
    #[must_use]
    pub fn skipped(&self) -> (u64, u64) {
        self.scans().fold((0, 0), |(s, b), scan| (s + scan.segments_skipped, b + scan.blocks_skipped))
    }

    fn scans(&self) -> impl Iterator<Item = &ScanCounters> {
        self.nodes.values().filter_map(|n| n.scan.as_ref())
    }
}

/// A size for people.
fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{} kB", n / 1000),
        _ => format!("{} MB", n / 1_000_000),
    }
}

/// Collects a [`Profile`] while the query runs.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    nodes: Mutex<BTreeMap<u32, NodeProfile>>,
}

/// What a worker counted for one operator.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LocalCounts {
    pub rows: u64,
    pub batches: u64,
    pub nanos: u64,
}

impl Recorder {
    /// Adds a worker's counts.
    pub fn add(&self, node: NodeId, counts: &LocalCounts) {
        let mut nodes = self.nodes.lock();
        let entry = nodes.entry(node.0).or_default();
        entry.rows += counts.rows;
        entry.batches += counts.batches;
        entry.cpu += Duration::from_nanos(counts.nanos);
    }

    /// Adds scan counters.
    pub fn add_scan(&self, node: NodeId, counters: &ScanCounters) {
        self.nodes.lock().entry(node.0).or_default().scan.get_or_insert_default().add(counters);
    }

    /// Notes that the node held this much memory.
    pub fn memory(&self, node: NodeId, held: usize) {
        let mut nodes = self.nodes.lock();
        let entry = nodes.entry(node.0).or_default();
        entry.memory = entry.memory.max(held as u64);
    }

    /// Adds the groups that a worker found by a strategy.
    pub fn groups(&self, node: NodeId, strategy: String, groups: u64) {
        *self.nodes.lock().entry(node.0).or_default().groups.entry(strategy).or_default() += groups;
    }

    /// Notes a strategy, once.
    pub fn note(&self, node: NodeId, note: String) {
        let mut nodes = self.nodes.lock();
        let notes = &mut nodes.entry(node.0).or_default().notes;
        if !note.is_empty() && !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// The profile so far.
    pub fn finish(&self, wall: Duration, peak_memory: usize) -> Profile {
        Profile { nodes: self.nodes.lock().clone(), wall, peak_memory: peak_memory as u64, kernels: stoa_kernels::isa().name() }
    }
}
