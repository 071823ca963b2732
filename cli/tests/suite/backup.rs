//! BACKUP and RESTORE on clusters: a backup is one state, whatever is written meanwhile, and any cluster can take it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stoa_client::Cancelled;

use crate::nodes::{Cluster, text};

const ACCOUNTS: u64 = 16;

/// A database with accounts of 1600 altogether; REFERENCE table `total` counts the transfers.
fn make_accounts(cluster: &Cluster) {
    cluster.ok("CREATE TABLE accounts (id BIGINT PRIMARY KEY, amount BIGINT NOT NULL); \
                CREATE TABLE moves (number BIGINT PRIMARY KEY, source BIGINT NOT NULL, target BIGINT NOT NULL); \
                CREATE REFERENCE TABLE total (moved BIGINT NOT NULL); INSERT INTO total VALUES (0); \
                CREATE VIEW moved AS SELECT count(*) AS n FROM moves");
    let accounts: Vec<String> = (0..ACCOUNTS).map(|id| format!("({id}, 100)")).collect();
    cluster.ok(&format!("INSERT INTO accounts VALUES {}", accounts.join(", ")));
}

/// Moves 1 from some account to another, which most of the time is on another leaf.
fn transfer(number: u64) -> String {
    let (from, to) = (number % ACCOUNTS, (number * 7 + 3) % ACCOUNTS);
    let (from, to) = if from == to { (from, (to + 1) % ACCOUNTS) } else { (from, to) };
    let total = if number.is_multiple_of(8) { "UPDATE total SET moved = moved + 1; " } else { "" };
    format!(
        "BEGIN; UPDATE accounts SET amount = amount - 1 WHERE id = {from}; UPDATE accounts SET amount = amount + 1 WHERE id = {to}; \
         INSERT INTO moves VALUES ({number}, {from}, {to}); {total}COMMIT"
    )
}

/// What a database says, as CSV.
fn ask(cluster: &Cluster, database: &str, sql: &str) -> String {
    let output = cluster.command(&["sql", "--database", database, "--format", "csv", "-c", sql]).output().unwrap();
    assert!(output.status.success(), "{database}: {sql}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn number(csv: &str) -> u64 {
    csv.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("no number: {csv}"))
}

/// Any number of whole transfers is there; how many.
fn check(cluster: &Cluster, database: &str) -> u64 {
    assert_eq!(number(&ask(cluster, database, "SELECT sum(amount) AS amount FROM accounts")), 100 * ACCOUNTS, "{database}");
    let wrong = "SELECT id FROM accounts WHERE amount <> 100 + (SELECT count(*) FROM moves WHERE target = id) \
                 - (SELECT count(*) FROM moves WHERE source = id)";
    assert_eq!(ask(cluster, database, wrong), "id\n", "{database}");
    let lost = "SELECT (SELECT count(*) FROM moves WHERE number % 8 = 0) - (SELECT moved FROM total) AS lost";
    assert_eq!(ask(cluster, database, lost), "lost\n0\n", "{database}");
    number(&ask(cluster, database, "SELECT n FROM moved"))
}

/// What `stoa admin` says that it did.
fn admin(cluster: &Cluster, args: &[&str]) -> String {
    let output = cluster.command(&[&["admin"], args].concat()).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", text(&output));
    text(&output)
}

fn backup(cluster: &Cluster, place: &Path) -> String {
    admin(cluster, &["backup", "stoa", "--incremental", "--to", place.to_str().unwrap()])
}

#[test]
fn a_backup_is_one_state_of_all_leaves() {
    let cluster = Cluster::start(3);
    make_accounts(&cluster);
    let places = tempfile::tempdir().unwrap();
    let (ended, number, sure) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    // As many as were acknowledged before each backup, and begun before its end.
    let mut bounds = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let client = cluster.client();
                while !ended.load(Ordering::Relaxed) {
                    let number = number.fetch_add(1, Ordering::Relaxed);
                    // Some lose against others.
                    if client.execute(&transfer(number), &Cancelled::default(), &mut |_| Ok(())).is_ok() {
                        sure.fetch_add(1, Ordering::Relaxed);
                    } else {
                        let _ = client.execute("ROLLBACK", &Cancelled::default(), &mut |_| Ok(()));
                    }
                }
            });
        }
        for round in 0..12 {
            std::thread::sleep(Duration::from_millis(120 + 17 * round));
            // On a machine that is busy with others too, some come between two backups all the same.
            let began = Instant::now();
            while sure.load(Ordering::Relaxed) < 5 * (round + 1) && began.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let before = sure.load(Ordering::Relaxed);
            backup(&cluster, &places.path().join(round.to_string()));
            bounds.push((before, number.load(Ordering::Relaxed)));
        }
        ended.store(true, Ordering::Relaxed);
    });
    assert!(sure.load(Ordering::Relaxed) > 50, "{sure:?} transfers");
    for (round, (least, most)) in bounds.into_iter().enumerate() {
        let (name, place) = (format!("copy_{round}"), places.path().join(round.to_string()));
        cluster.ok(&format!("RESTORE DATABASE stoa AS {name} FROM '{}'", place.display()));
        let moves = check(&cluster, &name);
        assert!((least..=most).contains(&moves), "{moves} transfers of {least} to {most}");
    }
    check(&cluster, "stoa");
}

