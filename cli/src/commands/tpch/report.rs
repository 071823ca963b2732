//! The table that `stoa tpch` prints and the JSON that it writes.

use std::path::Path;

use comfy_table::Cell;
use serde_json::{Map, Value, json};

use std::io::Write as _;

use super::{LoadTimes, Outcome, Verdict, Work};
use crate::connection::Connection;
use crate::output::{right, text_table};
use crate::{Error, Result};

pub(super) fn print(connection: &Connection, scale: f64, times: &LoadTimes, outcomes: &[Outcome]) -> Result<()> {
    let mut out = std::io::stdout();
    if times.loaded {
        let (generated, loaded) = (times.generate.as_secs_f64(), times.load.as_secs_f64());
        writeln!(
            out,
            "TPC-H at scale {scale}: generated in {generated:.2} s, loaded in {loaded:.2} s, {} on disk",
            size_on_disk(connection)?
        )?;
    } else {
        writeln!(out, "TPC-H at scale {scale}: already loaded, {} on disk", size_on_disk(connection)?)?;
    }
    let mut table = text_table(["query", "rows", "time ms", "rows scanned/s", "segments skipped", "memory MB", "answer"]);
    for outcome in outcomes {
        let seconds = outcome.best.as_secs_f64();
        let did = |tell: &dyn Fn(&Work) -> String| right(outcome.work.as_ref().map_or_else(|| "-".to_owned(), tell));
        table.add_row([
            Cell::new(format!("q{:02}", outcome.number)),
            right(outcome.rows.to_string()),
            right(format!("{:.1}", seconds * 1e3)),
            did(&|work| format!("{:.1} M", work.scanned as f64 / seconds / 1e6)),
            did(&|work| format!("{} of {}", work.segments_skipped, work.segments)),
            did(&|work| format!("{:.1}", work.memory as f64 / 1e6)),
            Cell::new(match &outcome.verdict {
                Verdict::Right => "ok".to_owned(),
                Verdict::Unknown => "no answer known at this scale".to_owned(),
                Verdict::Wrong(what) => format!("wrong: {what}"),
                Verdict::Failed(what) => format!("failed: {what}"),
            }),
        ]);
    }
    writeln!(out, "{table}")?;
    let sum: f64 = outcomes.iter().map(|o| o.best.as_secs_f64()).sum();
    match connection {
        Connection::Embedded(engine) => writeln!(out, "{} queries in {sum:.3} s ({} threads)", outcomes.len(), engine.threads())?,
        Connection::Cluster(_) => writeln!(out, "{} queries in {sum:.3} s on {}", outcomes.len(), connection.describe())?,
    }
    if let Some(peak) = peak_resident() {
        let with = if times.loaded { "generating and loading" } else { "pages of mapped segments" };
        writeln!(out, "peak memory of the process {:.1} MB, {with} included", peak as f64 / 1e6)?;
    }
    Ok(())
}

/// Most bytes of memory that this process had resident at once, pages of mapped files among them, where the system tells.
fn peak_resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

fn size_on_disk(connection: &Connection) -> Result<String> {
    Ok(format!("{:.1} MB", connection.bytes_on_disk()? as f64 / 1e6))
}

pub(super) fn write_json(path: &Path, connection: &Connection, times: &LoadTimes, outcomes: &[Outcome]) -> Result<()> {
    let (mut queries, mut memory) = (Map::new(), Map::new());
    for outcome in outcomes.iter().filter(|o| !matches!(o.verdict, Verdict::Failed(_))) {
        queries.insert(format!("q{:02}", outcome.number), Value::from(outcome.best.as_secs_f64()));
        let held = outcome.work.as_ref().map(|work| work.memory);
        memory.insert(format!("q{:02}", outcome.number), Value::from(held));
    }
    let load = if times.loaded { Value::from(times.load.as_secs_f64()) } else { Value::Null };
    let report = json!({
        "queries": queries,
        "memory_bytes": memory,
        "peak_resident_bytes": peak_resident(),
        "load_seconds": load,
        "bytes_on_disk": connection.bytes_on_disk()?,
    });
    std::fs::write(path, format!("{report:#}\n")).map_err(Error::file(path))
}
