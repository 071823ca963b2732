//! The client in Python of `examples/python`, which `docs/protocol.md` speaks of, against a cluster of processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::nodes::{Cluster, not_tested, text};

/// A Python with what the example needs, in the build folder, made once for each list of requirements; `None` if there is no Python here.
/// Where CI runs there must be one.
fn python(example: &Path) -> Option<PathBuf> {
    let requirements = example.join("requirements.txt");
    let wanted = fs::read_to_string(&requirements).unwrap();
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let (program, stamp) = (home.join("bin").join("python"), home.join("requirements.txt"));
    if fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
        return Some(program);
    }
    let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home).output();
    match made {
        Ok(made) if made.status.success() => {}
        other => return not_tested(&format!("there is no python3 with venv here (Debian: python3-venv): {other:?}")),
    }
    let install = Command::new(&program).args(["-m", "pip", "install", "--quiet", "-r"]).arg(&requirements).output().unwrap();
    if !install.status.success() {
        return not_tested(&format!("pip cannot install what the example needs: {}", text(&install)));
    }
    fs::copy(&requirements, &stamp).unwrap();
    Some(program)
}

#[test]
fn python_submits_sql_and_a_plan() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/python");
    let Some(python) = python(&example) else { return };
    let cluster = Cluster::start(2);
    let run = |arguments: &[&str], secret: &str| -> Output {
        let mut command = Command::new(&python);
        command.arg(example.join("stoa_client.py")).args(arguments);
        command.env("STOA_CONNECT", format!("127.0.0.1:1,{}", cluster.address(0))).env("STOA_SECRET", secret).output().unwrap()
    };
    let secret = cluster.secret();
    let tour = run(&[], &secret);
    assert!(tour.status.success(), "{}", text(&tour));
    let told = text(&tour);
    for line in [
        "loaded 5",
        "by SQL  [{'kind': 'a', 'total': 4}, {'kind': 'b', 'total': 52}, {'kind': 'c', 'total': 4}]",
        "prepared [1, 2, 0]",
        "by plan [{'kind': 'a', 'n': 1, 'total': 3}, {'kind': 'b', 'n': 2, 'total': 52}, {'kind': 'c', 'n': 1, 'total': 4}]",
        "user: there is no column 'nothing'",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    // What it left is there for others.
    assert_eq!(cluster.ok("SELECT count(*) AS n FROM tour"), "n\n5\n");
    assert!(text(&run(&["EXPLAIN SELECT * FROM tour"], &secret)).contains("Scan tour"));
    let stranger = run(&["SELECT 1"], "a guess");
    assert!(!stranger.status.success() && text(&stranger).contains("secret is another one"), "{}", text(&stranger));
}
