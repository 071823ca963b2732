//! Parsing, binding and rewriting of the 22 queries of TPC-H: `cargo bench -p stoa-bench --bench binding`.
#![allow(missing_docs)]

use std::collections::HashMap;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use stoa_datasets::tpch;
use stoa_sql::{Catalog, Statement, TableInfo};

/// The tables of TPC-H.
struct Tables(HashMap<String, TableInfo>);

impl Tables {
    fn new() -> Tables {
        let info = |table: &tpch::Table| match stoa_sql::parse(table.create).expect("a definition").as_slice() {
            [Statement::CreateTable(create)] => (create.name.clone(), create.info().expect("its key has its columns")),
            other => panic!("one definition: {other:?}"),
        };
        Tables(tpch::TABLES.iter().map(info).collect())
    }
}

impl Catalog for Tables {
    fn table(&self, name: &str) -> Option<TableInfo> {
        self.0.get(&name.to_lowercase()).cloned()
    }

    fn view(&self, _: &str) -> Option<String> {
        None
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

fn binding(criterion: &mut Criterion) {
    let tables = Tables::new();
    let bind = |text: &str| match stoa_sql::parse(text).expect("a statement").as_slice() {
        [Statement::Query(query)] => drop(black_box(stoa_sql::bind_query(query, &tables).expect("a plan"))),
        other => panic!("one query: {other:?}"),
    };
    let mut group = criterion.benchmark_group("binding");
    for number in 1..=tpch::QUERY_COUNT {
        let text = tpch::query(number).expect("a query of this number");
        group.bench_function(format!("q{number:02}"), |bencher| bencher.iter(|| bind(text)));
    }
    group.finish();
}

criterion_group!(benches, binding);
criterion_main!(benches);
