//! Leaves come back with nothing on their disks: what others have is not thrown away for it.

use std::fs;
use std::time::{Duration, Instant};

use crate::nodes::{Cluster, Node};

const COUNTS: &str = "SELECT count(*) AS n, count(DISTINCT a) AS d, (SELECT count(*) FROM r) AS r FROM t";

/// Two leaves with a sharded table of 100 rows and a REFERENCE table of 1.
fn cluster() -> Cluster {
    let cluster = Cluster::start(2);
    cluster.wait_for_replicas(2);
    cluster.ok("CREATE TABLE t (a BIGINT PRIMARY KEY); CREATE REFERENCE TABLE r (a BIGINT); INSERT INTO r VALUES (1)");
    let values: Vec<String> = (0..100).map(|a| format!("({a})")).collect();
    cluster.ok(&format!("INSERT INTO t VALUES {}", values.join(", ")));
    cluster
}

fn wipe(cluster: &Cluster, leaf: usize) {
    fs::remove_dir_all(cluster.path().join(format!("leaf{leaf}"))).unwrap();
}

fn start(cluster: &Cluster, leaf: usize) -> Node {
    let (data, log) = (cluster.path().join(format!("leaf{leaf}")), cluster.path().join(format!("again{leaf}.log")));
    Node::start(cluster, &["leaf", "--data", data.to_str().unwrap(), "--listen", &cluster.address(leaf)], &log)
}

fn wait_for(cluster: &Cluster, sql: &str, what: &dyn Fn(&str) -> bool) {
    let began = Instant::now();
    while !what(&cluster.ok(sql)) {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", cluster.ok("SHOW LEAVES; SHOW PARTITIONS"));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_leaf_that_is_back_at_once_without_its_disk_gets_everything_again() {
    let cluster = cluster();
    for (leaf, rows) in [(1, 100), (2, 101)] {
        // Before anybody misses it.
        cluster.signal(leaf, "KILL");
        wipe(&cluster, leaf);
        cluster.start_again();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            assert_eq!(cluster.ok(COUNTS), format!("n,d,r\n{rows},{rows},1\n"), "leaf {leaf} lost its disk");
        }
        wait_for(&cluster, "SHOW LEAVES", &|leaves| !leaves.contains(",offline,"));
        cluster.wait_for_replicas(2);
        // Now it has everything, and is enough.
        cluster.signal(3 - leaf, "KILL");
        cluster.ok(&format!("INSERT INTO t VALUES ({rows})"));
        assert_eq!(cluster.ok(COUNTS), format!("n,d,r\n{0},{0},1\n", rows + 1), "leaf {leaf} alone");
        cluster.start_again();
        wait_for(&cluster, "SHOW LEAVES", &|leaves| !leaves.contains(",offline,"));
        cluster.wait_for_replicas(2);
    }
}

#[test]
fn a_leaf_that_lost_its_disk_does_not_lead_the_one_that_did_not() {
    for wiped in [1, 2] {
        let cluster = cluster();
        // At once: the one that is left for a moment would report that the other one failed.
        cluster.signal_all(&[1, 2], "KILL");
        wipe(&cluster, wiped);
        wait_for(&cluster, "SHOW LEAVES", &|leaves| leaves.matches(",offline,").count() == 2);
        // It is first, and whatever it was it has nothing to answer with.
        let first = start(&cluster, wiped);
        std::thread::sleep(Duration::from_secs(2));
        let other = start(&cluster, 3 - wiped);
        assert_eq!(cluster.ok(COUNTS), "n,d,r\n100,100,1\n", "leaf {wiped} lost its disk");
        cluster.wait_for_replicas(2);
        cluster.ok("INSERT INTO t VALUES (100)");
        assert_eq!(cluster.ok(COUNTS), "n,d,r\n101,101,1\n", "leaf {wiped} lost its disk");
        drop((first, other));
    }
}
