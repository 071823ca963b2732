//! A client of a cluster learns how far its query is.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use stoa_client::{Cancelled, Client, Failure, Part};

use crate::nodes::Cluster;

type Seen = Vec<(u64, u64)>;

/// Runs a query until it is over, or `enough` says so of what was told: how it ended, and everything that was told.
fn followed(client: &Client, sql: &str, enough: fn(&Seen) -> bool) -> (Result<(), Failure>, Seen) {
    let (cancelled, how_far) = (Cancelled::default(), Mutex::new(None));
    std::thread::scope(|scope| {
        let mut follow = |told| *how_far.lock().unwrap() = Some(told);
        let mut rows = |_: Part| Ok(());
        let cancel = cancelled.clone();
        let watched = scope.spawn(|| {
            let (mut seen, began): (Seen, _) = (vec![], Instant::now());
            while !cancelled.load(std::sync::atomic::Ordering::Relaxed) {
                let now = how_far.lock().unwrap().as_ref().map(|told: &stoa_client::HowFar| told());
                seen.extend(now.filter(|now| seen.last() != Some(now)));
                if enough(&seen) || began.elapsed() > Duration::from_secs(60) {
                    cancelled.store(true, std::sync::atomic::Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            seen
        });
        let ran = client.stream_followed(sql, &cancel, &mut follow, &mut rows);
        cancel.store(true, std::sync::atomic::Ordering::Relaxed);
        (ran, watched.join().unwrap())
    })
}

#[test]
fn long_queries_tell_how_far_they_are() {
    let cluster = Cluster::start(2);
    cluster.ok("CREATE DATABASE many PARTITIONS 12 REDUNDANCY 1");
    let values = |rows: u64| (0..rows).map(|i| format!("({i})")).collect::<Vec<_>>().join(",");
    let more = "INSERT INTO t SELECT x.a * 200 + y.a FROM t x, t y WHERE x.a > 0";
    let t = format!("CREATE TABLE t (a BIGINT, SHARD KEY (a)); INSERT INTO t VALUES {}; {more}", values(150));
    let made = cluster.command(&["sql", "--database", "many", "-c", &t]).output().unwrap();
    assert!(made.status.success(), "{}", crate::nodes::text(&made));
    let login = stoa_client::Login { database: "many".into(), ..stoa_client::Login::default() };
    let security = stoa_client::Security::new(cluster.secret());
    let options = stoa_client::Options { addresses: vec![cluster.address(0)], login, security };
    let client = Client::connect(&options).unwrap();

    // What is over soon says nothing.
    let began = Instant::now();
    let (ran, seen) = followed(&client, "SELECT count(*) FROM t", |_| false);
    ran.unwrap();
    // Unless it was not seen at all, or took a second on a busy machine.
    assert!(seen.len() <= 1 && seen.iter().all(|seen| *seen == (0, 0)) || began.elapsed() > Duration::from_secs(1), "{seen:?}");

    // The leaves tell of what they do, in one call each or in several.
    let one = "SELECT count(*) AS n FROM t AS x, t AS y WHERE x.a * 3 <> y.a * 7 + 1";
    let within = format!("BEGIN; {one}; ROLLBACK");
    for sql in [one, &within] {
        let grows = |seen: &Seen| seen.iter().filter(|(done, total)| (1..*total).contains(done)).count() > 1;
        let (_, seen) = followed(&client, sql, grows);
        assert!(grows(&seen), "{sql}: {seen:?}");
        // It begins anew where a leaf was busy for so long that it counted as lost.
        let mut runs = seen.split(|now| *now == (0, 0));
        assert!(seen.iter().all(|(done, total)| done <= total) && runs.all(<[_]>::is_sorted), "{sql}: {seen:?}");
    }
    // Whoever does not ask is not told, and gets his rows.
    assert_eq!(client.query("SELECT count(*) FROM t").unwrap().batches[0].num_rows(), 1);
}
