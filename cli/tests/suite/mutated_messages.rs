//! Messages that somebody with the secret sends damaged, at every interface of every kind of node: the conversations of a cluster at work
//! are recorded, and sent again with bytes flipped, cut, repeated and exchanged. No node crashes, hangs or panics, and it serves others.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
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

fn sql(cluster: &Cluster, address: &str, sql: &str) -> Output {
    cluster.command_at(address, &["sql", "--format", "csv", "-c", sql]).output().unwrap()
}

#[test]
fn damaged_messages_harm_nobody_else() {
    let cluster = Cluster::start(1);
    let coordinator = cluster.address(0);
    let folder = |name: &str| cluster.path().join(name).to_str().unwrap().to_owned();
    let log = |name: &str| cluster.path().join(format!("{name}.err"));

    // A leaf and a coordinator that the others reach through recorders.
    let leaf = Node::start(&cluster, &["leaf", "--data", &folder("leaf_b"), "--listen", "127.0.0.1:0"], &log("leaf_b"));
    let leaf_address = leaf.address.clone();
    let (to_leaf, said_to_leaf) = recorder(move || leaf_address.clone());
    cluster.ok(&format!("ADD LEAF '{to_leaf}'; CREATE DATABASE other PARTITIONS 4"));
    let place = Arc::new(Mutex::new(String::new()));
    let of_peer = place.clone();
    let (to_peer, said_to_peer) = recorder(move || of_peer.lock().unwrap().clone());
    let args = ["coordinator", "--data", &folder("peer"), "--listen", "127.0.0.1:0", "--advertise", &to_peer];
    let peer = Node::start(&cluster, &args, &log("peer"));
    peer.address.clone_into(&mut place.lock().unwrap());
    cluster.ok(&format!("ADD AGGREGATOR '{to_peer}'"));

    // A day's work, so that everything is said once.
    let goal = coordinator.clone();
    let (to_coordinator, said_to_coordinator) = recorder(move || goal.clone());
    let work = "CREATE TABLE a (k BIGINT, t VARCHAR(9), SHARD KEY (k)); CREATE TABLE b (k BIGINT, v DOUBLE); \
                INSERT INTO a VALUES (1, 'x'), (2, 'y'), (3, 'z'); INSERT INTO b VALUES (1, 1.5), (2, 2.5); \
                SELECT a.t, sum(b.v) FROM a JOIN b ON a.k = b.k GROUP BY a.t ORDER BY 1; \
                CREATE VIEW v AS SELECT * FROM a; DESCRIBE v; SHOW LEAVES; EXPLAIN ANALYZE SELECT count(*) FROM a; DROP VIEW v";
    let worked = cluster.command_at(&to_coordinator, &["sql", "--database", "other", "-c", work]).output().unwrap();
    assert!(worked.status.success(), "{}", text(&worked));
    let rows = cluster.path().join("rows.csv");
    fs::write(&rows, "4,u\n5,w\n").unwrap();
    let load = ["load", "--database", "other", "a", rows.to_str().unwrap()];
    assert!(cluster.command_at(&to_coordinator, &load).output().unwrap().status.success());
    assert!(cluster.command_at(&to_coordinator, &["admin", "status"]).output().unwrap().status.success());

    bombard(&coordinator, &said_to_coordinator, 11);
    bombard(&leaf.address, &said_to_leaf, 12);
    bombard(&peer.address, &said_to_peer, 13);

    // Who knows the secret may have dropped a database with one of those. Each node serves.
    assert_eq!(cluster.ok("SELECT 1 AS one"), "one\n1\n");
    assert!(cluster.ok("SHOW LEAVES").lines().filter(|line| line.contains(",online,")).count() >= 2);
    cluster.ok("CREATE DATABASE afterwards PARTITIONS 4");
    let work = "CREATE TABLE t (k BIGINT, SHARD KEY (k)); INSERT INTO t VALUES (1), (2), (3); SELECT count(*) AS n FROM t";
    let worked = cluster.command(&["sql", "--database", "afterwards", "--format", "csv", "-c", work]).output().unwrap();
    assert_eq!(text(&worked), "n\n3\n");
    let asked = sql(&cluster, &peer.address, "SELECT 1 AS one");
    assert!(asked.status.success(), "{}", text(&asked));
    for name in ["coordinator1.log", "leaf1.log", "leaf_b.err", "peer.err"] {
        let lines = fs::read_to_string(cluster.path().join(name)).unwrap();
        assert!(!lines.contains("panicked"), "{name}: {lines}");
    }
}
