//! Several coordinators: any of them serves, the leader decides, and losing a minority costs connections and nothing else.

use std::fs;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use stoa_client::{Cancelled, Client, Login, Options, Security};

use crate::binary::stoa;
use crate::nodes::{Cluster, Node, text};

fn sql(cluster: &Cluster, addresses: &str, sql: &str) -> Output {
    cluster.command_at(addresses, &["sql", "--format", "csv", "-c", sql]).output().unwrap()
}

fn ok(cluster: &Cluster, addresses: &str, statements: &str) -> String {
    let output = sql(cluster, addresses, statements);
    assert!(output.status.success(), "{statements}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Fails with these words, though perhaps a moment later: coordinators learn of each other what changed.
fn fails(cluster: &Cluster, addresses: &str, statements: &str, what: &str) {
    let began = Instant::now();
    loop {
        let output = sql(cluster, addresses, statements);
        let said = text(&output);
        assert!(!output.status.success() && began.elapsed() < Duration::from_secs(30), "{statements}: {said} instead of {what}");
        if said.contains(what) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Ends a node of the cluster by its process number, as a crash would.
fn kill(cluster: &Cluster, node: usize) {
    let killed = Command::new("kill").args(["-9", &cluster.pid(node)]).status().unwrap();
    assert!(killed.success());
}

/// The node that leads, by its place in the cluster's record.
pub fn leader(cluster: &Cluster, ask: &str) -> usize {
    let began = Instant::now();
    loop {
        let listed = ok(cluster, ask, "SHOW AGGREGATORS");
        let line = listed.lines().find(|line| line.contains(",online,") && line.contains(",leader,"));
        let port = line.and_then(|line| line.split(',').nth(1));
        if let Some(found) = port.and_then(|port| (0..3).find(|n| cluster.address(*n).ends_with(&format!(":{port}")))) {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "nobody leads: {listed}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn any_coordinator_serves_and_a_minority_may_go() {
    let cluster = Cluster::with(3, 2);
    let address: Vec<String> = (0..3).map(|n| cluster.address(n)).collect();
    // What one makes the next one sees: a statement waits until its own coordinator has it, others follow within a heartbeat.
    ok(&cluster, &address[1], "CREATE TABLE t (a BIGINT, SHARD KEY (a)); INSERT INTO t VALUES (1), (2), (3)");
    assert_eq!(ok(&cluster, &address[1], "SELECT sum(a) AS s FROM t"), "s\n6\n");
    fails(&cluster, &address[2], "CREATE TABLE t (a BIGINT)", "already exists");
    assert_eq!(ok(&cluster, &address[2], "SELECT sum(a) AS s FROM t"), "s\n6\n");

    let options = Options { addresses: address.clone(), login: Login::default(), security: Security::new(cluster.secret()) };
    let client = Client::connect(&options).unwrap();
    let first = leader(&cluster, &address[1]);
    assert_eq!(client.address(), address[0]);
    kill(&cluster, 0);
    // The client reconnects by itself; a call that finds the connection broken fails once at most.
    let rows = client.query("SELECT count(*) FROM t").or_else(|_| client.query("SELECT count(*) FROM t")).unwrap();
    assert_eq!(rows.batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 1);
    assert_ne!(client.address(), address[0]);
    let began = Instant::now();
    ok(&cluster, &format!("{},{}", address[0], address[2]), "CREATE TABLE u AS SELECT a + 1 AS b FROM t");
    assert!(first != 0 || began.elapsed() < Duration::from_secs(15), "an election takes seconds: {:?}", began.elapsed());
    assert_eq!(ok(&cluster, &address[1], "SELECT sum(b) AS s FROM u"), "s\n9\n");

    // Without a majority nothing is changed, and what is there can be read.
    kill(&cluster, 1);
    fails(&cluster, &address[2], "CREATE TABLE w (a BIGINT)", "a majority of the coordinators");
    assert_eq!(ok(&cluster, &address[2], "SELECT sum(b) AS s FROM u"), "s\n9\n");

    // One comes back without its disk: under a new number.
    fs::remove_dir_all(cluster.path().join("coordinator2")).unwrap();
    let started = stoa(&["cluster", "start", "--dir", cluster.dir(), "--threads", "1"]).output().unwrap();
    assert!(started.status.success(), "{}", text(&started));
    leader(&cluster, &address[2]);
    fails(&cluster, &address[1], "SELECT 1", "has no part in a cluster yet");
    ok(&cluster, &address[2], &format!("ADD AGGREGATOR '{}'", address[1]));
    fails(&cluster, &address[2], &format!("ADD COORDINATOR '{}'", address[1]), "is there already");
    assert_eq!(ok(&cluster, &address[1], "SELECT sum(b) AS s FROM u"), "s\n9\n");
    ok(&cluster, &address[1], &format!("REMOVE AGGREGATOR '{}'", address[0]));
    fails(&cluster, &address[0], "SELECT 1", "was removed from it");
    assert_eq!(ok(&cluster, &address[1], "SHOW AGGREGATORS").lines().count(), 3);
}

/// What was made or allowed through one coordinator is there for whoever asks another one at once.
#[test]
fn coordinators_know_what_was_done_through_others() {
    let cluster = Cluster::with(3, 1);
    let leads = leader(&cluster, &cluster.address(0));
    let connect = |node: usize, user: &str, password: &str| {
        let login = Login { user: user.into(), password: password.into(), ..Login::default() };
        let options = Options { addresses: vec![cluster.address(node)], login, security: Security::new(cluster.secret()) };
        Client::connect(&options).unwrap_or_else(|failure| panic!("{user} through {node}: {failure}"))
    };
    let run = |client: &Client, sql: &str| {
        client.execute(sql, &Cancelled::default(), &mut |_| Ok(())).unwrap_or_else(|failure| panic!("{sql}: {failure}"));
    };
    let (makes, others) = (connect(leads, "", ""), [(leads + 1) % 3, (leads + 2) % 3]);
    let [one, other] = others.map(|node| connect(node, "", ""));
    for round in 0..20 {
        run(&makes, &format!("CREATE TABLE t{round} (a BIGINT)"));
        let [first, second] = if round % 2 == 0 { [&one, &other] } else { [&other, &one] };
        run(first, &format!("SELECT count(*) FROM t{round}"));
        run(second, &format!("INSERT INTO t{round} VALUES (1)"));
    }
    // What had an effect is not run again.
    for client in [&makes, &one] {
        run(&makes, "CREATE TABLE made (a BIGINT)");
        let failure = client.execute("DROP TABLE made, missing", &Cancelled::default(), &mut |_| Ok(())).unwrap_err();
        assert!(failure.message.contains("'missing'"), "{failure}");
    }
    run(&makes, "CREATE USER boss IDENTIFIED BY 'of boss'");
    let makes = connect(leads, "boss", "of boss");
    for round in 0..5 {
        run(&makes, &format!("CREATE USER ada{round} IDENTIFIED BY 'of ada'; GRANT SELECT ON t1 TO ada{round}"));
        let ada = others.map(|node| connect(node, &format!("ada{round}"), "of ada"));
        run(&ada[0], "SELECT * FROM t1");
        run(&makes, &format!("GRANT SELECT ON t2 TO ada{round}"));
        run(&ada[1], "SELECT * FROM t2");
    }
}

#[test]
fn coordinators_and_leaves_join_while_queries_run() {
    let cluster = Cluster::start(1);
    cluster.ok("CREATE REFERENCE TABLE r (a BIGINT); INSERT INTO r VALUES (7); CREATE TABLE t (a BIGINT, SHARD KEY (a))");
    let rows: Vec<String> = (1..=1000).map(|i| format!("({i})")).collect();
    cluster.ok(&format!("INSERT INTO t VALUES {}", rows.join(", ")));
    let folder = |name: &str| cluster.path().join(name).to_str().unwrap().to_owned();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for _ in 0..20 {
                assert_eq!(cluster.ok("SELECT count(*) AS n, sum(t.a + r.a) AS s FROM t, r"), "n,s\n1000,507500\n");
            }
        });
        let log = cluster.path().join("nodes.err");
        let leaf = Node::start(&cluster, &["leaf", "--data", &folder("new_leaf"), "--listen", "127.0.0.1:0"], &log);
        cluster.ok(&format!("ADD LEAF '{}'", leaf.address));
        let join = cluster.address(0);
        let args = ["coordinator", "--data", &folder("new_coordinator"), "--listen", "127.0.0.1:0", "--join", &join];
        let joined = Node::start(&cluster, &args, &log);
        assert_eq!(ok(&cluster, &joined.address, "SELECT count(*) AS n FROM t"), "n\n1000\n");
        assert_eq!(cluster.ok("SHOW AGGREGATORS").lines().count(), 3);
        assert_eq!(cluster.ok("SHOW LEAVES").lines().count(), 3);
        cluster.ok(&format!("REMOVE LEAF '{}'", leaf.address));
        cluster.ok(&format!("REMOVE AGGREGATOR '{}'", joined.address));
        reader.join().unwrap();
    });
    assert_eq!(cluster.ok("SHOW LEAVES").lines().count(), 2);
}

/// Statements that give rows give them through a coordinator that does not lead, too.
#[test]
fn the_leader_sends_rows_back() {
    let cluster = Cluster::with(2, 2);
    let address = [cluster.address(0), cluster.address(1)];
    let follower = &address[usize::from(leader(&cluster, &address[0]) == 0)];
    let leaf = cluster.address(3);
    cluster.ok("CREATE DATABASE gone PARTITIONS 4 REDUNDANCY 1");
    // The database is dropped while a leaf is away, which has its partitions still when it is back.
    kill(&cluster, 3);
    cluster.ok("DROP DATABASE gone");
    cluster.start_again();
    let port = leaf.rsplit_once(':').unwrap().1;
    let began = Instant::now();
    while ok(&cluster, follower, "EXPLAIN CLEAR ORPHAN DATABASES").matches("to be removed").count() != 2 {
        let status = || ok(&cluster, follower, "SHOW LEAVES; SHOW CLUSTER STATUS");
        assert!(began.elapsed() < Duration::from_secs(60), "{}", status());
        std::thread::sleep(Duration::from_millis(50));
    }
    // A leaf is asked only while it is online.
    let mut removed = 0;
    while removed < 2 {
        let listed = ok(&cluster, follower, "CLEAR ORPHAN DATABASES");
        assert!(listed.starts_with("Host,Port,Database_Name,Bytes,Status\n"), "{listed}");
        removed += listed.lines().filter(|line| line.contains(&format!(",{port},gone_")) && line.ends_with(",removed")).count();
        assert!(began.elapsed() < Duration::from_secs(60), "{listed}");
    }
    // Texts come as before, and there is nothing left.
    let again = ok(&cluster, follower, "CREATE DATABASE gone PARTITIONS 2; CLEAR ORPHAN DATABASES");
    assert!(again.ends_with("Host,Port,Database_Name,Bytes,Status\n"), "{again}");
}
