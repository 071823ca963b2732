//! Nodes that the network cuts off.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::load::under_load;
use crate::network::{Network, Running};

/// Within so long everything is there again.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn a_leaf_that_is_cut_off_costs_time_and_nothing_else() {
    let Some(network) = Network::new("l", 3) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (coordinators, _nodes) = network.start_cluster(1, folder.path());
    let ok = |sql: &str| network.sql(&coordinators, sql).unwrap_or_else(|said| panic!("{sql}: {said}"));
    let whole = || network.wait_for(&coordinators, "SHOW PARTITIONS", ",Slave,", 4, LIMIT);
    whole();
    let mut took = Vec::new();
    under_load(&ok, || {
        for node in [1, 2] {
            std::thread::sleep(Duration::from_millis(700));
            network.cut(node);
            let cut = Instant::now();
            ok("SELECT count(*) FROM rows");
            took.push(cut.elapsed());
            std::thread::sleep(Duration::from_millis(500));
            network.heal(node);
            whole();
        }
    });
    assert!(took.iter().all(|took| *took < Duration::from_secs(15)), "first answers after {took:?}");
}

#[test]
fn the_coordinators_go_on_without_a_leader_that_is_cut_off() {
    let Some(network) = Network::new("c", 4) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (coordinators, _nodes) = network.start_cluster(3, folder.path());
    network.sql(&coordinators, "CREATE TABLE t (a INT); INSERT INTO t VALUES (1)").unwrap();
    network.wait_for(&coordinators, "SHOW AGGREGATORS", "online", 3, LIMIT);
    // The first one leads. A client that knows it finds the next one.
    network.cut(0);
    let began = Instant::now();
    let sql = "CREATE OR REPLACE VIEW v AS SELECT 1 AS one; INSERT INTO t VALUES (2); SELECT one FROM v";
    network.wait_for(&coordinators, sql, "one\n1\n", 1, LIMIT);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let written = network.sql(&coordinators, "SELECT count(*) AS n FROM t WHERE a = 2").unwrap();
    // Alone it decides nothing.
    let alone = network.within(0, &["sql", "--connect", &network.address(0), "-c", "CREATE TABLE u (a INT)"]);
    let mut alone = Running({ alone }.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    std::thread::sleep(Duration::from_millis(500));
    assert!(alone.0.try_wait().unwrap().is_none_or(|status| !status.success()));
    drop(alone);
    network.heal(0);
    network.wait_for(&coordinators, "SHOW AGGREGATORS", "online", 3, LIMIT);
    // It has what the others decided.
    network.wait_for(&network.address(0), "SELECT one FROM v", "one\n1\n", 1, LIMIT);
    assert_eq!(network.sql(&network.address(0), "SELECT count(*) AS n FROM t WHERE a = 2").unwrap(), written);
    assert!(network.sql(&network.address(0), "SELECT * FROM u").is_err());
}
