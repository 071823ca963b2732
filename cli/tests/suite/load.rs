//! Readers and writers that must never fail, whatever happens to a cluster meanwhile.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// More rows than so many say something.
const ENOUGH: usize = 20;

/// Runs writers and readers, which must never fail, while `faults` happen; then checks that what was acknowledged is there once.
pub fn under_load(ok: &(dyn Fn(&str) -> String + Sync), faults: impl FnOnce()) {
    ok("CREATE TABLE rows (id BIGINT PRIMARY KEY, writer BIGINT NOT NULL); CREATE REFERENCE TABLE names (n BIGINT)");
    ok("INSERT INTO names VALUES (0), (1)");
    let (ended, next, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (ended, next, acknowledged) = (&ended, &next, &acknowledged);
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    ok(&format!("INSERT INTO rows VALUES ({id}, {writer})"));
                    acknowledged.lock().unwrap().push(id);
                }
            });
        }
        scope.spawn(|| {
            let mut seen = 0;
            while !ended.load(Ordering::Relaxed) {
                let sure = acknowledged.lock().unwrap().len();
                let said = ok("SELECT count(*) AS n, count(DISTINCT id) AS d FROM rows JOIN names ON writer = n");
                let row: Vec<usize> = said.lines().nth(1).unwrap().split(',').map(|n| n.parse().unwrap()).collect();
                assert!(row[0] == row[1] && row[0] >= sure && row[0] >= seen, "{row:?} after {sure} and {seen}");
                seen = row[0];
            }
        });
        // Whatever fails, the threads end.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(faults));
        // However slow the machine is.
        let until = Instant::now() + Duration::from_secs(60);
        while done.is_ok() && acknowledged.lock().unwrap().len() <= ENOUGH && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        ended.store(true, Ordering::Relaxed);
        done.unwrap();
    });
    let mut acknowledged = acknowledged.into_inner().unwrap();
    acknowledged.sort_unstable();
    let all = ok("SELECT id FROM rows ORDER BY id");
    let there: Vec<u64> = all.lines().skip(1).map(|id| id.parse().unwrap()).collect();
    assert!(acknowledged.len() > ENOUGH, "{} rows", acknowledged.len());
    assert_eq!(there, acknowledged);
}
