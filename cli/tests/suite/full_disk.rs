//! Leaves whose disks are full: a small file system of the test's own, in a mount namespace that ends with the leaf.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::binary::stoa;
use crate::nodes::{Cluster, text};

/// A leaf on a disk of a few MiB.
pub struct SmallLeaf {
    process: Child,
    pub address: String,
    /// Its disk, as the leaf sees it.
    disk: PathBuf,
}

impl SmallLeaf {
    /// `None` where file systems cannot be mounted.
    pub fn start(cluster: &Cluster, name: &str, megabytes: u32) -> Option<SmallLeaf> {
        let (disk, log) = (cluster.path().join(name), cluster.path().join(format!("{name}.log")));
        std::fs::create_dir(&disk).unwrap();
        let script = format!(
            "mount -t tmpfs -o size={megabytes}m tmpfs '{0}' && echo mounted && exec '{1}' leaf --data '{0}/data' --listen 127.0.0.1:0",
            disk.display(),
            stoa(&[]).get_program().to_str().unwrap()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]).env("STOA_SECRET", cluster.secret());
        command.stdin(Stdio::null()).stdout(std::fs::File::create(&log).unwrap()).stderr(Stdio::null());
        let mut process = match command.spawn() {
            Ok(process) => process,
            Err(why) => return skipped(&why.to_string()),
        };
        let began = Instant::now();
        loop {
            let said = std::fs::read_to_string(&log).unwrap();
            if let Some((_, address)) = said.split_once(" listening on ")
                && address.contains('\n')
            {
                let address = address.trim().to_owned();
                return Some(SmallLeaf { process, address, disk });
            }
            if process.try_wait().unwrap().is_some() {
                assert!(!said.contains("mounted"), "{said}");
                return skipped("mount");
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{said}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A path on its disk, from outside of its namespace.
    fn outside(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.process.id())).join(self.disk.strip_prefix("/").unwrap()).join(path)
    }

    /// Leaves no room.
    pub fn fill(&self) {
        let path = self.outside("ballast");
        let mut file = std::fs::File::create(path).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    }

    pub fn make_room(&self) {
        std::fs::remove_file(self.outside("ballast")).unwrap();
    }
}

fn skipped<T>(why: &str) -> Option<T> {
    eprintln!("NOT TESTED: a file system of its own needs root and unshare(1) here: {why}");
    None
}

impl Drop for SmallLeaf {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Rows that only fit where there is room.
pub fn many(first: u64) -> String {
    let filler = "x".repeat(900);
    let rows: Vec<String> = (first..first + 100).map(|id| format!("({id}, '{filler}{id}')")).collect();
    format!("INSERT INTO t VALUES {}", rows.join(", "))
}

#[test]
fn writes_fail_and_resume_on_a_full_disk_and_reads_go_on() {
    let cluster = Cluster::start(1);
    let Some(leaf) = SmallLeaf::start(&cluster, "small", 24) else { return };
    // Two groups would be two copies; here each has some partitions alone.
    cluster.ok(&format!("ADD LEAF '{}'; DROP DATABASE stoa; CREATE DATABASE stoa PARTITIONS 2 REDUNDANCY 1", leaf.address));
    cluster.ok("CREATE TABLE t (a BIGINT PRIMARY KEY, b VARCHAR(1000)); CREATE DATABASE other PARTITIONS 2 REDUNDANCY 1");
    cluster.ok(&many(0));
    leaf.fill();
    let began = Instant::now();
    let mut first = 100;
    let said = loop {
        let mut command = cluster.command(&["sql", "-c", &many(first)]);
        let output = command.output().unwrap();
        if !output.status.success() {
            break text(&output);
        }
        first += 100;
        assert!(began.elapsed() < Duration::from_secs(20), "a disk without room took {first} rows");
    };
    assert!(said.contains("No space left on device"), "{said}");
    // Reads go on, and nothing of the statement that failed is there.
    for _ in 0..3 {
        assert_eq!(cluster.ok("SELECT count(*) AS n, max(a) AS a FROM t"), format!("n,a\n{first},{}\n", first - 1));
    }
    leaf.make_room();
    let began = Instant::now();
    while !cluster.sql(&many(first)).status.success() {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", text(&cluster.sql(&many(first))));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(cluster.ok("SELECT count(*) AS n FROM t"), format!("n\n{}\n", first + 100));
}

#[test]
fn a_replica_without_room_falls_out_and_comes_back() {
    let cluster = Cluster::start(1);
    let Some(leaf) = SmallLeaf::start(&cluster, "small", 24) else { return };
    cluster.ok(&format!("ADD LEAF '{}'; DROP DATABASE stoa; CREATE DATABASE stoa PARTITIONS 1 REDUNDANCY 2", leaf.address));
    let port = leaf.address.rsplit(':').next().unwrap().to_owned();
    assert!(cluster.ok("SHOW PARTITIONS").contains(&format!("{port},Slave")), "{}", cluster.ok("SHOW PARTITIONS"));
    cluster.ok("CREATE TABLE t (a BIGINT PRIMARY KEY, b VARCHAR(1000))");
    leaf.fill();
    // The master has room: no write fails, though one waits for the replica to be taken out.
    for first in (0..3000).step_by(100) {
        cluster.ok(&many(first));
    }
    assert!(!cluster.ok("SHOW PARTITIONS").contains(&format!("{port},Slave")), "{}", cluster.ok("SHOW PARTITIONS"));
    assert!(cluster.ok("SHOW CLUSTER STATUS").contains("No space left"), "{}", cluster.ok("SHOW CLUSTER STATUS"));
    leaf.make_room();
    cluster.wait_for_replicas(1);
    cluster.signal(1, "KILL");
    assert_eq!(cluster.ok("SELECT count(*) AS n, max(a) AS a FROM t"), "n,a\n3000,2999\n");
}
