//! A running query stops soon after it is cancelled, and the engine goes on.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use stoa::Error;
use stoa::commands::tpch::load_missing;
use stoa::connection::Connection;
use stoa::engine::{Engine, Setup};
use stoa_exec::CancelToken;

use crate::binary::stoa;

/// The bound is 100 ms on an idle machine with a release build; tests run without optimization and beside each other.
const PATIENCE: Duration = Duration::from_millis(1000);

#[test]
fn cancelled_queries_end_soon() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::with_setup(folder.path(), &Setup { threads: 2, ..Setup::from_env() }).unwrap();
    let connection = Connection::Embedded(engine);
    load_missing(&connection, 0.01).unwrap();
    let Connection::Embedded(engine) = &connection else { unreachable!("it is embedded") };
    let endless = [
        "SELECT count(*) FROM lineitem a, lineitem b WHERE a.l_comment < b.l_comment",
        // No pair passes, so that the join has nothing to give out for a very long time.
        "SELECT count(*) FROM lineitem a, lineitem b WHERE a.l_quantity < b.l_quantity AND a.l_tax > b.l_tax + 1",
        "SELECT a.l_comment, count(*) FROM lineitem a, lineitem b GROUP BY a.l_comment, b.l_orderkey",
        "SELECT a.l_comment, b.l_comment FROM lineitem a, lineitem b ORDER BY b.l_comment DESC, a.l_comment",
        "SELECT count(*) FROM lineitem a JOIN lineitem b ON a.l_linenumber = b.l_linenumber JOIN lineitem c ON b.l_linenumber = c.l_linenumber",
        // Wide keys, and states that keep rows.
        "SELECT a.l_comment, b.l_orderkey, string_agg(a.l_comment, ',' ORDER BY b.l_comment), count(DISTINCT b.l_comment) FROM lineitem a \
         JOIN lineitem b ON a.l_linenumber = b.l_linenumber WHERE a.l_orderkey < 1000 GROUP BY a.l_comment, b.l_orderkey",
    ];
    for query in endless {
        let cancel = CancelToken::default();
        let other = cancel.clone();
        let (outcome, late) = std::thread::scope(|scope| {
            let running = scope.spawn(|| engine.query(query, &cancel).map(drop));
            std::thread::sleep(Duration::from_millis(300));
            assert!(!running.is_finished(), "the query is too quick to be cancelled: {query}");
            let asked = Instant::now();
            other.cancel();
            let outcome = running.join().unwrap();
            (outcome, asked.elapsed())
        });
        assert!(
            matches!(outcome, Err(Error::Statement(stoa_coordinator::Error::Exec(stoa_exec::Error::Cancelled)))),
            "{query}: {outcome:?}"
        );
        assert!(late < PATIENCE, "{query} went on for {late:?}");
    }
    assert!(engine.query("SELECT count(*) FROM lineitem", &CancelToken::default()).is_ok());
}

/// Whether a process has a handler for SIGINT. Before that it would end like any other.
#[cfg(target_os = "linux")]
fn catches_interrupts(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(caught.trim(), 16).unwrap() & 2 != 0
}

#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_ends_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let rows: Vec<String> = (0..2000).map(|i| format!("({i})")).collect();
    let made = format!("CREATE TABLE t (a BIGINT); INSERT INTO t VALUES {}", rows.join(", "));
    assert!(stoa(&["sql", "--data", data, "-c", &made]).output().unwrap().status.success());
    let endless = "SELECT count(*) FROM t a, t b, t c WHERE a.a + b.a < c.a";
    let running = stoa(&["sql", "--data", data, "-c", endless]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while !catches_interrupts(running.id()) {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    // In the middle of the query.
    std::thread::sleep(Duration::from_millis(500));
    let asked = Instant::now();
    assert!(Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap().success());
    let output = running.wait_with_output().unwrap();
    assert!(asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("cancel"), "{:?}: {said}", output.status);
    // The directory is free for the next one.
    let count = stoa(&["sql", "--data", data, "--format", "csv", "-c", "SELECT count(*) AS n FROM t"]).output().unwrap();
    assert_eq!(count.stdout, b"n\n2000\n");
}
