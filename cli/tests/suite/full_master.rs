//! A disk that is full under masters whose replicas have room.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::full_disk::{SmallNode, many};
use crate::nodes::{Cluster, text};

/// The ids that are there, each once.
fn ids(cluster: &Cluster) -> BTreeSet<u64> {
    let said = cluster.ok("SELECT a FROM t");
    let all: Vec<u64> = said.lines().skip(1).map(|id| id.parse().unwrap()).collect();
    let ids: BTreeSet<u64> = all.iter().copied().collect();
    assert_eq!(ids.len(), all.len(), "rows are there twice");
    ids
}

/// Statements of a hundred rows each, by their first ids.
#[derive(Debug, Default)]
struct Written {
    next: u64,
    acknowledged: Vec<u64>,
    refused: Vec<u64>,
}

impl Written {
    /// Writes the next rows; or what was said instead.
    fn write(&mut self, cluster: &Cluster) -> Result<(), String> {
        let (first, output) = (self.next, cluster.sql(&many(self.next)));
        self.next += 100;
        if output.status.success() {
            self.acknowledged.push(first);
            return Ok(());
        }
        self.refused.push(first);
        Err(text(&output))
    }

    /// What was acknowledged is there, and of the other statements all or nothing.
    fn check(&self, cluster: &Cluster) {
        let ids = ids(cluster);
        let there = |first: &u64| ids.range(first..&(first + 100)).count();
        assert!(self.acknowledged.iter().all(|first| there(first) == 100), "{self:?}: {ids:?}");
        assert!(self.refused.iter().all(|first| matches!(there(first), 0 | 100)), "{self:?}: {ids:?}");
        let known = self.acknowledged.iter().chain(&self.refused).map(there).sum::<usize>();
        assert_eq!(known, ids.len(), "rows that nobody wrote");
    }
}

#[test]
fn masters_on_a_full_disk_lose_nothing_and_go_on_when_there_is_room() {
    let cluster = Cluster::start(1);
    let Some(leaf) = SmallNode::leaf(&cluster, "small", 24) else { return };
    cluster.ok(&format!("ADD LEAF '{}'; DROP DATABASE stoa; CREATE DATABASE stoa PARTITIONS 2 REDUNDANCY 2", leaf.address()));
    let port = leaf.address().rsplit(':').next().unwrap().to_owned();
    cluster.wait_for_replicas(2);
    // Each leaf is the master of one partition and has the replica of the other.
    let stands = cluster.ok("SHOW PARTITIONS");
    assert!(stands.contains(&format!("{port},Master")) && stands.contains(&format!("{port},Slave")), "{stands}");
    cluster.ok("CREATE TABLE t (a BIGINT PRIMARY KEY, b VARCHAR(1000))");
    let mut written = Written::default();
    for _ in 0..5 {
        assert_eq!(written.write(&cluster), Ok(()));
    }
    leaf.disk.fill();
    // Either the error says what it is about, or the replica takes over and takes what does not fit here.
    for _ in 0..20 {
        if let Err(said) = written.write(&cluster) {
            assert!(said.contains("No space left on device"), "{said}");
        }
        let read = cluster.ok("SELECT count(*) AS n, count(DISTINCT a) AS d FROM t");
        let read: Vec<usize> = read.lines().nth(1).unwrap().split(',').map(|n| n.parse().unwrap()).collect();
        assert!(read[0] == read[1] && read[0] >= 100 * written.acknowledged.len(), "{read:?} of {written:?}");
    }
    leaf.disk.make_room();
    let began = Instant::now();
    while let Err(said) = written.write(&cluster) {
        assert!(began.elapsed() < Duration::from_secs(60), "{said}");
        std::thread::sleep(Duration::from_millis(200));
    }
    cluster.wait_for_replicas(2);
    written.check(&cluster);
    // Either leaf has all of it: of what one was the master, the other was not.
    cluster.signal(1, "KILL");
    written.check(&cluster);
    let began = Instant::now();
    while let Err(said) = written.write(&cluster) {
        assert!(began.elapsed() < Duration::from_secs(60), "the leaf that was full takes no more rows: {said}");
    }
    written.check(&cluster);
}
