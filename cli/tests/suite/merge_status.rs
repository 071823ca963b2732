//! What SHOW COLUMNAR MERGE STATUS says of a cluster.

use std::fs;
use std::time::{Duration, Instant};

use crate::binary::{files, stoa};
use crate::nodes::{Cluster, text};

const HEADER: &str = "Table,Partition,Segments,Segments To Merge,Rows In Memory,Deleted Rows,State,Error\n";

/// A segment of five rows.
fn add_segment(cluster: &Cluster, table: &str, first: u64) {
    let rows: Vec<String> = (first..first + 5).map(|a| format!("({a})")).collect();
    cluster.ok(&format!("INSERT INTO {table} VALUES {}; OPTIMIZE TABLE {table} FLUSH", rows.join(", ")));
}

#[test]
fn what_cannot_be_merged_is_shown_and_keeps_no_other_table_waiting() {
    let cluster = Cluster::start(1);
    cluster.ok("DROP DATABASE stoa; CREATE DATABASE stoa PARTITIONS 1 REDUNDANCY 1");
    cluster.ok("CREATE TABLE t (a BIGINT NOT NULL, SHARD KEY (a))");
    (0..7).for_each(|i| add_segment(&cluster, "t", i * 5));
    cluster.ok("INSERT INTO t VALUES (1000)");
    assert_eq!(cluster.ok("SHOW COLUMNAR MERGE STATUS FOR t"), format!("{HEADER}t,0,7,0,1,0,idle,\"\"\n"));
    cluster.ok("CREATE TABLE u (a BIGINT NOT NULL, SHARD KEY (a))");
    let stopped = stoa(&["cluster", "stop", "--dir", cluster.dir()]).output().unwrap();
    assert!(stopped.status.success(), "{}", text(&stopped));
    let damaged = files(&cluster.path().join("leaf1/databases"), "segment").remove(0);
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[64] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    cluster.start_again();

    add_segment(&cluster, "t", 100);
    let shows = |table: &str, what: &[&str]| {
        let began = Instant::now();
        loop {
            let said = cluster.ok(&format!("SHOW COLUMNAR MERGE STATUS FOR {table}"));
            if what.iter().all(|what| said.contains(what)) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    shows("t", &["t,0,8,8,0,0,failed,", damaged.to_str().unwrap()]);
    (0..8).for_each(|i| add_segment(&cluster, "u", i * 5));
    shows("u", &["u,0,1,0,0,0,idle,\"\"\n"]);
    cluster.fails("OPTIMIZE TABLE t", "is damaged");
    cluster.ok("TRUNCATE TABLE t");
    shows("t", &["t,0,0,0,0,0,idle,\"\"\n"]);
}
