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
    users.fails("boss", "GRANT FLY ON t TO ada", "there is no privilege FLY");
    users.fails("boss", "DROP USER boss", "last who may administer");
    users.ok("ada", "ALTER USER ada IDENTIFIED BY 'another'");
    users.fails("ada", "SELECT 1", "user 'ada' or the password is wrong");
    users.ok("boss", "SET PASSWORD FOR ada = 'of ada'; DROP USER ada");
    users.fails("ada", "SELECT 1", "user 'ada' or the password is wrong");
}
