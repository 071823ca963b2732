//! How fast single rows are inserted from many threads, each commit on disk before it is acknowledged: by SQL, by the transactions of
//! storage, and how fast the disk syncs for one thread that does nothing else.
//!
//! `cargo run --release -p stoa-bench --example inserts -- SCRATCH [SECONDS]`: SCRATCH is a folder that is not there yet, on the disk to be
//! measured. `benches/inserts.py` does the same with SQLite.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use stoa_columnstore::{Options, RowNames};
use stoa_coordinator::{Embedded, Error, Result, Session};
use stoa_exec::{CancelToken, Progress, Settings};

/// That of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const THREADS: usize = 16;
const TABLE: &str =
    "CREATE TABLE inserts (id BIGINT NOT NULL, amount BIGINT NOT NULL, note VARCHAR(30), PRIMARY KEY (id), SHARD KEY (id))";

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let scratch = arguments.next().ok_or_else(|| Error::Invalid("name a folder that is not there yet".into()))?;
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(5);
    let (scratch, time) = (Path::new(&scratch), Duration::from_secs(seconds));
    let failed = |e: std::io::Error| Error::Invalid(format!("{}: {e}", scratch.display()));
    std::fs::create_dir(scratch).map_err(failed)?;
    let mut file = File::create(scratch.join("synced")).map_err(failed)?;
    let sync = |_| file.write_all(&[7; 200]).and_then(|()| file.sync_data()).map_err(failed);
    measure("writes of 200 bytes with fdatasync, 1 thread", time, vec![sync])?;
    by_sql(&scratch.join("sql"), time)?;
    by_transactions(&scratch.join("transactions"), time)
}

fn open(directory: &Path) -> Result<Arc<Embedded>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let store = Arc::new(Embedded::open(directory, Options::default(), Settings::default(), threads, 1 << 30)?);
    run(&Session::new(store.clone()), TABLE)?;
    Ok(store)
}

fn run(session: &Session, sql: &str) -> Result<()> {
    session.run(sql, &CancelToken::default(), &Progress::default(), &mut |_| Ok(()))
}

fn by_sql(directory: &Path, time: Duration) -> Result<()> {
    let store = open(directory)?;
    let worker = |_| {
        let session = Session::new(store.clone());
        move |id| run(&session, &format!("INSERT INTO inserts VALUES ({id}, {}, 'row number {id}')", id * 7))
    };
    measure("INSERT of one row, 16 threads", time, (0..THREADS).map(worker).collect())
}

fn by_transactions(directory: &Path, time: Duration) -> Result<()> {
    let store = open(directory)?;
    let insert = |id: u64| {
        let id = id as i64;
        let columns: [(&str, ArrayRef); 3] = [
            ("id", Arc::new(Int64Array::from(vec![id]))),
            ("amount", Arc::new(Int64Array::from(vec![id * 7]))),
            ("note", Arc::new(StringArray::from(vec![format!("row number {id}")]))),
        ];
        let row = RecordBatch::try_from_iter(columns).map_err(stoa_columnstore::Error::from)?;
        let mut transaction = store.database().begin();
        transaction.insert("inserts", &row, RowNames::default())?;
        Ok(transaction.commit()?)
    };
    measure("transactions of one row, 16 threads", time, vec![&insert; THREADS])
}

/// Calls each of the workers from a thread of its own for a while, each time with another number, and prints rate and latencies.
fn measure<W: FnMut(u64) -> Result<()> + Send>(what: &str, time: Duration, workers: Vec<W>) -> Result<()> {
    let (next, began) = (&AtomicU64::new(0), Instant::now());
    let times: Vec<Result<Vec<Duration>>> = std::thread::scope(|scope| {
        let start = |mut worker: W| {
            scope.spawn(move || {
                let mut times = Vec::new();
                while began.elapsed() < time {
                    let asked = Instant::now();
                    worker(next.fetch_add(1, Ordering::Relaxed))?;
                    times.push(asked.elapsed());
                }
                Ok(times)
            })
        };
        let threads: Vec<_> = workers.into_iter().map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Ok(vec![]))).collect()
    });
    let seconds = began.elapsed().as_secs_f64();
    let mut all = times.into_iter().collect::<Result<Vec<_>>>()?.concat();
    all.sort_unstable();
    let at = |share: f64| all.get(((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1)));
    let ms = |share: f64| at(share).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    let (rate, p50, p90, p99, max) = (all.len() as f64 / seconds, ms(0.5), ms(0.9), ms(0.99), ms(1.0));
    println!("{what}: {rate:.0}/s, p50 {p50:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, max {max:.2} ms");
    println!("{}", histogram(&all));
    Ok(())
}

/// How many of some latencies, which are in order, are below each power of two.
fn histogram(all: &[Duration]) -> String {
    let mut line = String::from("  below");
    let (mut micros, mut counted) = (125, 0);
    while counted < all.len() {
        let below = all.partition_point(|time| time.as_micros() < micros);
        if below > 0 {
            let share = (below - counted) as f64 / all.len() as f64 * 100.0;
            let _ = write!(line, " {} ms {share:.1} %,", micros as f64 / 1e3);
        }
        (micros, counted) = (micros * 2, below);
    }
    line.trim_end_matches(',').to_owned()
}
