//! How fast a cluster answers: round trips of point queries, many clients at once, large results, a merge of many groups.
//!
//! `cargo run --release -p stoa-bench --example cluster_clients -- HOST:PORT [DATABASE]` with `STOA_SECRET` set, on a database that has
//! TPC-H (`stoa tpch --connect`). It makes tables of its own, `bench_*`, and drops them.

use std::time::{Duration, Instant};

use stoa_client::{Cancelled, Client, Failure, Login, Options, Part, Result, Security};

const POINT_QUERIES: usize = 2000;
const CLIENTS: usize = 64;
const LOAD_TIME: Duration = Duration::from_secs(5);
/// Keys of point queries. Of texts that were asked before a coordinator keeps the plans, 256 of them.
const KEYS: [(&str, usize); 2] = [("planned each time", 10_000), ("planned before", 100)];

fn main() -> Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3306".into());
    let login = Login { database: std::env::args().nth(2).unwrap_or_default(), ..Login::default() };
    let security = Security::new(std::env::var("STOA_SECRET").unwrap_or_default());
    let options = Options { addresses: vec![address], security, login };
    let client = Client::connect(&options)?;
    run(&client, "DROP TABLE IF EXISTS bench_point; DROP TABLE IF EXISTS bench_groups")?;
    run(&client, "CREATE TABLE bench_point (k BIGINT NOT NULL, v DECIMAL(15, 2), SHARD KEY (k), PRIMARY KEY (k))")?;
    run(&client, "INSERT INTO bench_point SELECT DISTINCT o_orderkey % 10000, 12.5 FROM orders")?;
    for keys in KEYS {
        point_queries(&client, keys)?;
        many_clients(&options, keys)?;
    }
    merge(&client)?;
    stream(&client)?;
    run(&client, "DROP TABLE bench_point; DROP TABLE bench_groups")
}

fn run(client: &Client, sql: &str) -> Result<()> {
    client.execute(sql, &Cancelled::default(), &mut |_| Ok(()))
}

fn point_query(client: &Client, key: usize) -> Result<Duration> {
    let asked = Instant::now();
    client.query(&format!("SELECT v FROM bench_point WHERE k = {key}"))?;
    Ok(asked.elapsed())
}

fn point_queries(client: &Client, (what, keys): (&str, usize)) -> Result<()> {
    (0..keys.min(POINT_QUERIES)).try_for_each(|key| point_query(client, key).map(drop))?;
    let mut times = (0..POINT_QUERIES).map(|i| point_query(client, i % keys)).collect::<Result<Vec<_>>>()?;
    let (p50, p99) = percentiles(&mut times);
    println!("point query, {what}, one client: p50 {:.2} ms, p99 {:.2} ms", ms(p50), ms(p99));
    Ok(())
}

fn many_clients(options: &Options, (what, keys): (&str, usize)) -> Result<()> {
    let began = Instant::now();
    let times: Vec<Result<Vec<Duration>>> = std::thread::scope(|scope| {
        let one = |number: usize| {
            let client = Client::connect(options)?;
            let mut times = Vec::new();
            while began.elapsed() < LOAD_TIME {
                times.push(point_query(&client, (number * 157 + times.len()) % keys)?);
            }
            Ok::<_, Failure>(times)
        };
        let threads: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || one(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Ok(vec![]))).collect()
    });
    let seconds = began.elapsed().as_secs_f64();
    let mut all: Vec<Duration> = times.into_iter().collect::<Result<Vec<_>>>()?.concat();
    let count = all.len();
    let (p50, p99) = percentiles(&mut all);
    println!(
        "point query, {what}, {CLIENTS} clients: {:.0} queries/s, p50 {:.1} ms, p99 {:.1} ms",
        count as f64 / seconds,
        ms(p50),
        ms(p99)
    );
    Ok(())
}

/// The groups are on all partitions, so that every one is merged from the states of each leaf.
fn merge(client: &Client) -> Result<()> {
    run(
        client,
        "CREATE TABLE bench_groups AS SELECT (l_orderkey * 7 + l_linenumber) % 1000000 AS g, l_quantity AS q FROM lineitem",
    )?;
    let (mut best, mut groups) = (Duration::MAX, String::new());
    let rows = client.query("SELECT count(*) FROM bench_groups")?.batches.first().map(|b| format!("{:?}", b.column(0)));
    for _ in 0..3 {
        let began = Instant::now();
        let rows = client.query("SELECT count(*) FROM (SELECT g, sum(q) AS s FROM bench_groups GROUP BY g) x WHERE s > 0")?;
        best = best.min(began.elapsed());
        groups = rows.batches.first().map(|b| format!("{:?}", b.column(0))).unwrap_or_default();
    }
    println!("sum in groups that every leaf has: {:.0} ms; rows {rows:?}; groups: {groups}", ms(best));
    Ok(())
}

/// A result of more than a GiB, of which the client keeps nothing.
fn stream(client: &Client) -> Result<()> {
    // Four columns of 8 bytes.
    let once = "SELECT l_orderkey, l_partkey, l_suppkey, l_extendedprice FROM lineitem";
    for (what, sql) in [("", once.to_owned()), (" in one order", format!("{once} ORDER BY l_orderkey, l_partkey"))] {
        streamed(client, what, &sql)?;
    }
    streamed(client, "", &[once; 6].join(" UNION ALL "))
}

fn streamed(client: &Client, what: &str, sql: &str) -> Result<()> {
    let (mut best, mut bytes, mut first) = (0.0f64, 0, Duration::MAX);
    for _ in 0..3 {
        let began = Instant::now();
        bytes = 0;
        client.stream(sql, &Cancelled::default(), &mut |part| {
            if let Part::Rows(batches) = part {
                first = first.min(began.elapsed());
                bytes += batches.iter().map(|b| b.num_rows() * 32).sum::<usize>();
            }
            Ok(())
        })?;
        best = best.max(bytes as f64 / 1e9 / began.elapsed().as_secs_f64());
    }
    let megabytes = bytes as f64 / 1e6;
    println!("result of {megabytes:.0} MB{what} to one client: {best:.2} GB/s, first rows after {:.1} ms", ms(first));
    Ok(())
}

fn percentiles(times: &mut [Duration]) -> (Duration, Duration) {
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    (at(0.5), at(0.99))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
