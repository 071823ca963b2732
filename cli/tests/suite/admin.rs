//! `stoa admin`: every command of it, through a coordinator that does not lead.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::nodes::{Cluster, text};

/// `stoa admin` through a coordinator: whether it succeeded, and what it said.
fn admin(cluster: &Cluster, coordinator: &str, args: &[&str]) -> (bool, String) {
    let output = cluster.command_at(coordinator, &[&["admin"], args, &["--format", "csv"]].concat()).output().unwrap();
    (output.status.success(), text(&output))
}

fn succeeds(cluster: &Cluster, coordinator: &str, args: &[&str]) -> String {
    let (success, said) = admin(cluster, coordinator, args);
    assert!(success, "{args:?}: {said}");
    said
}

fn refuses(cluster: &Cluster, coordinator: &str, args: &[&str], what: &str) {
    let (success, said) = admin(cluster, coordinator, args);
    assert!(!success && said.contains(what), "{args:?}: {said}");
}

#[test]
fn every_command() {
    let cluster = Cluster::with(2, 1);
    let follower = cluster.address(1);
    let ok = |args: &[&str]| succeeds(&cluster, &follower, args);
    let fails = |args: &[&str], what: &str| refuses(&cluster, &follower, args, what);
    let (leader, leaf) = (cluster.address(0), cluster.address(2));

    ok(&["create-database", "sales_2026", "--partitions", "3"]);
    fails(&["create-database", "sales_2026"], "is there already");
    ok(&["create-database", "sales_2026", "--if-not-exists"]);
    fails(&["create-database", "a\"; DROP TABLE t; --"], "cannot be the name of a database");
    fails(&["create-database", "two", "--redundancy", "2"], "availability group 2");
    assert_eq!(ok(&["partitions", "sales_2026"]).lines().count(), 4);
    assert!(ok(&["databases"]).lines().next().unwrap().starts_with("Database,Partitions"));
    ok(&["drop-database", "sales_2026"]);
    fails(&["drop-database", "sales_2026"], "there is no database");
    ok(&["drop-database", "sales_2026", "--if-exists"]);
    assert_eq!(ok(&["databases"]).lines().count(), 2);

    assert!(ok(&["leaves"]).contains(leaf.rsplit(':').next().unwrap()));
    fails(&["add-leaf", &leaf], "is there already");
    fails(&["add-leaf", "127.0.0.1:1", "--group", "2"], "127.0.0.1:1");
    fails(&["remove-leaf", &leaf], "partitions");
    assert!(ok(&["status"]).contains("Master"));
    assert!(ok(&["clear-orphans"]).starts_with("Host,Port,Database_Name,Bytes,Status\n"));
    fails(&["kill", "123456"], "no query 123456");
    assert!(ok(&["processes"]).contains("SHOW PROCESSLIST"));

    assert_eq!(ok(&["coordinators"]).lines().count(), 3);
    fails(&["add-coordinator", &leader], "is there already");
    // The leader itself goes: the other one leads then.
    ok(&["remove-coordinator", &leader]);
    let began = Instant::now();
    while !ok(&["coordinators"]).contains(",leader,") {
        assert!(began.elapsed() < Duration::from_secs(60), "nobody leads");
        std::thread::sleep(Duration::from_millis(50));
    }
    ok(&["remove-leaf", &leaf, "--force"]);

    let nowhere = crate::binary::stoa(&["admin", "leaves"]).stdin(Stdio::null()).output().unwrap();
    assert!(!nowhere.status.success() && text(&nowhere).contains("--connect"), "{}", text(&nowhere));
}

