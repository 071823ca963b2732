//! A leaf of a cluster that answers with something else than it should, in the middle of queries: each ends soon, with an error that
//! names the leaf, and the coordinator serves all others.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::mutated_messages::Random;
use crate::nodes::{Cluster, Node, text};

/// What becomes of what a leaf says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Nothing.
    Whole,
    /// Other bytes come in its place, from some byte on.
    Garbage(u8),
    /// Some of its bytes are changed.
    Flipped,
    /// Some of its bytes are missing.
    Cut,
    /// Some of its bytes come again.
    Again,
}

pub struct Proxy {
    pub to: String,
    how: Arc<Mutex<How>>,
    /// Bytes that still pass whole.
    first: Arc<AtomicUsize>,
    seed: Arc<AtomicU64>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    pub fn start(goal: Arc<Mutex<String>>) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap().to_string();
        let how = Arc::new(Mutex::new(How::Whole));
        let proxy = Proxy { to, how, first: Arc::default(), seed: Arc::default(), connections: Arc::default() };
        let connections = proxy.connections.clone();
        let (how, first, seed) = (proxy.how.clone(), proxy.first.clone(), proxy.seed.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(goal.lock().unwrap().as_str()) else { continue };
                connections.lock().unwrap().push(client.try_clone().unwrap());
                let (mut from, mut into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut into);
                    let _ = into.shutdown(Shutdown::Both);
                });
                let (how, first, seed) = (how.clone(), first.clone(), seed.clone());
                std::thread::spawn(move || pass_back(server, client, &how, &first, &seed));
            }
        });
        proxy
    }

    /// Ends all connections, as the end of the leaf's process would.
    pub fn hang_up(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// From now on, after so many bytes.
    fn set(&self, how: How, first: usize, seed: u64) {
        self.first.store(first, Ordering::Relaxed);
        self.seed.store(seed, Ordering::Relaxed);
        *self.how.lock().unwrap() = how;
    }
}

fn pass_back(mut server: TcpStream, mut client: TcpStream, how: &Mutex<How>, first: &AtomicUsize, seed: &AtomicU64) {
    let mut buffer = [0; 16 << 10];
    while let Ok(n @ 1..) = server.read(&mut buffer) {
        let mut bytes = buffer[..n].to_vec();
        let how = *how.lock().unwrap();
        let whole = first.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(n))).unwrap_or(0);
        if how != How::Whole && whole < n {
            let mut random = Random(seed.fetch_add(1, Ordering::Relaxed));
            garble(&mut bytes, whole, how, &mut random);
        }
        if client.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}

/// Garbles bytes from a place on.
fn garble(bytes: &mut Vec<u8>, from: usize, how: How, random: &mut Random) {
    let at = from + random.below(bytes.len() - from);
    let end = (at + 1 + random.below(64)).min(bytes.len());
    match how {
        How::Whole => {}
        How::Garbage(byte) => bytes[from..].fill(byte),
        How::Flipped => bytes[at..end].iter_mut().for_each(|byte| *byte ^= random.below(256) as u8),
        How::Cut => drop(bytes.drain(at..end)),
        How::Again => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
    }
}

#[test]
fn what_a_leaf_garbles_is_the_error_of_that_query_only() {
    let variables = [
        ("STOA_RETRY_SECONDS", "0"),
        ("STOA_FAILOVER_SILENT", "600"),
        ("STOA_FAILOVER_REFUSED", "600"),
        ("STOA_LEAF_SILENCE", "3"),
    ];
    let cluster = Cluster::start_with(1, 1, &variables);
    let values = (0..100).map(|a| format!("({a})")).collect::<Vec<_>>().join(", ");
    cluster.ok(&format!("CREATE TABLE safe (a BIGINT); INSERT INTO safe VALUES {values}"));
    let goal = Arc::new(Mutex::new(String::new()));
    let proxy = Proxy::start(goal.clone());
    let data = cluster.path().join("leaf_b");
    let args = ["leaf", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    let leaf = Node::start(&cluster, &args, &cluster.path().join("leaf_b.err"));
    leaf.address.clone_into(&mut goal.lock().unwrap());
    cluster.ok(&format!("ADD LEAF '{}' INTO GROUP 1; CREATE DATABASE d PARTITIONS 4 REDUNDANCY 1", proxy.to));
    let sql = |sql: &str| cluster.command(&["sql", "--database", "d", "--format", "csv", "-c", sql]).output().unwrap();
    let made = sql(&format!(
        "CREATE TABLE few (a BIGINT); INSERT INTO few VALUES {values}; CREATE TABLE t (a BIGINT, SHARD KEY (a)); \
         INSERT INTO t SELECT x.a * 100 + y.a FROM few x, few y"
    ));
    assert!(made.status.success(), "{}", text(&made));
    let right = |output: &std::process::Output| output.status.success() && text(output) == "n,s\n10000,49995000\n";

    let ways = [How::Garbage(0xff), How::Garbage(0), How::Flipped, How::Cut, How::Again];
    let mut unclear = vec![];
    for (round, how) in (0..).zip(ways.iter().cycle().take(15)) {
        // The middle of an answer, which may be that to a heartbeat.
        proxy.set(*how, [0, 40, 200, 5000, 50_000][(round + round / 5) % 5], round as u64 * 1000);
        let began = Instant::now();
        let query = if round % 2 == 0 { "SELECT count(*) AS n, sum(a) AS s FROM t" } else { "SELECT a FROM t WHERE a >= 0" };
        let output = sql(query);
        assert!(began.elapsed() < Duration::from_secs(20), "{how:?}, round {round}: {:?}", began.elapsed());
        if !output.status.success() {
            let said = text(&output);
            if output.status.code() != Some(1) || !said.contains(&proxy.to) {
                unclear.push(format!("{how:?}, round {round}: {said}"));
            }
        }
        assert_eq!(cluster.ok("SELECT count(*) AS n FROM safe"), "n\n100\n", "{how:?}, round {round}");
    }
    assert!(unclear.is_empty(), "{unclear:#?}");
    proxy.set(How::Garbage(0xff), 0, 0);
    assert!(!sql("SELECT count(*) AS n, sum(a) AS s FROM t").status.success());

    // It is itself again: the connections on which nothing came that made sense were given up.
    proxy.set(How::Whole, 0, 0);
    let began = Instant::now();
    loop {
        let output = sql("SELECT count(*) AS n, sum(a) AS s FROM t");
        if right(&output) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{}", text(&output));
        std::thread::sleep(Duration::from_millis(100));
    }
    let log = std::fs::read_to_string(cluster.path().join("coordinator1.log")).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}
