//! Nodes in one process, on a network that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;
use crate::catalog::Catalog;

/// The network: nodes by address, and the addresses that are cut off.
#[derive(Default)]
struct Network {
    nodes: Mutex<BTreeMap<String, Weak<Consensus>>>,
    cut: Mutex<BTreeSet<String>>,
}

/// One node's connection to it.
struct Port {
    network: Arc<Network>,
    address: String,
}

impl Transport for Port {
    fn call(&self, address: &str, message: Vec<u8>, _limit: Duration) -> std::result::Result<Vec<u8>, String> {
        {
            let cut = self.network.cut.lock();
            if cut.contains(&self.address) || cut.contains(address) {
                return Err("cut off".into());
            }
        }
        let node = self.network.nodes.lock().get(address).and_then(Weak::upgrade);
        Ok(node.ok_or("no such node")?.handle(message))
    }
}

/// A cluster of nodes 1 to n, each with its folder.
struct Cluster {
    network: Arc<Network>,
    folder: TempDir,
    options: Options,
    nodes: BTreeMap<u64, Arc<Consensus>>,
}

fn options() -> Options {
    Options { change_timeout: Duration::from_secs(8), ..Options::default() }
}

fn address(id: u64) -> String {
    format!("coordinator-{id}:3306")
}

fn add_leaf(n: usize) -> Command {
    Command::AddLeaf { address: format!("leaf-{n}:3306"), group: None }
}

fn has_leaf(catalog: &Catalog, n: usize) -> bool {
    catalog.leaf(&format!("leaf-{n}:3306")).is_some()
}

/// How long things may take that need no time to speak of: machines are slow at times.
const LONG: Duration = Duration::from_secs(60);

/// Waits until something holds; panics if it does not come about.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

impl Cluster {
    fn new(options: Options) -> Cluster {
        Cluster { network: Arc::default(), folder: tempfile::tempdir().unwrap(), options, nodes: BTreeMap::new() }
    }

    /// A cluster of which nodes 1 to n vote.
    fn of(nodes: u64, options: Options) -> Cluster {
        let mut cluster = Cluster::new(options);
        cluster.start(1).bootstrap().unwrap();
        for id in 2..=nodes {
            cluster.start(id);
            cluster.nodes[&1].add_voter(NodeId(id), &address(id)).unwrap();
        }
        cluster
    }

    fn path(&self, id: u64) -> std::path::PathBuf {
        Path::new(self.folder.path()).join(id.to_string())
    }

    fn start(&mut self, id: u64) -> Arc<Consensus> {
        let port = Port { network: self.network.clone(), address: address(id) };
        let node = Consensus::start(&self.path(id), NodeId(id), &address(id), Arc::new(port), self.options.clone()).unwrap();
        let node = Arc::new(node);
        self.network.nodes.lock().insert(address(id), Arc::downgrade(&node));
        self.nodes.insert(id, node.clone());
        node
    }

    /// Takes a node from the network and ends it.
    fn stop(&mut self, id: u64) {
        self.network.nodes.lock().remove(&address(id));
        self.nodes.remove(&id).unwrap().stop();
    }

