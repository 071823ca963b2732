//! TLS between all nodes and clients, and what happens where one side lacks it.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use crate::binary::stoa;
use crate::nodes::{Cluster, text};

fn sql(cluster: &Cluster, ca: Option<&PathBuf>) -> Output {
    let mut command = cluster.command(&["sql", "--format", "csv", "-c", "SELECT count(*) AS n FROM t"]);
    if let Some(ca) = ca {
        command.env("STOA_TLS_CA", ca);
    }
    command.output().unwrap()
}

#[test]
fn all_connections_are_encrypted() {
    let folder = tempfile::tempdir().unwrap();
    let start = ["cluster", "start", "--coordinators", "2", "--leaves", "2", "--threads", "1", "--tls", "--dir"];
    let output = stoa(&start).arg(folder.path()).output().unwrap();
    assert!(output.status.success() && text(&output).contains("export STOA_TLS_CA="), "{}", text(&output));
    let cluster = Cluster::of(folder);
    let ca = cluster.path().join("tls/ca.pem");
    let work = "CREATE TABLE t (k BIGINT, SHARD KEY (k)); INSERT INTO t VALUES (1), (2), (3); \
                SELECT count(*) FROM t AS x JOIN t AS y ON x.k = y.k + 1";
    let follower = cluster.command_at(&cluster.address(1), &["sql", "-c", work]).env("STOA_TLS_CA", &ca).output().unwrap();
    assert!(follower.status.success(), "{}", text(&follower));
    assert_eq!(text(&sql(&cluster, Some(&ca))), "n\n3\n");

    // A user logs in over TLS without the secret.
    let user = |password: &str| {
        let mut command = cluster.command(&["sql", "--user", "ada", "--format", "csv", "-c", "SELECT count(*) AS n FROM t"]);
        text(&command.env("STOA_TLS_CA", &ca).env("STOA_PASSWORD", password).env_remove("STOA_SECRET").output().unwrap())
    };
    assert!(user("").contains("needs its secret"), "{}", user(""));
    let make = ["sql", "-c", "CREATE USER ada IDENTIFIED BY 'of ada'"];
    assert!(cluster.command(&make).env("STOA_TLS_CA", &ca).output().unwrap().status.success());
    assert_eq!(user("of ada"), "n\n3\n");
    assert!(user("of eve").contains("or the password is wrong"), "{}", user("of eve"));

    // Without TLS, and with another authority: an error that says what to do.
    let plain = sql(&cluster, None);
    assert!(!plain.status.success() && text(&plain).contains("--tls-ca"), "{}", text(&plain));
    let other = tempfile::tempdir().unwrap();
    let another = stoa(&[&start[..], &[other.path().to_str().unwrap()]].concat()).output().unwrap();
    assert!(another.status.success(), "{}", text(&another));
    let another = Cluster::of(other);
    let stranger = sql(&cluster, Some(&another.path().join("tls/ca.pem")));
    assert!(!stranger.status.success() && text(&stranger).contains("no TLS with"), "{}", text(&stranger));
    let key = cluster.path().join("tls/key.pem");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    drop(another);

    // TLS towards a node that does not use it.
    let unencrypted = Cluster::start(1);
    let eager = sql(&unencrypted, Some(&ca));
    assert!(!eager.status.success() && text(&eager).contains("does the node use TLS"), "{}", text(&eager));

    // Half of it, or files that are none.
    let data = cluster.path().join("data");
    let half = stoa(&["leaf", "--tls-cert", "cert.pem", "--data"]).arg(&data).output().unwrap();
    assert!(text(&half).contains("--tls-key"), "{}", text(&half));
    let swapped = stoa(&["leaf", "--data"]).arg(&data).arg("--tls-cert").arg(&key).arg("--tls-key").arg(&ca).output().unwrap();
    assert!(!swapped.status.success() && text(&swapped).contains("ca.pem"), "{}", text(&swapped));
}

#[test]
fn a_port_that_others_reach_needs_tls_and_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |extra: &[&str]| {
        let data = folder.path().join("leaf");
        let output = stoa(&["leaf", "--listen", "0.0.0.0:0", "--data"]).arg(data).args(extra).env_remove("STOA_SECRET").output();
        let output = output.unwrap();
        assert!(!output.status.success());
        text(&output)
    };
    assert!(refused(&[]).contains("a cluster secret and TLS would be missing"));
    assert!(refused(&["--secret", "s"]).contains("TLS would be missing"));
}
