//! Statistics of a cluster's tables: what the leaves know, put together.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use stoa_columnstore::TableDef;
use stoa_plan::codec::{TableSummary, decode_statistics};
use stoa_plan::{ColumnStatistics, Value};
use stoa_rpc::{Failure, FailureKind, LeafPool};

use super::Database;
use super::fragments::in_parallel;
use crate::Result;

/// How long statistics are good for: only plans hang on them, never results.
const FRESH: Duration = Duration::from_secs(10);
/// How long nobody asks again when leaves did not answer.
const FAILED: Duration = Duration::from_secs(1);

type ByTable = Arc<BTreeMap<String, TableSummary>>;

/// Statistics that were asked for lately, by database.
#[derive(Default)]
pub struct Summaries {
    lately: Mutex<HashMap<String, Asked>>,
    /// Counts how often they were other ones.
    version: AtomicU64,
}

#[derive(Clone)]
struct Asked {
    until: Instant,
    /// The leaves did not answer: these are older, or none.
    failed: bool,
    tables: ByTable,
    version: u64,
}

impl Summaries {
    /// The statistics of a database, by table in lower case; asks the leaves if they are old. If those do not answer, the old ones are
    /// good enough.
    pub(super) fn get(&self, database: &Database, pool: &LeafPool) -> ByTable {
        self.asked(database, pool).tables
    }

    /// A number that stays as long as the statistics of a database do.
    pub(super) fn version(&self, database: &Database, pool: &LeafPool) -> u64 {
        self.asked(database, pool).version
    }

    fn asked(&self, database: &Database, pool: &LeafPool) -> Asked {
        let known = self.lately.lock().get(&database.name).cloned();
        if let Some(asked) = &known
            && Instant::now() < asked.until
            && (asked.failed || database.tables.keys().all(|name| asked.tables.contains_key(name)))
        {
            return asked.clone();
        }
        let answer = ask(database, pool);
        let failed = answer.is_err();
        let until = Instant::now() + if failed { FAILED } else { FRESH };
        let asked = match (known, answer) {
            (Some(same), Err(_)) => Asked { until, failed, ..same },
            (Some(same), Ok(tables)) if *same.tables == tables => Asked { until, failed, ..same },
            (_, tables) => {
                let version = self.version.fetch_add(1, Ordering::Relaxed);
                Asked { until, failed, tables: Arc::new(tables.unwrap_or_default()), version }
            }
        };
        self.lately.lock().insert(database.name.clone(), asked.clone());
        asked
    }

    /// The next one who asks gets new ones.
    pub(super) fn forget(&self, database: &str) {
        self.lately.lock().remove(database);
    }
}

fn ask(database: &Database, pool: &LeafPool) -> Result<BTreeMap<String, TableSummary>> {
    let placement: Vec<(String, Vec<u32>)> = database.placement()?.into_iter().collect();
    let parts = in_parallel(&placement, |(address, ordinals)| {
        let bytes = pool.leaf(address)?.statistics(&database.name, ordinals)?;
        decode_statistics(&bytes).map_err(|e| Failure::new(FailureKind::Fatal, format!("leaf {address}: {e}")))
    })?;
    let mut merged: BTreeMap<String, TableSummary> = BTreeMap::new();
    for summary in parts.into_iter().flatten() {
        let key = summary.name.to_lowercase();
        let Some(def) = database.tables.get(&key) else { continue };
        match merged.remove(&key) {
            None => drop(merged.insert(key, summary)),
            // Every leaf has the whole of it.
            Some(first) if def.reference => drop(merged.insert(key, first)),
            Some(first) => drop(merged.insert(key, merge(def, first, summary))),
        }
    }
    Ok(merged)
}

/// Statistics over the rows of both, which are of different partitions.
fn merge(def: &TableDef, a: TableSummary, b: TableSummary) -> TableSummary {
    let rows = (a.statistics.rows, b.statistics.rows);
    let mut statistics = a.statistics;
    for (ordinal, (mine, theirs)) in statistics.columns.iter_mut().zip(b.statistics.columns).enumerate() {
        // Rows that agree on the shard key are in one partition.
        let apart = def.shard_key == [ordinal as u32];
        *mine = merge_column(mine, &theirs, rows, apart);
    }
    statistics.rows += rows.1;
    statistics.partitions += b.statistics.partitions;
    TableSummary { name: a.name, bytes: a.bytes + b.bytes, statistics }
}

fn merge_column(a: &ColumnStatistics, b: &ColumnStatistics, rows: (u64, u64), apart: bool) -> ColumnStatistics {
    if rows.0 == 0 || rows.1 == 0 {
        return if rows.0 == 0 { b.clone() } else { a.clone() };
    }
    let extreme = |x: &Option<Value>, y: &Option<Value>, first: std::cmp::Ordering| {
        let (x, y) = (x.as_ref()?, y.as_ref()?);
        Some(if order(x, y)? == first { x.clone() } else { y.clone() })
    };
    let weight = rows.0 as f64 / (rows.0 + rows.1) as f64;
    ColumnStatistics {
        min: extreme(&a.min, &b.min, std::cmp::Ordering::Less),
        max: extreme(&a.max, &b.max, std::cmp::Ordering::Greater),
        distinct: a
            .distinct
            .zip(b.distinct)
            .map(|(x, y)| if apart { x + y } else { distinct_of_both((x, rows.0 as f64), (y, rows.1 as f64)) }),
        nulls: a.nulls + b.nulls,
        average_length: a.average_length.zip(b.average_length).map(|(x, y)| x * weight + y * (1.0 - weight)),
    }
}

fn order(a: &Value, b: &Value) -> Option<std::cmp::Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::UInt(a), Value::UInt(b)) => Some(a.cmp(b)),
        (Value::Decimal(a), Value::Decimal(b)) => Some(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Str(a), Value::Str(b)) => Some(a.cmp(b)),
        (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// The distinct values of two samples together, each given as (distinct values, rows), if both were drawn at random from one set of
/// values. The size of the set follows from the larger sample: `n` draws of `d` values show `d (1 - (1 - 1/d)^n)` of them.
fn distinct_of_both(a: (f64, f64), b: (f64, f64)) -> f64 {
    let (seen, rows) = if a.1 >= b.1 { a } else { b };
    let all = a.1 + b.1;
    let most = (a.0 + b.0).max(1.0);
    let shown = |values: f64, draws: f64| values * -f64::exp_m1(draws * f64::ln_1p(-1.0 / values.max(1.000_001)));
    if seen >= rows * 0.99 {
        return most;
    }
    let (mut low, mut high) = (seen.max(1.0), most * 1e3);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if shown(middle, rows) < seen { low = middle } else { high = middle }
    }
    shown(low, all).clamp(a.0.max(b.0), most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_values_of_both() {
        let near = |found: f64, right: f64| assert!((found - right).abs() / right < 0.05, "{found} is not about {right}");
        // All values were seen in each half.
        near(distinct_of_both((7.0, 1e6), (7.0, 1e6)), 7.0);
        // No value was seen twice.
        near(distinct_of_both((1e6, 1e6), (1e6, 1e6)), 2e6);
        // A million draws of a million values show 632 thousand, two million 865.
        near(distinct_of_both((632_121.0, 1e6), (632_121.0, 1e6)), 864_665.0);
    }
}