    /// The node that leads and has been heard by a majority, among those that run and are not cut off.
    fn leader(&self) -> (u64, Arc<Consensus>) {
        let deadline = Instant::now() + LONG;
        loop {
            for (id, node) in &self.nodes {
                if !self.network.cut.lock().contains(&address(*id)) && node.is_leader() && node.confirm_leader().is_ok() {
                    return (*id, node.clone());
                }
            }
            assert!(Instant::now() < deadline, "no leader");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Proposes to whoever leads, as a client does, until it is acknowledged. The time that took.
    fn propose(&self, command: &Command) -> Duration {
        let began = Instant::now();
        loop {
            for node in self.nodes.values().filter(|node| node.is_leader()) {
                match node.propose(command) {
                    Ok(_) | Err(ConsensusError::Refused(_)) => return began.elapsed(),
                    Err(_) => {}
                }
            }
            assert!(began.elapsed() < LONG, "no leader took the command");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until all nodes have the leaves 0 to n.
    fn all_have(&self, leaves: usize) {
        for (id, node) in &self.nodes {
            eventually(&format!("node {id} has all leaves"), || (0..leaves).all(|n| has_leaf(&node.catalog(), n)));
        }
        let catalogs: Vec<Arc<Catalog>> = self.nodes.values().map(|node| node.catalog()).collect();
        assert!(catalogs.windows(2).all(|two| two[0] == two[1]), "nodes differ");
    }
}

#[test]
fn one_node_is_a_cluster_and_outlives_its_process() {
    let mut cluster = Cluster::of(1, options());
    let node = cluster.nodes[&1].clone();
    assert!(node.is_leader() && node.is_member().unwrap());
    let catalog = node.propose(&add_leaf(0)).unwrap();
    assert!(has_leaf(&catalog, 0));
    let refused = node.propose(&add_leaf(0)).unwrap_err();
    assert!(matches!(&refused, ConsensusError::Refused(why) if why.contains("leaf-0")), "{refused}");
    node.bootstrap().unwrap();
    drop(node);
    cluster.stop(1);
    let node = cluster.start(1);
    // It is there before a leader is elected.
    assert!(node.is_member().unwrap());
    node.wait_for_leader(Duration::from_secs(5)).unwrap();
    assert!(has_leaf(&node.confirm_leader().unwrap(), 0));
    node.propose(&add_leaf(1)).unwrap();
}

#[test]
fn commands_reach_every_node_and_only_the_leader_takes_them() {
    let cluster = Cluster::of(3, options());
    for n in 0..20 {
        cluster.propose(&add_leaf(n));
    }
    cluster.all_have(20);
    let (leader, node) = cluster.leader();
    assert_eq!(node.members().iter().filter(|member| member.voter).count(), 3);
    let (_, follower) = cluster.nodes.iter().find(|(id, _)| **id != leader).unwrap();
    match follower.propose(&add_leaf(99)) {
        Err(ConsensusError::NotLeader { leader: Some(named) }) => assert_eq!(named.address, address(leader)),
        other => panic!("{other:?}"),
    }
    assert!(!has_leaf(&node.catalog(), 99));
}

#[test]
fn who_waits_for_a_change_hears_of_it_at_once() {
    let cluster = Cluster::of(1, options());
    let node = cluster.nodes[&1].clone();
    let version = node.catalog().version;
    node.wait_for_change(version, Duration::from_millis(1));
    assert_eq!(node.catalog().version, version);
    let began = Instant::now();
    thread::scope(|scope| {
        let waits = scope.spawn(|| {
            node.wait_for_change(version, Duration::from_secs(60));
            node.catalog().version
        });
        cluster.propose(&add_leaf(1));
        assert_eq!(waits.join().unwrap(), version + 1);
    });
    node.wait_for_change(version, Duration::from_secs(60));
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_lost_leader_is_replaced_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::of(3, options());
    for n in 0..10 {
        cluster.propose(&add_leaf(n));
    }
    let (leader, node) = cluster.leader();
    drop(node);
    cluster.stop(leader);
    let took = cluster.propose(&add_leaf(10));
    assert!(took < Duration::from_secs(5), "{took:?}");
    cluster.all_have(11);
    // The old leader comes back with its disk and catches up.
    cluster.start(leader);
    cluster.all_have(11);
}

#[test]
fn what_is_acknowledged_while_leaders_come_and_go_stays() {
    let mut cluster = Cluster::of(3, options());
    let (done, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let next = AtomicUsize::new(0);
    let nodes: Vec<Arc<Consensus>> = cluster.nodes.values().cloned().collect();
    let writer = {
        let (done, acknowledged) = (done.clone(), acknowledged.clone());
        thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if nodes.iter().filter(|node| node.is_leader()).any(|node| node.propose(&add_leaf(n)).is_ok()) {
                    acknowledged.lock().push(n);
                }
                thread::sleep(Duration::from_millis(2));
            }
        })
    };
    for round in 1..=2 {
        // In the middle of it, however slow the machine is.
        eventually("changes are acknowledged", || acknowledged.lock().len() > round * 6);
        let (leader, _) = cluster.leader();
        cluster.network.cut.lock().insert(address(leader));
        let (other, _) = cluster.leader();
        assert_ne!(leader, other);
        cluster.network.cut.lock().clear();
    }
    done.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    let acknowledged = acknowledged.lock().clone();
    let ids: Vec<u64> = cluster.nodes.keys().copied().collect();
    for id in &ids {
        cluster.stop(*id);
    }
    for id in &ids {
        cluster.start(*id);
    }
    let catalog = cluster.leader().1.confirm_leader().unwrap();
    let lost: Vec<&usize> = acknowledged.iter().filter(|n| !has_leaf(&catalog, **n)).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
}

#[test]
fn a_minority_commits_nothing() {
    let cluster = Cluster::of(3, Options { change_timeout: Duration::from_secs(5), ..options() });
    cluster.propose(&add_leaf(0));
    let (leader, node) = cluster.leader();
    let others: Vec<u64> = cluster.nodes.keys().copied().filter(|id| *id != leader).collect();
    cluster.network.cut.lock().extend(others.iter().map(|id| address(*id)));
    let failed = node.propose(&add_leaf(1)).unwrap_err();
    assert!(matches!(failed, ConsensusError::Unknown(_) | ConsensusError::NotLeader { .. }), "{failed}");
    assert!(node.confirm_leader().is_err());
    assert!(cluster.nodes.values().all(|node| !has_leaf(&node.catalog(), 1)), "it is seen by nobody");
    cluster.network.cut.lock().clear();
    cluster.propose(&add_leaf(2));
    // Leaf 1 may have come about by now; if so, on every node.
    cluster.propose(&add_leaf(3));
    eventually("all nodes agree", || {
        let catalogs: Vec<Arc<Catalog>> = cluster.nodes.values().map(|node| node.catalog()).collect();
        has_leaf(&catalogs[0], 3) && catalogs.windows(2).all(|two| two[0] == two[1])
    });
}

#[test]
fn snapshots_replace_the_log_at_restart_and_for_late_nodes() {
    let small = Options { snapshot_every: 20, keep_entries: 0, ..options() };
    let mut cluster = Cluster::of(1, small);
    for n in 0..60 {
        cluster.propose(&add_leaf(n));
    }
    let node = cluster.nodes[&1].clone();
    let purged = |node: &Consensus| node.raft.metrics().borrow().purged.map_or(0, |purged| purged.index);
    eventually("the log is cut", || purged(&node) >= 20);
    drop(node);
    cluster.stop(1);
    let node = cluster.start(1);
    node.wait_for_leader(Duration::from_secs(5)).unwrap();
    assert!((0..60).all(|n| has_leaf(&node.confirm_leader().unwrap(), n)));
    assert!(purged(&node) >= 20);
    // A node that is new can only get a snapshot, since the beginning of the log is gone.
    cluster.start(2);
    node.add_voter(NodeId(2), &address(2)).unwrap();
    cluster.all_have(60);
    cluster.stop(2);
    cluster.start(2);
    eventually("node 2 has what it had", || has_leaf(&cluster.nodes[&2].catalog(), 59));
}

#[test]
fn members_leave_and_others_come() {
    let mut cluster = Cluster::of(3, options());
    cluster.propose(&add_leaf(0));
    let (leader, node) = cluster.leader();
    let gone = cluster.nodes.keys().copied().find(|id| *id != leader).unwrap();
    cluster.stop(gone);
    node.remove_voter(NodeId(gone)).unwrap();
    cluster.start(4);
    node.add_follower(NodeId(4), &address(4)).unwrap();
    assert!(node.members().contains(&Member { id: NodeId(4), address: address(4), voter: false }));
    node.add_voter(NodeId(4), &address(4)).unwrap();
    let wrong = node.add_voter(NodeId(4), &address(5)).unwrap_err();
    assert!(wrong.to_string().contains("new number"), "{wrong}");
    let voters: BTreeSet<u64> = node.members().iter().filter(|member| member.voter).map(|member| member.id.0).collect();
    assert_eq!(voters, cluster.nodes.keys().copied().collect());
    // The leader leaves by itself, and the two that stay go on.
    node.remove_voter(NodeId(leader)).unwrap();
    drop(node);
    cluster.stop(leader);
    cluster.propose(&add_leaf(1));
    cluster.all_have(2);
}

#[test]
fn whatever_comes_is_answered() {
    let cluster = Cluster::of(1, options());
    let node = &cluster.nodes[&1];
    let deep = "[".repeat(100_000);
    for message in ["", "{}", "null", "\0\u{1}", &deep, r#"{"to":1,"message":{"Vote":{}}}"#, r#"{"to":1,"message":{"Other":1}}"#]
    {
        let answer = String::from_utf8(node.handle(message.as_bytes().to_vec())).unwrap();
        assert!(answer.contains("cannot be read"), "{answer}");
    }
    // A message for the node that had this address before.
    let vote =
        r#"{"to":7,"message":{"Vote":{"vote":{"leader_id":{"term":9,"node_id":7},"committed":false},"last_log_id":null}}}"#;
    let answer = String::from_utf8(node.handle(vote.as_bytes().to_vec())).unwrap();
    assert!(answer.contains("for node 7"), "{answer}");
    node.propose(&add_leaf(0)).unwrap();
    node.stop();
    assert_eq!(node.propose(&add_leaf(1)).unwrap_err(), ConsensusError::Stopped);
    assert!(node.handle(b"{}".to_vec()).is_empty());
}

#[test]
fn a_folder_belongs_to_one_node_and_must_be_readable() {
    let cluster = Cluster::of(1, options());
    let port = || Arc::new(Port { network: cluster.network.clone(), address: address(1) });
    let twice = Consensus::start(&cluster.path(1), NodeId(1), &address(1), port(), options());
    assert!(matches!(twice.err(), Some(ConsensusError::Storage(_))));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("raft.redb"), b"this is no log").unwrap();
    let damaged = Consensus::start(folder.path(), NodeId(1), &address(1), port(), options());
    assert!(matches!(damaged.err(), Some(ConsensusError::Storage(_))));
}
