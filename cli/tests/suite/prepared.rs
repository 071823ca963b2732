//! Prepared statements of a client on a cluster of processes.

use std::process::Command;

use stoa_client::{Cancelled, FailureKind, Output, Parameter, Prepared};

use crate::nodes::Cluster;

/// The rows of a prepared query as text.
fn shown(prepared: &Prepared, values: &[Parameter]) -> String {
    let rows = prepared.query(values).unwrap();
    let text = |batch: &arrow::array::RecordBatch| -> Vec<String> {
        let cell = |row: usize, column| arrow::util::display::array_value_to_string(batch.column(column), row).unwrap();
        let line = |row| (0..batch.num_columns()).map(|column| cell(row, column)).collect::<Vec<_>>().join(",");
        (0..batch.num_rows()).map(line).collect()
    };
    rows.batches.iter().flat_map(text).collect::<Vec<_>>().join("|")
}

fn run(prepared: &Prepared, values: &[Parameter]) {
    prepared.execute(values, &Cancelled::default(), &mut |_| Ok(())).unwrap();
}

#[test]
fn values_reach_the_leaves_and_wrong_ones_are_refused() {
    use Parameter as P;
    let cluster = Cluster::start(2);
    let client = cluster.client();
    client.execute(
        "CREATE TABLE t (a BIGINT, d DECIMAL(10,2), e DOUBLE, s VARCHAR(40), f DATE, g TIMESTAMP, h BOOL, x VARBINARY(4), SHARD KEY (a))",
        &Cancelled::default(),
        &mut |_| Ok(()),
    )
    .unwrap();
    let insert = client.prepare("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?, ?)").unwrap();
    assert_eq!(insert.parameters(), 8);
    for a in 0..20 {
        let text = P::String(format!("it's {a}; DROP TABLE t --"));
        let (day, moment) = (P::Date(9131 + a), P::Timestamp(i64::from(a) * 1_000_000 + 1));
        let (decimal, float) = (P::Decimal(format!("-{a}.25")), P::Float(f64::from(a) / 4.0));
        run(&insert, &[P::Int(a.into()), decimal, float, text, day, moment, P::Bool(a % 2 == 0), P::Bytes(vec![0, a as u8])]);
    }
    run(&insert, &[P::Int(-1), P::Null, P::Null, P::Null, P::Null, P::Null, P::Null, P::Null]);

    let one = client.prepare("SELECT d, e, s, f, g, h, x FROM t WHERE a = ?").unwrap();
    let expected = "-3.25,0.75,it's 3; DROP TABLE t --,1995-01-04,1970-01-01T00:00:03.000001,false,0003";
    assert_eq!(shown(&one, &[P::Int(3)]), expected);
    assert_eq!(shown(&one, &[P::Int(-1)]), ",,,,,,");
    assert_eq!(shown(&one, &[P::Null]), "");
    let count = |condition: &str, value: Parameter| {
        shown(&client.prepare(&format!("SELECT count(*) FROM t WHERE {condition}")).unwrap(), &[value])
    };
    assert_eq!(count("d <= ?", P::Decimal("-10.25".into())), "10");
    assert_eq!(count("e < ?", P::Float(1.0)), "4");
    assert_eq!(count("s = ?", P::String("it's 7; DROP TABLE t --".into())), "1");
    assert_eq!(count("f >= ?", P::Date(9141)), "10");
    assert_eq!(count("g > ?", P::Timestamp(18_000_000)), "2");
    assert_eq!(count("h = ?", P::Bool(true)), "10");
    assert_eq!(count("x = ?", P::Bytes(vec![0, 9])), "1");

    let refused = |values: &[Parameter], what: &str| {
        let failure = one.query(values).unwrap_err();
        assert!(failure.kind == FailureKind::User && failure.message.contains(what), "{what}: {failure:?}");
    };
    refused(&[], "the statement has 1 parameter, but got 0 values");
    refused(&[P::Int(1), P::Int(2)], "got 2 values");
    refused(&[P::String("many".into())], "many");
    refused(&[P::Decimal("1e5".into())], "the value of parameter 1 is no decimal: '1e5'");
    assert_eq!(shown(&one, &[P::Int(3)]), expected);
    let text = client.prepare("SHOW TABLES").unwrap();
    assert_eq!(shown(&text, &[]).split(',').next(), Some("t"));
    let mut said = Vec::new();
    let explain = client.prepare("EXPLAIN SELECT a FROM t WHERE a = ?").unwrap();
    explain
        .execute(&[P::Int(42)], &Cancelled::default(), &mut |output| {
            said.push(output);
            Ok(())
        })
        .unwrap();
    assert!(matches!(&said[..], [Output::Plan(plan)] if plan.contains("42")), "{said:?}");
}

#[test]
fn a_connection_holds_so_many_statements_and_takes_them_along() {
    let cluster = Cluster::with(3, 1);
    let addresses: Vec<String> = (0..3).map(|n| cluster.address(n)).collect();
    let client = cluster.client_at(addresses.clone());
    let mut held: Vec<Prepared> = (0..128).map(|n| client.prepare(&format!("SELECT {n} + ?")).unwrap()).collect();
    let refused = |sql: &str, what: &str| {
        let failure = client.prepare(sql).err().unwrap();
        assert!(failure.kind == FailureKind::User && failure.message.contains(what), "{what}: {failure:?}");
    };
    refused("SELECT 1", "has 128 prepared statements, the most that one may have");
    assert_eq!(shown(&held[100], &[Parameter::Int(11)]), "111");
    held.truncate(1);
    // The coordinator hears of dropped statements before it hears of the next one.
    let next = client.prepare("SELECT 1").unwrap();
    refused("SELECT 1; SELECT 2", "expected exactly one statement");
    refused(&format!("SELECT '{}'", "x".repeat(1 << 16)), "65536 are the most");
    assert_eq!(shown(&next, &[]), "1");

    let at = addresses.iter().position(|address| *address == client.address()).unwrap();
    assert!(Command::new("kill").args(["-9", &cluster.pid(at)]).status().unwrap().success());
    // The next coordinator takes them over as they are used.
    assert_eq!(shown(&next, &[]), "1");
    assert_eq!(shown(&held[0], &[Parameter::Int(11)]), "11");
    assert_eq!(shown(&client.prepare("SELECT ? * 2").unwrap(), &[Parameter::Int(21)]), "42");
}
