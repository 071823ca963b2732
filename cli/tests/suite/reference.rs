//! REFERENCE tables are the same on every leaf, whichever leaves come and go while they are written.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use stoa_client::Cancelled;

use crate::nodes::{Cluster, Node};

/// Every row of `t` finds every row of `r`, wherever it is: what each leaf has is counted.
fn check(cluster: &Cluster, expected: usize) {
    let counted = "SELECT min(n) AS a, max(n) AS b, min(d) AS c, max(s) - min(s) AS d FROM (SELECT t.a, count(*) AS n, \
                   count(DISTINCT r.x) AS d, sum(r.x) AS s FROM t, r WHERE r.y <> t.a GROUP BY t.a) AS each_row";
    assert_eq!(cluster.ok(counted), format!("a,b,c,d\n{expected},{expected},{expected},0\n"));
}

#[test]
fn leaves_that_return_or_join_miss_nothing() {
    let cluster = Cluster::start(2);
    cluster.wait_for_replicas(2);
    let rows: Vec<String> = (0..40).map(|a| format!("({a})")).collect();
    cluster.ok("CREATE TABLE t (a BIGINT PRIMARY KEY); CREATE REFERENCE TABLE r (x BIGINT, y BIGINT)");
    cluster.ok(&format!("INSERT INTO t VALUES {}", rows.join(", ")));
    let (ended, next, written) = (AtomicBool::new(false), AtomicI64::new(0), Mutex::new(0));
    let mut others = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let (client, ended, next, written) = (cluster.client(), &ended, &next, &written);
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    let x = next.fetch_add(1, Ordering::Relaxed);
                    let insert = format!("INSERT INTO r VALUES ({x}, -1)");
                    client.execute(&insert, &Cancelled::default(), &mut |_| Ok(())).unwrap_or_else(|e| panic!("{insert}: {e}"));
                    *written.lock().unwrap() += 1;
                }
            });
        }
        let changes = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..6 {
                let address = cluster.address(1 + round % 2);
                cluster.ok(&format!("DETACH LEAF '{address}'"));
                std::thread::sleep(std::time::Duration::from_millis(250));
                cluster.ok(&format!("ATTACH LEAF '{address}'"));
                cluster.wait_for_replicas(2);
            }
            for name in ["third", "fourth"] {
                let (data, log) = (cluster.path().join(name), cluster.path().join(format!("{name}.log")));
                others.push(Node::start(&cluster, &["leaf", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"], &log));
                cluster.ok(&format!("ADD LEAF '{}'", others.last().unwrap().address));
            }
        }));
        ended.store(true, Ordering::Relaxed);
        changes.unwrap();
    });
    let written = written.into_inner().unwrap();
    assert!(written > 20, "{written} rows");
    check(&cluster, written);
    // The new ones have partitions alone, and so are what is asked.
    for leaf in [1, 2] {
        cluster.ok(&format!("REMOVE LEAF '{}'", cluster.address(leaf)));
    }
    check(&cluster, written);
}
