//! EXPLAIN and EXPLAIN ANALYZE (PROFILE).

use std::time::Instant;

use stoa_exec::{CancelToken, Progress};
use stoa_plan::explain::explain;
use stoa_sql::QueryText;

use super::{Outcome, Session};
use crate::Result;

pub(super) fn run(session: &Session, query: &QueryText, analyze: bool, cancel: &CancelToken) -> Result<Outcome> {
    let start = Instant::now();
    let query = session.plan(query)?;
    let reads = session.store.reads(&query).map(|reads| format!("{reads}\n")).unwrap_or_default();
    if !analyze {
        return Ok(Outcome::Plan(explain(&query, None) + &reads));
    }
    let planned = start.elapsed();
    // Nobody reads the rows.
    let profile = session.read(&query, cancel, &Progress::default(), &mut |_, _| Ok(()))?;
    let executed = start.elapsed() - planned;
    let annotate = |node| profile.lines(node);
    let mut text = explain(&query, Some(&annotate));
    text.push_str(&reads);
    text.push_str(&format!(
        "\nplanned in {:.2} ms, executed in {:.2} ms, peak memory {:.1} MB, {} kernels\n",
        planned.as_secs_f64() * 1e3,
        executed.as_secs_f64() * 1e3,
        profile.peak_memory as f64 / 1e6,
        profile.kernels
    ));
    Ok(Outcome::Plan(text))
}