#[test]
fn commands_about_users() {
    let cluster = Cluster::start(1);
    let coordinator = cluster.address(0);
    cluster.ok("CREATE TABLE t (a INT); INSERT INTO t VALUES (1)");
    let as_user = |user: &str, password: &str, args: &[&str]| {
        let mut command = cluster.command_at(&coordinator, &[args, &["--format", "csv"]].concat());
        let output = command.env("STOA_USER", user).env("STOA_PASSWORD", password).output().unwrap();
        (output.status.success(), text(&output))
    };
    assert_eq!(succeeds(&cluster, &coordinator, &["users"]), "User\n");
    succeeds(&cluster, &coordinator, &["create-user", "boss", "--identified-by", "it's me"]);
    refuses(&cluster, &coordinator, &["users"], "user 'root' or the password is wrong");
    let boss = |args: &[&str]| as_user("boss", "it's me", &[&["admin"], args].concat());
    let ok = |args: &[&str]| {
        let (success, said) = boss(args);
        assert!(success, "{args:?}: {said}");
        said
    };
    ok(&["create-user", "ada"]);
    assert!(!boss(&["create-user", "ada"]).0);
    ok(&["create-user", "ada", "--if-not-exists"]);
    ok(&["set-password", "ada", "--identified-by", "of ada"]);
    let ada = |sql: &str| as_user("ada", "of ada", &["sql", "-c", sql]);
    assert!(!ada("SELECT * FROM t").0);
    ok(&["grant", "select,INSERT", "--on", "stoa.t", "--to", "ada"]);
    assert_eq!(ada("SELECT * FROM t"), (true, "a\n1\n".to_owned()));
    let grants = ok(&["grants", "ada"]);
    assert!(grants.contains("SELECT") && grants.contains("INSERT") && grants.contains("stoa.t"), "{grants}");
    ok(&["revoke", "INSERT", "--on", "t", "--from", "ada"]);
    assert!(ada("SELECT * FROM t").0 && !ada("INSERT INTO t VALUES (2)").0);
    ok(&["grant", "all", "--on", "stoa.*", "--to", "ada"]);
    assert!(ada("DELETE FROM t WHERE a = 2").0);
    assert_eq!(ada("SELECT count(*) AS n FROM t"), (true, "n\n1\n".to_owned()));
    ok(&["revoke", "ALL", "--on", "stoa.*", "--from", "ada"]);
    assert!(!boss(&["grant", "select; drop", "--on", "*.*", "--to", "ada"]).0);
    // Everybody may see what he may do, and set his own password, but nobody else's.
    assert!(as_user("ada", "of ada", &["admin", "grants"]).0);
    let denied = as_user("ada", "of ada", &["admin", "set-password", "boss", "--identified-by", "x"]);
    assert!(!denied.0 && denied.1.contains("may not CLUSTER"), "{}", denied.1);
    assert!(as_user("ada", "of ada", &["admin", "set-password", "ada", "--identified-by", "y"]).0);
    assert!(!as_user("ada", "of ada", &["admin", "grants"]).0);
    assert_eq!(ok(&["users"]).lines().count(), 3);
    ok(&["drop-user", "ada"]);
    assert!(!boss(&["drop-user", "ada"]).0);
    ok(&["drop-user", "ada", "--if-exists"]);
    // No password is in a log.
    let log = std::fs::read_to_string(cluster.path().join("coordinator1.log")).unwrap();
    assert!(!log.contains("it's me") && !log.contains("it''s me") && !log.contains("of ada"), "{log}");
}

#[test]
fn commands_that_move_copies() {
    let cluster = Cluster::start(2);
    let coordinator = cluster.address(0);
    let ok = |args: &[&str]| succeeds(&cluster, &coordinator, args);
    let fails = |args: &[&str], what: &str| refuses(&cluster, &coordinator, args, what);
    let masters = |port: &str| ok(&["partitions"]).matches(&format!("{port},Master")).count();
    let address = cluster.address(2);
    let port = address.rsplit(':').next().unwrap();
    cluster.wait_for_replicas(2);
    assert_eq!(masters(port), 1);

    ok(&["detach-leaf", &address]);
    assert_eq!(masters(port), 0);
    // It answers, and says what it has.
    assert_eq!(ok(&["status"]).matches(",Slave,detached,").count(), 2, "{}", ok(&["status"]));
    fails(&["detach-leaf", &cluster.address(1)], "would be off line");
    fails(&["detach-leaf", "127.0.0.1:1", "--force"], "no leaf");
    ok(&["attach-leaf"]);
    fails(&["attach-leaf", "127.0.0.1:1"], "no leaf");
    let began = Instant::now();
    while !ok(&["rebalance", "--explain"]).contains("PROMOTE PARTITION") {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", ok(&["rebalance", "stoa", "--explain"]));
        std::thread::sleep(Duration::from_millis(50));
    }
    ok(&["rebalance", "stoa"]);
    assert_eq!(masters(port), 1);
    // Of two databases of a partition each the leaves are masters of one each only if they are looked at together.
    for database in ["small_1", "small_2"] {
        ok(&["create-database", database, "--partitions", "1"]);
    }
    assert_eq!(ok(&["rebalance", "--explain"]).lines().count(), 1);
    ok(&["rebalance", "--full"]);
    assert_eq!(ok(&["rebalance", "small_1", "--full", "--explain"]).lines().count(), 1);
    assert_eq!(ok(&["rebalance-status"]).lines().count(), 1);
    ok(&["cancel-rebalance", "stoa"]);
    assert_eq!(ok(&["restore-redundancy", "stoa", "--explain"]).lines().count(), 1);
    ok(&["restore-redundancy", "stoa"]);
    fails(&["restore-redundancy", "nowhere"], "nowhere");
    assert_eq!(ok(&["clear-orphans", "--explain"]).lines().count(), 1);
    ok(&["clear-orphans"]);
}