#[test]
fn another_cluster_takes_it() {
    let place = tempfile::tempdir().unwrap();
    let rows = "SELECT count(*) AS n, sum(a) AS a, count(b) AS b FROM t";
    {
        let cluster = Cluster::start(2);
        cluster.ok(&format!(
            "CREATE TABLE t (a BIGINT NOT NULL, b VARCHAR(20), SHARD KEY (a)); CREATE REFERENCE TABLE r (x INT); \
             INSERT INTO r VALUES (1), (2), (3); INSERT INTO t VALUES {}; OPTIMIZE TABLE t FLUSH",
            (1..=4000).map(|a| format!("({a}, 'x')")).collect::<Vec<_>>().join(", ")
        ));
        let first = backup(&cluster, place.path());
        assert!(first.contains(" segments copied") && !first.contains(": 0 segments"), "{first}");
        // What is there already is not copied again; what is deleted is not in the second one.
        cluster.ok("DELETE FROM t WHERE a <= 10; INSERT INTO t VALUES (9000, NULL)");
        let second = backup(&cluster, place.path());
        assert!(second.contains(": 0 segments copied"), "{second}");
        assert_eq!(cluster.ok(rows), "n,a,b\n3991,8010945,3990\n");
        cluster
            .fails(&format!("RESTORE DATABASE stoa FROM '{}'", place.path().display()), "is there already: DROP DATABASE stoa");
    }
    for leaves in [1, 3] {
        let cluster = Cluster::start(leaves);
        let restore = |name: &str| format!("RESTORE DATABASE {name} FROM '{}'", place.path().display());
        cluster.fails(&restore("other"), "there is no backup of 'other' in it, but of stoa");
        // The cluster's own first database is in the way.
        cluster.ok("DROP DATABASE stoa");
        let done = admin(&cluster, &["restore", "stoa", "--from", place.path().to_str().unwrap()]);
        assert!(done.contains(&format!("redundancy {}", leaves.min(2))), "{done}");
        assert_eq!(cluster.ok(rows), "n,a,b\n3991,8010945,3990\n");
        assert_eq!(cluster.ok("SELECT sum(x) AS x FROM r JOIN t ON r.x + 2000 = t.a"), "x\n6\n");
        cluster.ok("INSERT INTO t VALUES (9001, 'y'); UPDATE r SET x = x + 1; CREATE TABLE u (a INT)");
        assert_eq!(cluster.ok("SELECT count(*) AS n, (SELECT sum(x) FROM r) AS x FROM t"), "n,x\n3992,9\n");
    }
}

#[test]
fn what_cannot_be_restored_leaves_nothing() {
    let (cluster, folder) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let place = folder.path().join("place");
    let restore = format!("RESTORE DATABASE stoa AS copy FROM '{}'", place.display());
    cluster.fails(&restore, "backup place");
    let rows = (1..=1000).map(|a| format!("({a})")).collect::<Vec<_>>().join(", ");
    cluster.ok(&format!("CREATE TABLE t (a BIGINT); INSERT INTO t VALUES {rows}; OPTIMIZE TABLE t FLUSH"));
    cluster.fails("BEGIN; INSERT INTO t VALUES (1); BACKUP TO '/tmp/never'", "a transaction is open");
    backup(&cluster, &place);
    let segment = std::fs::read_dir(place.join("segments")).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&segment).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    for bytes in [&damaged[..], &whole[..100]] {
        std::fs::write(&segment, bytes).unwrap();
        cluster.fails(&restore, "segment");
        assert!(!cluster.ok("SHOW DATABASES").contains("copy"));
    }
    std::fs::write(&segment, &whole).unwrap();
    cluster.ok(&restore);
    assert_eq!(ask(&cluster, "copy", "SELECT count(*) AS n FROM t"), "n\n1000\n");
    // One that did not come to its end is none.
    let newer = place.join("backups").join("999999999999999-1");
    std::fs::create_dir(&newer).unwrap();
    std::fs::write(newer.join("begun"), "stoa").unwrap();
    cluster.ok(&restore.replace("copy", "again"));
}
