//! `stoa tpch`: generate, load, run the 22 queries, check, and print the table of times.

mod loading;
mod report;

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use stoa_datasets::tpch;
use stoa_exec::profile::Profile;

use crate::args::TpchArgs;
use crate::connection::Connection;
use crate::progress;
use crate::{Error, Result};

pub use loading::{LoadTimes, load_missing};

/// What became of one query.
pub(crate) struct Outcome {
    number: u32,
    rows: usize,
    best: Duration,
    /// What it did, where it ran in this process.
    work: Option<Work>,
    verdict: Verdict,
}

/// What a query did.
#[derive(Default)]
pub(crate) struct Work {
    /// Rows of the scans of one run.
    scanned: u64,
    segments: u64,
    segments_skipped: u64,
    /// Most bytes that the operators of a run held at once.
    memory: u64,
}

impl Work {
    /// Takes in a run: all do the same, but for the memory.
    fn add(&mut self, profile: &Profile) {
        self.memory = self.memory.max(profile.peak_memory);
        self.scanned = profile.rows_scanned();
        let scans = || profile.nodes.values().filter_map(|node| node.scan.as_ref());
        self.segments_skipped = scans().map(|scan| scan.segments_skipped).sum();
        self.segments = self.segments_skipped + scans().map(|scan| scan.segments).sum::<u64>();
    }
}

/// Whether the answer is right.
pub(crate) enum Verdict {
    Right,
    /// There is no answer to compare with at this scale.
    Unknown,
    Wrong(String),
    Failed(String),
}

/// Runs the command.
///
/// # Errors
/// If the data cannot be loaded, or a query fails or gives a wrong answer.
pub fn run(args: &TpchArgs) -> Result<()> {
    let connection = Connection::open(&args.engine)?;
    let times = load_missing(&connection, args.scale)?;
    let numbers: Vec<u32> = if args.queries.is_empty() { (1..=tpch::QUERY_COUNT as u32).collect() } else { args.queries.clone() };
    let bar = progress::bar(numbers.len() as u64, "queries", "queries");
    let mut outcomes = Vec::with_capacity(numbers.len());
    for number in numbers {
        bar.set_message(format!("query {number}"));
        outcomes.push(run_query(&connection, number, args));
        bar.inc(1);
    }
    bar.finish_and_clear();
    report::print(&connection, args.scale, &times, &outcomes)?;
    if let Some(path) = &args.json {
        report::write_json(path, &connection, &times, &outcomes)?;
    }
    let bad = outcomes.iter().filter(|o| matches!(o.verdict, Verdict::Wrong(_) | Verdict::Failed(_))).count();
    if bad > 0 { Err(Error::WrongAnswers(bad)) } else { Ok(()) }
}

fn run_query(connection: &Connection, number: u32, args: &TpchArgs) -> Outcome {
    let mut outcome = Outcome { number, rows: 0, best: Duration::MAX, work: None, verdict: Verdict::Unknown };
    let text = tpch::query(number as usize).unwrap_or_default();
    // The first run warms the page cache and the decoded dictionaries; its time does not count.
    for run in 0..=args.runs {
        let start = Instant::now();
        let (batches, profile) = match connection.query(text) {
            Ok(result) => result,
            Err(error) => {
                outcome.verdict = Verdict::Failed(error.to_string());
                (outcome.best, outcome.work) = (Duration::ZERO, None);
                return outcome;
            }
        };
        let elapsed = start.elapsed();
        if let Some(profile) = &profile {
            outcome.work.get_or_insert_default().add(profile);
        }
        let verdict = verdict(number, args.scale, &batches);
        // One wrong answer among right ones is wrong.
        if run == 0 || matches!(verdict, Verdict::Wrong(_)) {
            outcome.verdict = verdict;
        }
        if run > 0 {
            outcome.best = outcome.best.min(elapsed);
            continue;
        }
        outcome.rows = batches.iter().map(RecordBatch::num_rows).sum();
    }
    outcome
}

fn verdict(number: u32, scale: f64, batches: &[RecordBatch]) -> Verdict {
    match tpch::answer(number as usize, scale).map(|answer| tpch::check(answer, batches)) {
        None => Verdict::Unknown,
        Some(Ok(())) => Verdict::Right,
        Some(Err(mismatch)) => Verdict::Wrong(mismatch.to_string()),
    }
}
