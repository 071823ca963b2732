//! Backups in S3-compatible storage: a server of the test's own that takes, gives and lists objects.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::nodes::{Cluster, text};

type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// Serves until the process ends; the address, and what is stored.
fn serve() -> (String, Objects) {
    let (listener, objects) = (TcpListener::bind("127.0.0.1:0").unwrap(), Objects::default());
    let (address, shared) = (listener.local_addr().unwrap().to_string(), objects.clone());
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let objects = shared.clone();
            std::thread::spawn(move || while answer(&connection, &objects).is_some() {});
        }
    });
    (address, objects)
}

/// Answers one request; `None` when the connection ends.
fn answer(connection: &TcpStream, objects: &Objects) -> Option<()> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        match header.trim().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse().ok()?,
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (status, found) = respond(&method, path, query, body, &mut objects.lock().unwrap());
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"1\"\r\nLast-Modified: Tue, 03 Mar 2026 10:00:00 GMT\r\n\r\n",
        found.len()
    );
    let mut connection = connection;
    connection.write_all(&[head.as_bytes(), &found].concat()).ok()
}

fn respond(
    method: &str,
    path: &str,
    query: &str,
    body: Vec<u8>,
    objects: &mut BTreeMap<String, Vec<u8>>,
) -> (&'static str, Vec<u8>) {
    let prefix = query.split('&').find_map(|part| part.strip_prefix("prefix="));
    match (method, prefix) {
        ("PUT", _) => {
            objects.insert(path.to_owned(), body);
            ("200 OK", vec![])
        }
        ("GET", Some(prefix)) => {
            let bucket = format!("{}/", path.trim_end_matches('/'));
            let prefix = prefix.replace("%2F", "/");
            let mut found = String::from("<ListBucketResult><IsTruncated>false</IsTruncated>");
            for (key, object) in objects.iter() {
                let Some(key) = key.strip_prefix(&bucket).filter(|key| key.starts_with(&prefix)) else { continue };
                let when = "<LastModified>2026-03-03T10:00:00.000Z</LastModified><ETag>1</ETag>";
                found.push_str(&format!("<Contents><Key>{key}</Key>{when}<Size>{}</Size></Contents>", object.len()));
            }
            found.push_str("</ListBucketResult>");
            ("200 OK", found.into_bytes())
        }
        ("GET", None) => match objects.get(path) {
            Some(object) => ("200 OK", object.clone()),
            None => ("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>".to_vec()),
        },
        _ => ("405 Method Not Allowed", vec![]),
    }
}

#[test]
fn backups_in_an_object_store() {
    let (address, objects) = serve();
    let endpoint = format!("http://{address}");
    let variables = [
        ("AWS_ENDPOINT", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "somebody"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "somewhere"),
    ];
    let cluster = Cluster::start_with(1, 2, &variables);
    let rows = (1..=1000).map(|a| format!("({a})")).collect::<Vec<_>>().join(", ");
    cluster.ok(&format!("CREATE TABLE t (a BIGINT PRIMARY KEY); INSERT INTO t VALUES {rows}; OPTIMIZE TABLE t FLUSH"));
    let backup = "BACKUP DATABASE stoa WITH DIFFERENTIAL TO 's3://bucket/some/where'";
    cluster.ok(backup);
    let segments = |objects: &Objects| objects.lock().unwrap().keys().filter(|key| key.contains("/segments/")).count();
    let first = segments(&objects);
    assert!(first > 0 && objects.lock().unwrap().keys().all(|key| key.starts_with("/bucket/some/where/")), "{first}");
    cluster.ok("INSERT INTO t VALUES (2000)");
    cluster.ok(backup);
    assert_eq!(segments(&objects), first);
    cluster.ok("RESTORE DATABASE stoa AS copy FROM 's3://bucket/some/where'");
    let output =
        cluster.command(&["sql", "--database", "copy", "--format", "csv", "-c", "SELECT count(*) AS n, max(a) AS a FROM t"]);
    assert_eq!(text(&{ output }.output().unwrap()), "n,a\n1001,2000\n");
    cluster.fails("RESTORE DATABASE stoa AS other FROM 's3://bucket/else/where'", "there is no backup in it");
}
