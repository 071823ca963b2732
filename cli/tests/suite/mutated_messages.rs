//! Messages that somebody with the secret sends damaged, at every interface of every kind of node: the conversations of a cluster at work
//! are recorded, and sent again with bytes flipped, cut, repeated and exchanged. No node crashes, hangs or panics, and it serves others.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use stoa_client::{Client, Login, Options, Parameter, Security};
use stoa_plan::codec::encode;
use stoa_plan::{ColumnId, DataType, Field, Node as PlanNode, Plan, Query, Scan, ScanColumn};

use crate::nodes::{Cluster, Node, text};

/// Cases for each node, unless `STOA_FUZZ_CASES` says how many.
const CASES: u64 = 400;
/// Longer conversations are sent again in part.
const MOST_BYTES: usize = 64 << 10;

/// What clients said, a list of bytes a connection.
type Recorded = Arc<Mutex<Vec<Vec<u8>>>>;

/// Passes connections on to another port and keeps what the clients say. It ends with the process.
fn recorder(to: impl Fn() -> String + Send + 'static) -> (String, Recorded) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, recorded) = (listener.local_addr().unwrap().to_string(), Recorded::default());
    let all = recorded.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(to()) else { continue };
            let number = {
                let mut all = all.lock().unwrap();
                all.push(Vec::new());
                all.len() - 1
            };
            let (mut from, mut back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let (all, mut server, mut client) = (all.clone(), server, client);
            std::thread::spawn(move || {
                let mut buffer = [0; 16 << 10];
                while let Ok(n @ 1..) = from.read(&mut buffer) {
                    all.lock().unwrap()[number].extend_from_slice(&buffer[..n]);
                    if server.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
                let _ = server.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut back, &mut client);
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    (address, recorded)
}

/// Reproducible numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % bound.max(1)
    }
}

/// A conversation with a few places changed; the greeting at its beginning mostly stays whole, so that what follows is looked at.
fn mutated(recorded: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = recorded[random.below(recorded.len())].clone();
    bytes.truncate(MOST_BYTES);
    for _ in 0..=random.below(4) {
        let start = if random.below(4) == 0 { 0 } else { bytes.len().min(300) };
        let at = start + random.below(bytes.len() - start);
        let end = (at + 1 + random.below(64)).min(bytes.len());
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at..end].iter_mut().for_each(|byte| *byte = random.below(256) as u8),
            2 => bytes.truncate(at),
            3 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => drop(bytes.drain(at..end)),
            _ => {
                let other = &recorded[random.below(recorded.len())];
                let from = random.below(other.len());
                bytes.splice(at..end, other[from..(from + 64).min(other.len())].iter().copied());
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

/// Sends damaged conversations to a node, several at a time.
fn bombard(address: &str, recorded: &Recorded, seed: u64) {
    let recorded: Vec<Vec<u8>> = recorded.lock().unwrap().iter().filter(|bytes| bytes.len() > 400).cloned().collect();
    assert!(!recorded.is_empty(), "nothing was said to {address}");
    let cases = std::env::var("STOA_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let recorded = &recorded;
            scope.spawn(move || {
                let mut random = Random(seed + thread * 1_000_003);
                for _ in 0..cases / 4 {
                    let bytes = mutated(recorded, &mut random);
                    let Ok(mut stream) = TcpStream::connect(address) else { panic!("{address} is gone (seed {seed})") };
                    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                    // The node may close the connection at any time.
                    let _ = stream.write_all(&bytes);
                    let _ = stream.read(&mut [0; 4096]);
                }
            });
        }
    });
}

/// A node that the others reach through a recorder.
struct Watched {
    name: &'static str,
    node: Node,
    /// Where the others reach it.
    to: String,
    said: Recorded,
}

fn watched(cluster: &Cluster, name: &'static str, more: &[&str]) -> Watched {
    let place = Arc::new(Mutex::new(String::new()));
    let goal = place.clone();
    let (to, said) = recorder(move || goal.lock().unwrap().clone());
    let kind = if name.starts_with("leaf") { "leaf" } else { "coordinator" };
    let data = cluster.path().join(name);
    let mut args = vec![kind, "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    if kind == "coordinator" {
        args.extend(["--advertise", &to]);
    }
    let node = Node::start(cluster, &[&args, more].concat(), &cluster.path().join(format!("{name}.err")));
    node.address.clone_into(&mut place.lock().unwrap());
    Watched { name, node, to, said }
}

/// What a statement gives, tried again for a while: whoever was sent damaged messages may have to find its peers again.
fn ok(cluster: &Cluster, address: &str, args: &[&str]) -> String {
    let began = Instant::now();
    loop {
        let output = cluster.command_at(address, args).output().unwrap();
        if output.status.success() {
            return String::from_utf8(output.stdout).unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{args:?}: {}", text(&output));
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A day's work, so that everything is said once: by clients to two coordinators, by those to each other, to leaves, and by leaves.
fn work(cluster: &Cluster, [leader, follower]: [&Watched; 2]) {
    let sql = |at: &Watched, sql: &str| ok(cluster, &at.to, &["sql", "--database", "other", "--format", "csv", "-c", sql]);
    sql(
        leader,
        "CREATE TABLE a (k BIGINT PRIMARY KEY, t VARCHAR(9), SHARD KEY (k)); CREATE TABLE b (k BIGINT, v DOUBLE); \
         INSERT INTO a VALUES (1, 'x'), (2, 'y'), (3, 'z'); INSERT INTO b VALUES (1, 1.5), (2, 2.5); \
         SELECT a.t, sum(b.v) FROM a JOIN b ON a.k = b.k GROUP BY a.t ORDER BY 1; SELECT count(*) FROM a JOIN b ON a.k = b.v; \
         CREATE VIEW v AS SELECT * FROM a; DESCRIBE v; SHOW LEAVES; EXPLAIN ANALYZE SELECT count(*) FROM a; DROP VIEW v",
    );
    // What only the leader may do, asked of the other one.
    sql(
        follower,
        "CREATE REFERENCE TABLE r (k BIGINT PRIMARY KEY, v BIGINT); INSERT INTO r VALUES (1, 1); REPLACE INTO r VALUES (1, 2), (2, 3); \
         UPDATE a SET t = 'w' WHERE k = 2; DELETE FROM a WHERE k = 3; REPLACE INTO a VALUES (1, 'again'), (9, 'new'); \
         INSERT INTO a VALUES (9, 'more') ON DUPLICATE KEY UPDATE t = 'known'; ALTER TABLE b ADD COLUMN w BIGINT; \
         BEGIN; UPDATE r SET v = v + 1; INSERT INTO b (k) VALUES (7), (8); COMMIT; BEGIN; DELETE FROM a; ROLLBACK; \
         OPTIMIZE TABLE a FLUSH; SHOW PROCESSLIST; SHOW TABLES; TRUNCATE TABLE r; SHOW USERS; SHOW CLUSTER STATUS",
    );
    let rows = cluster.path().join("rows.csv");
    fs::write(&rows, "14,u\n15,w\n").unwrap();
    ok(cluster, &leader.to, &["load", "--database", "other", "a", rows.to_str().unwrap()]);
    let backups = cluster.path().join("backups");
    let place = backups.to_str().unwrap();
    sql(
        follower,
        &format!("BACKUP DATABASE other TO '{place}'; RESTORE DATABASE other AS again FROM '{place}'; DROP DATABASE again"),
    );
    for admin in [&["status"][..], &["leaves"], &["coordinators"], &["databases"], &["partitions", "other"], &["processes"]] {
        ok(cluster, &follower.to, &[&["admin"], admin].concat());
    }
    for admin in [&["rebalance", "other", "--explain"][..], &["rebalance", "other"], &["restore-redundancy", "other"]] {
        ok(cluster, &leader.to, &[&["admin"], admin].concat());
    }
    ok(cluster, &leader.to, &["admin", "rebalance-status"]);
    ok(cluster, &leader.to, &["admin", "clear-orphans", "--explain"]);
    let _ = cluster.command_at(&leader.to, &["admin", "kill", "12345"]).output().unwrap();

    let login = Login { database: "other".into(), ..Login::default() };
    let options = Options { addresses: vec![leader.to.clone()], login, security: Security::new(cluster.secret()) };
    let client = Client::connect(&options).unwrap();
    let prepared = client.prepare("SELECT t FROM a WHERE k = ? OR t = ?").unwrap();
    prepared.query(&[Parameter::Int(1), Parameter::String("x".into())]).unwrap();
    let field = Field { id: ColumnId(0), name: "k".into(), ty: DataType::Int64, nullable: true };
    let scan = Scan {
        table: "a".into(),
        columns: vec![ScanColumn { ordinal: 0, field: field.clone() }],
        filters: vec![],
        filter_columns: vec![],
        runtime_filters: vec![],
        reference: false,
        shard_key: vec![0],
        revision: 0,
    };
    let query = Query { subplans: vec![], root: Plan::new(PlanNode::Scan(scan)), output: vec![field] };
    client.query_plan(&encode(&query).unwrap()).unwrap();
}

#[test]
fn damaged_messages_harm_nobody_else() {
    // It only lends its folder and its secret.
    let cluster = Cluster::start(1);
    let leader = watched(&cluster, "leader", &["--bootstrap"]);
    let follower = watched(&cluster, "follower", &[]);
    let leaves = [watched(&cluster, "leaf_a", &[]), watched(&cluster, "leaf_b", &[])];
    let make = format!(
        "ADD AGGREGATOR '{}'; ADD LEAF '{}' INTO GROUP 1; ADD LEAF '{}' INTO GROUP 2; CREATE DATABASE other PARTITIONS 4; \
         CREATE DATABASE stoa PARTITIONS 4",
        follower.to, leaves[0].to, leaves[1].to
    );
    ok(&cluster, &leader.to, &["sql", "-c", &make]);
    let began = Instant::now();
    let replicas = || ok(&cluster, &leader.to, &["sql", "-c", "SHOW PARTITIONS ON other"]).matches("Slave").count();
    while replicas() < 4 {
        assert!(began.elapsed() < Duration::from_secs(60), "there are no replicas");
        std::thread::sleep(Duration::from_millis(50));
    }
    work(&cluster, [&leader, &follower]);

    let nodes = [&leader, &follower, &leaves[0], &leaves[1]];
    for (seed, watched) in (11..).zip(nodes) {
        bombard(&watched.node.address, &watched.said, seed);
    }

    // Who knows the secret may have dropped a database with one of those, even on the leaves alone. Each node serves.
    let anew = "DROP DATABASE IF EXISTS other; DROP DATABASE IF EXISTS stoa; CREATE DATABASE stoa PARTITIONS 4";
    ok(&cluster, &leader.to, &["sql", "-c", anew]);
    for coordinator in [&leader, &follower] {
        let asked = ok(&cluster, &coordinator.node.address, &["sql", "--format", "csv", "-c", "SELECT 1 AS one"]);
        assert_eq!(asked, "one\n1\n");
    }
    let began = Instant::now();
    let log = |watched: &Watched| fs::read_to_string(cluster.path().join(format!("{}.err", watched.name))).unwrap();
    let logged = || {
        let last = |watched: &&Watched| {
            let lines = log(watched);
            lines.lines().rev().take(20).fold(watched.name.to_owned(), |all, line| format!("{all}\n{line}"))
        };
        nodes.iter().map(last).collect::<Vec<_>>().join("\n")
    };
    let listed = || ok(&cluster, &leader.to, &["sql", "--format", "csv", "-c", "SHOW LEAVES"]);
    while listed().lines().filter(|line| line.contains(",online,")).count() < 2 {
        assert!(began.elapsed() < Duration::from_secs(60), "a leaf does not serve:\n{}{}", listed(), logged());
        std::thread::sleep(Duration::from_millis(100));
    }
    ok(&cluster, &follower.to, &["sql", "-c", "CREATE DATABASE IF NOT EXISTS afterwards PARTITIONS 4"]);
    let work = "DROP TABLE IF EXISTS t; CREATE TABLE t (k BIGINT, SHARD KEY (k)); INSERT INTO t VALUES (1), (2), (3); \
                SELECT count(*) AS n FROM t";
    assert_eq!(ok(&cluster, &leader.to, &["sql", "--database", "afterwards", "--format", "csv", "-c", work]), "n\n3\n");
    for watched in nodes {
        let lines = log(watched);
        assert!(!lines.contains("panicked"), "{}: {lines}", watched.name);
    }
}
