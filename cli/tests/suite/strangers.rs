//! Who does not know the secret of a cluster: users log in with their passwords, and others get nowhere and keep nobody out.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use stoa_client::{Cancelled, Client, Failure, FailureKind, Login, Options, Security};
use stoa_rpc::{Io, LeafPool, PeerPool};

use crate::nodes::{Cluster, text};

fn log_in(cluster: &Cluster, user: &str, password: &str) -> Result<Client, Failure> {
    let login = Login { user: user.into(), password: password.into(), ..Login::default() };
    Client::connect(&Options { addresses: vec![cluster.address(0)], login, security: Security::default() })
}

/// Why somebody is turned away.
fn denied<T>(outcome: Result<T, Failure>) -> String {
    let failure = outcome.err().expect("let in");
    assert_eq!(failure.kind, FailureKind::Denied, "{failure}");
    failure.message
}

#[test]
fn users_need_no_secret_and_whoever_has_none_is_no_node() {
    let cluster = Cluster::start(1);
    cluster.ok("CREATE TABLE t (a BIGINT); CREATE TABLE s (a BIGINT); INSERT INTO t VALUES (1)");
    let first = denied(log_in(&cluster, "", ""));
    assert!(first.contains("whoever enters needs its secret"), "{first}");

    cluster.ok("CREATE USER boss IDENTIFIED BY 'of boss'");
    let boss = log_in(&cluster, "boss", "of boss").unwrap();
    let run = |client: &Client, sql: &str| client.execute(sql, &Cancelled::default(), &mut |_| Ok(()));
    run(&boss, "CREATE USER ada IDENTIFIED BY 'of ada'; GRANT SELECT ON t TO ada").unwrap();
    let ada = log_in(&cluster, "ada", "of ada").unwrap();
    assert_eq!(ada.query("SELECT * FROM t").unwrap().batches[0].num_rows(), 1);
    assert!(denied(ada.query("SHOW LEAVES")).contains("may not CLUSTER"));
    assert!(run(&ada, "SELECT * FROM s").unwrap_err().message.contains("may not SELECT on stoa.s"));
    assert!(denied(run(&ada, "CREATE DATABASE other")).contains("may not CREATE"));

    for (user, password) in [("ada", ""), ("ada", "of boss"), ("nobody", ""), ("", ""), ("root", "")] {
        assert!(denied(log_in(&cluster, user, password)).contains("or the password is wrong"), "{user}");
    }
    // The interfaces of nodes are for those who know the secret.
    let io = Io::start("test-io").unwrap();
    for secret in ["", "a guess"] {
        let peers = PeerPool::new(io.clone(), Security::new(secret));
        assert!(denied(peers.peer(&cluster.address(0))).contains("the cluster secret is another one"));
        let leaves = LeafPool::new(io.clone(), Security::new(secret));
        assert!(denied(leaves.leaf(&cluster.address(1))).contains("the cluster secret is another one"));
    }

    // The program: without the secret, with the right one, with a wrong one.
    let ask = |secret: Option<&str>| {
        let mut command = cluster.command(&["sql", "--user", "ada", "--format", "csv", "-c", "SELECT * FROM t"]);
        command.env("STOA_PASSWORD", "of ada").env_remove("STOA_SECRET");
        text(&command.envs(secret.map(|secret| ("STOA_SECRET", secret))).output().unwrap())
    };
    assert_eq!((ask(None), ask(Some(&cluster.secret()))), ("a\n1\n".to_owned(), "a\n1\n".to_owned()));
    assert!(ask(Some("a guess")).contains("the cluster secret is another one"));
}

/// Waits until a client is let in.
fn let_in(cluster: &Cluster) -> Client {
    let began = Instant::now();
    loop {
        let security = Security::new(cluster.secret());
        let options = Options { addresses: vec![cluster.address(0)], login: Login::default(), security };
        match Client::connect(&options) {
            Ok(client) => return client,
            Err(failure) => assert!(began.elapsed() < Duration::from_secs(60), "{failure}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn one_client_too_many_is_told_so_and_strangers_keep_none_out() {
    let cluster = Cluster::start_with(1, 1, &[("STOA_CONNECTIONS", "8")]);
    let mut clients: Vec<Client> = (0..8).map(|_| let_in(&cluster)).collect();
    let refused = text(&cluster.sql("SELECT 1"));
    assert!(refused.contains("this node has 8 connections, the most that it takes (--connections)"), "{refused}");

    // Whoever only connects, or says something and never who it is.
    clients.pop();
    let mut strangers: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(cluster.address(0)).unwrap()).collect();
    for stranger in strangers.iter_mut().step_by(2) {
        let _ = stranger.write_all(&[0, 0, 0, 0, 16, 0, 0, 0]);
    }
    let began = Instant::now();
    clients.push(let_in(&cluster));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for client in &clients {
        assert_eq!(client.query("SELECT 1").unwrap().batches[0].num_rows(), 1);
    }
    // The oldest of them made place for the others, long before their time was over.
    strangers[0].set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert!(matches!(strangers[0].read(&mut [0; 8]), Ok(0) | Err(_)) && began.elapsed() < Duration::from_secs(8));
    assert!(!cluster.sql("SELECT 1").status.success());
}

#[test]
fn a_flood_of_wrong_passwords_keeps_nobody_with_the_secret_out() {
    let cluster = Cluster::start(1);
    cluster.ok("CREATE USER boss IDENTIFIED BY 'of boss'");
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| (0..20).for_each(|_| drop(log_in(&cluster, "boss", "a guess"))));
        }
        std::thread::sleep(Duration::from_millis(200));
        for _ in 0..5 {
            let mut command = cluster.command(&["sql", "--user", "boss", "--format", "csv", "-c", "SELECT 1 AS one"]);
            let began = Instant::now();
            assert_eq!(text(&command.env("STOA_PASSWORD", "of boss").output().unwrap()), "one\n1\n");
            assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        }
    });
    log_in(&cluster, "boss", "of boss").unwrap();
}
