//! What runs on one coordinator is seen and ended through any other.

use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use crate::nodes::{Cluster, text};

/// It takes minutes.
const ENDLESS: &str = "SELECT count(*) AS n FROM t AS x, t AS y, t AS z WHERE x.a * 3 <> y.a * 7 + z.a";

/// Three coordinators, a leaf, and a table to run [`ENDLESS`] over.
fn cluster() -> Cluster {
    let cluster = Cluster::with(3, 1);
    let rows: Vec<String> = (0..3000).map(|i| format!("({i})")).collect();
    cluster.ok(&format!("CREATE TABLE t (a BIGINT); INSERT INTO t VALUES {}", rows.join(",")));
    cluster
}

/// Somebody who speaks through one of the coordinators.
#[derive(Clone, Copy)]
struct Through<'a> {
    cluster: &'a Cluster,
    coordinator: usize,
    user: &'a str,
}

impl Through<'_> {
    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.cluster.command_at(&self.cluster.address(self.coordinator), args);
        command.args(["--format", "csv"]).env("STOA_USER", self.user).env("STOA_PASSWORD", format!("of {}", self.user));
        command
    }

    fn output(&self, sql: &str) -> Output {
        self.command(&["sql", "-c", sql]).output().unwrap()
    }

    fn ok(&self, sql: &str) -> String {
        let output = self.output(sql);
        assert!(output.status.success(), "{sql}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, sql: &str, what: &str) {
        let output = self.output(sql);
        assert!(!output.status.success() && text(&output).contains(what), "{sql}: {} instead of {what}", text(&output));
    }

    /// Begins [`ENDLESS`], with a word in it by which it is found.
    fn begin(&self, word: &str) -> Child {
        let sql = ENDLESS.replace("AS n", &format!("AS {word}"));
        self.command(&["sql", "-c", &sql]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The line of what was begun with this word, once it is there.
    fn line(&self, word: &str) -> String {
        let began = Instant::now();
        loop {
            let listed = self.ok("SHOW PROCESSLIST");
            if let Some(line) = listed.lines().find(|line| line.contains(&format!("AS {word} FROM"))) {
                return line.to_owned();
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{word} does not run: {listed}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn number(&self, word: &str) -> String {
        self.line(word).split(',').next().unwrap().to_owned()
    }

    /// What was begun with this word is not there any more.
    fn gone(&self, word: &str) {
        let began = Instant::now();
        while self.ok("SHOW PROCESSLIST").contains(&format!("AS {word} FROM")) {
            assert!(began.elapsed() < Duration::from_secs(30), "{word} still runs");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What was begun ends because it was killed.
fn is_cancelled(begun: Child) {
    let output = begun.wait_with_output().unwrap();
    assert!(!output.status.success() && text(&output).contains("cancelled"), "{}", text(&output));
}

#[test]
fn any_coordinator_lists_and_ends_what_runs_on_the_others() {
    let cluster = cluster();
    let [a, b, c] = [0, 1, 2].map(|coordinator| Through { cluster: &cluster, coordinator, user: "" });
    assert!(b.ok("SHOW PROCESSLIST").starts_with("Id,User,Host,Port,Database,Time,Info\n"));
    let (first, second) = (a.begin("first"), b.begin("second"));
    for (word, at) in [("first", a), ("second", b)] {
        let (host, port) = cluster.address(at.coordinator).rsplit_once(':').map(|(h, p)| (h.to_owned(), p.to_owned())).unwrap();
        for through in [a, b, c] {
            let line = through.line(word);
            assert!(line.contains(&format!(",root,{host},{port},stoa,")), "{line}");
        }
        assert!([a, b, c].map(|through| through.number(word)).windows(2).all(|two| two[0] == two[1]));
    }
    assert_ne!(c.number("first"), c.number("second"));
    c.ok(&format!("KILL QUERY {}", c.number("first")));
    is_cancelled(first);
    b.gone("first");
    c.line("second");

    // The calls do the same, here through a coordinator that does not run it.
    let listed = a.command(&["admin", "processes"]).output().unwrap();
    assert!(text(&listed).contains("AS second FROM"), "{}", text(&listed));
    let killed = a.command(&["admin", "kill", &c.number("second")]).output().unwrap();
    assert!(killed.status.success(), "{}", text(&killed));
    is_cancelled(second);
    c.gone("second");
    for number in ["4211", "4221", "4291", "0", "18446744073709551615"] {
        c.fails(&format!("KILL {number}"), &format!("no query {number} runs: SHOW PROCESSLIST lists"));
    }
}

#[test]
fn users_see_and_end_their_own_on_all_coordinators() {
    let cluster = cluster();
    cluster.ok("CREATE USER boss IDENTIFIED BY 'of boss'");
    let through = |coordinator, user| Through { cluster: &cluster, coordinator, user };
    through(0, "boss").ok("CREATE USER ada IDENTIFIED BY 'of ada'; GRANT SELECT ON t TO ada");
    let (of_boss, of_ada) = (through(0, "boss").begin("private"), through(1, "ada").begin("mine"));
    let [number, own] = ["private", "mine"].map(|word| through(2, "boss").number(word));
    for coordinator in [0, 1, 2] {
        let ada = through(coordinator, "ada");
        ada.line("mine");
        assert!(!ada.ok("SHOW PROCESSLIST").contains(",boss,"), "{}", ada.ok("SHOW PROCESSLIST"));
        ada.fails(&format!("KILL QUERY {number}"), &format!("no query {number} runs"));
    }
    through(2, "boss").line("private");
    through(0, "ada").ok(&format!("KILL QUERY {own}"));
    is_cancelled(of_ada);
    let again = through(1, "ada").begin("again");
    through(2, "boss").ok(&format!("KILL QUERY {}; KILL QUERY {number}", through(0, "boss").number("again")));
    is_cancelled(again);
    is_cancelled(of_boss);
}

#[test]
fn a_coordinator_that_does_not_answer_holds_up_nobody() {
    let cluster = cluster();
    let [b, c] = [1, 2].map(|coordinator| Through { cluster: &cluster, coordinator, user: "" });
    let port = cluster.address(2).rsplit_once(':').unwrap().1.to_owned();
    let mut lost = c.begin("lost");
    let number = b.number("lost");
    // One that hangs, with a connection that stands; then one that is gone.
    for signal in ["STOP", "KILL"] {
        cluster.signal(2, signal);
        for _ in 0..3 {
            let began = Instant::now();
            let listed = b.ok("SHOW PROCESSLIST");
            assert!(began.elapsed() < Duration::from_secs(6), "{signal}: {:?}", began.elapsed());
            let line =
                listed.lines().find(|line| line.contains("does not answer")).unwrap_or_else(|| panic!("{signal}: {listed}"));
            assert!(line.starts_with("\"\",\"\",") && line.contains(&format!(",{port},")), "{line}");
            assert!(listed.contains("SHOW PROCESSLIST") && listed.lines().count() == 3, "{listed}");
        }
        let began = Instant::now();
        b.fails(&format!("KILL QUERY {number}"), "does not answer");
        assert!(began.elapsed() < Duration::from_secs(6), "{signal}: {:?}", began.elapsed());
    }
    lost.wait().unwrap();
    // It is back, without what it ran.
    cluster.start_again();
    let began = Instant::now();
    while b.ok("SHOW PROCESSLIST").contains("does not answer") {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", b.ok("SHOW PROCESSLIST"));
        std::thread::sleep(Duration::from_millis(50));
    }
    b.gone("lost");
}
