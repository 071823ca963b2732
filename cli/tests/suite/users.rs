//! Users: who comes in, who may do what, on every coordinator.

use std::process::Output;

use crate::nodes::{Cluster, text};

struct Users {
    cluster: Cluster,
}

impl Users {
    fn run(&self, user: &str, sql: &str) -> Output {
        // Whichever coordinator: what one grants the other one knows.
        let addresses = format!("{},{}", self.cluster.address(usize::from(user == "ada")), self.cluster.address(0));
        let mut command = self.cluster.command_at(&addresses, &["sql", "--format", "csv", "-c", sql]);
        command.env("STOA_USER", user).env("STOA_PASSWORD", format!("of {user}")).output().unwrap()
    }

    fn ok(&self, user: &str, sql: &str) -> String {
        let output = self.run(user, sql);
        assert!(output.status.success(), "{user}: {sql}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Succeeds, though perhaps a moment later: what one coordinator grants the other knows a moment later.
    fn ok_soon(&self, user: &str, sql: &str) {
        let refused = || {
            let output = self.run(user, sql);
            (!output.status.success()).then(|| text(&output))
        };
        let why = (0..50).find_map(|_| match refused() {
            None => Some(None),
            Some(why) if why.contains("may not") => {
                std::thread::sleep(std::time::Duration::from_millis(100));
                None
            }
            Some(why) => Some(Some(why)),
        });
        assert_eq!(why, Some(None), "{user}: {sql}");
    }

    /// Fails with the words `what`; a catalog may be a moment behind on another coordinator, and so is what it refuses.
    fn fails(&self, user: &str, sql: &str, what: &str) {
        for _ in 0..50 {
            let output = self.run(user, sql);
            if !output.status.success() {
                return assert!(text(&output).contains(what), "{user}: {sql}: {} instead of {what}", text(&output));
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("{user}: {sql} goes through");
    }
}

#[test]
fn users_do_what_was_granted() {
    let users = Users { cluster: Cluster::with(3, 1) };
    users.cluster.ok("CREATE TABLE t (a BIGINT); CREATE TABLE s (a BIGINT); CREATE VIEW v AS SELECT a + 1 AS b FROM s");
    users.cluster.ok("INSERT INTO t VALUES (1); INSERT INTO s VALUES (41); CREATE DATABASE other PARTITIONS 1");
    users.cluster.ok("CREATE USER boss IDENTIFIED BY 'of boss'");
    users.cluster.fails("SELECT 1", "user 'root' or the password is wrong");
    users.ok("boss", "CREATE USER ada IDENTIFIED BY 'of ada'; GRANT SELECT ON t TO ada; GRANT SELECT ON v TO ada");

    assert_eq!(users.ok("ada", "SELECT * FROM t"), "a\n1\n");
    // A view shows what it shows, and no more of what is behind it.
    assert_eq!(users.ok("ada", "SELECT * FROM v"), "b\n42\n");
    let no = |sql: &str, what: &str| users.fails("ada", sql, what);
    no("SELECT * FROM s", "may not SELECT on stoa.s: GRANT SELECT ON stoa.s TO 'ada' allows it");
    no("SELECT a FROM t WHERE a IN (SELECT a FROM s)", "may not SELECT on stoa.s");
    no("WITH x AS (SELECT * FROM s) SELECT * FROM x", "may not SELECT on stoa.s");
    no("EXPLAIN SELECT * FROM s", "may not SELECT on stoa.s");
    no("CREATE VIEW w AS SELECT * FROM s", "may not CREATE on stoa.*");
    no("INSERT INTO t VALUES (2)", "may not INSERT on stoa.t");
    no("DROP TABLE t", "may not DROP on stoa.t");
    no("DESCRIBE s", "may not SELECT on stoa.s");
    no("CREATE DATABASE d", "may not CREATE on d.*");
    no("DROP DATABASE other", "may not DROP on other.*");
    no("SHOW LEAVES; ADD LEAF '127.0.0.1:9'", "may not CLUSTER on *.*");
    no("GRANT ALL ON *.* TO ada", "may not CLUSTER on *.*");
    no("CREATE USER eve", "may not CLUSTER on *.*");
    assert_eq!(users.ok("ada", "SHOW GRANTS").lines().count(), 3);

    users.ok("boss", "GRANT INSERT ON stoa.* TO ada");
    users.ok("ada", "INSERT INTO t VALUES (2); SELECT sum(a) FROM t");
    no("INSERT INTO t SELECT a FROM s", "may not SELECT on stoa.s");
    users.ok("boss", "REVOKE SELECT ON t FROM ada");
    no("SELECT * FROM t", "may not SELECT on stoa.t");
    // Who may fill a table need not read it.
    users.ok("ada", "INSERT INTO t VALUES (3); INSERT INTO t VALUES (3 + 1); INSERT INTO t SELECT 5");
    no("INSERT INTO t SELECT a FROM t", "may not SELECT on stoa.t");
    no("INSERT INTO t VALUES ((SELECT max(a) FROM t))", "may not SELECT on stoa.t");
    users.fails("boss", "GRANT FLY ON t TO ada", "there is no privilege FLY");
    users.fails("boss", "DROP USER boss", "last who may administer");
    users.ok("ada", "ALTER USER ada IDENTIFIED BY 'another'");
    users.fails("ada", "SELECT 1", "user 'ada' or the password is wrong");
    users.ok("boss", "SET PASSWORD FOR ada = 'of ada'; DROP USER ada");
    users.fails("ada", "SELECT 1", "user 'ada' or the password is wrong");
}

/// Each privilege allows its statements, on a table or in a whole database, and no longer than it is granted.
#[test]
fn privileges_are_granted_and_revoked_one_by_one() {
    let users = Users { cluster: Cluster::with(2, 1) };
    users.cluster.ok("CREATE TABLE t (a BIGINT PRIMARY KEY, b BIGINT); CREATE TABLE s (a BIGINT PRIMARY KEY, b BIGINT)");
    users.cluster.ok("INSERT INTO t VALUES (1, 1), (2, 2), (3, 3); INSERT INTO s VALUES (1, 1)");
    users.cluster.ok("CREATE USER boss IDENTIFIED BY 'of boss'");
    users.ok("boss", "CREATE USER ada IDENTIFIED BY 'of ada'; GRANT SELECT ON stoa.* TO ada");
    let cases = [
        ("UPDATE", "UPDATE {} SET b = b + 1 WHERE a = 1", "UPDATE"),
        ("DELETE", "DELETE FROM {} WHERE a = 3", "DELETE"),
        ("ALTER", "ALTER TABLE {} ADD COLUMN c# BIGINT", "ALTER"),
        ("ALTER", "OPTIMIZE TABLE {} FLUSH", "ALTER"),
        ("INSERT, DELETE", "REPLACE INTO {} (a, b) VALUES (1, 7)", "INSERT"),
        ("INSERT, UPDATE", "INSERT INTO {} (a, b) VALUES (1, 8) ON DUPLICATE KEY UPDATE b = 8", "INSERT"),
        ("DROP", "TRUNCATE TABLE {}", "DROP"),
    ];
    let number = std::cell::Cell::new(0);
    for (privileges, statement, lacks) in cases {
        let on = |table: &str| {
            number.set(number.get() + 1);
            statement.replace("{}", table).replace('#', &number.get().to_string())
        };
        let no = |table: &str| users.fails("ada", &on(table), &format!("may not {lacks} on stoa.{table}"));
        no("t");
        users.ok("boss", &format!("GRANT {privileges} ON t TO ada"));
        users.ok_soon("ada", &on("t"));
        no("s");
        users.ok("boss", &format!("REVOKE {privileges} ON t FROM ada"));
        no("t");
        // Of the whole database.
        users.ok("boss", &format!("GRANT {privileges} ON stoa.* TO ada"));
        users.ok_soon("ada", &on("t"));
        users.ok("ada", &on("s"));
        users.ok("boss", &format!("REVOKE {privileges} ON stoa.* FROM ada"));
        no("s");
    }
    // Half of what a statement needs is not enough.
    users.ok("boss", "GRANT INSERT ON t TO ada");
    users.fails("ada", "REPLACE INTO t (a, b) VALUES (1, 7)", "may not DELETE on stoa.t");
    users.fails("ada", "INSERT INTO t (a, b) VALUES (1, 8) ON DUPLICATE KEY UPDATE b = 8", "may not UPDATE on stoa.t");
    // CREATE and DROP in a database, and the database itself.
    users.fails("ada", "CREATE TABLE made (a BIGINT)", "may not CREATE on stoa.*");
    users.ok("boss", "GRANT CREATE, DROP ON stoa.* TO ada");
    users.ok_soon("ada", "CREATE TABLE made (a BIGINT)");
    users.ok("ada", "CREATE VIEW seen AS SELECT a FROM made; DROP VIEW seen; DROP TABLE made");
    users.fails("ada", "CREATE DATABASE d", "may not CREATE on d.*");
    users.ok("boss", "GRANT CREATE ON *.* TO ada");
    users.ok_soon("ada", "CREATE DATABASE d PARTITIONS 1");
    users.fails("ada", "DROP DATABASE d", "may not DROP on d.*");
    users.ok("boss", "GRANT DROP ON d.* TO ada");
    users.ok_soon("ada", "DROP DATABASE d");
    users.ok("boss", "REVOKE ALL ON stoa.* FROM ada");
    users.fails("ada", "SELECT * FROM s", "may not SELECT on stoa.s");
}
