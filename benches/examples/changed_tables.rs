//! What small writes cost the queries: TPC-H on tables that were filled by INSERT batches of 10,000 rows and then lost and changed 5% of
//! their rows, beside the same rows freshly loaded.
//!
//! `cargo run --release -p stoa-bench --example changed_tables -- FROM SCRATCH`: FROM is a data directory with TPC-H
//! (`stoa tpch --data FROM`), SCRATCH a folder that is not there yet. It prints the time of each query on both, in rounds that alternate,
//! and fails if any answer differs.

use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use stoa::engine::{Engine, Setup};
use stoa_columnstore::{RowNames, TableDef};
use stoa_coordinator::Outcome;
use stoa_datasets::tpch::{QUERY_COUNT, query};
use stoa_exec::CancelToken;

const BATCH: usize = 10_000;
const ROUNDS: usize = 5;
type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(from), Some(scratch)) = (arguments.next(), arguments.next()) else {
        return Err("usage: changed_tables FROM SCRATCH".into());
    };
    let setup = Setup::from_env();
    let from = Engine::with_setup(Path::new(&from), &setup)?;
    let written = Engine::with_setup(&Path::new(&scratch).join("written"), &setup)?;
    write(&from, &written)?;
    let loaded = Engine::with_setup(&Path::new(&scratch).join("loaded"), &setup)?;
    load(&written, &loaded)?;
    for status in written.database().merge_status() {
        println!("{status:?}");
    }
    compare(&written, &loaded)
}

/// Fills tables by small transactions, then deletes and updates rows.
fn write(from: &Engine, to: &Engine) -> Result<(), Failure> {
    let began = Instant::now();
    let mut rows = 0;
    for table in from.database().tables() {
        to.database().create_table(TableDef::clone(&table.def))?;
        for batch in batches(from, table.name())? {
            for first in (0..batch.num_rows()).step_by(BATCH) {
                let part = batch.slice(first, BATCH.min(batch.num_rows() - first));
                let mut transaction = to.database().begin();
                rows += transaction.insert(table.name(), &part, RowNames::default())?;
                transaction.commit()?;
            }
        }
    }
    println!("{rows} rows inserted in batches of {BATCH} in {:.1} s", began.elapsed().as_secs_f64());
    for sql in [
        "DELETE FROM lineitem WHERE l_orderkey % 160 = 7 OR l_orderkey % 160 = 39",
        "DELETE FROM orders WHERE o_orderkey % 160 = 7 OR o_orderkey % 160 = 39",
        "UPDATE lineitem SET l_quantity = l_quantity + 1, l_comment = concat(l_comment, '!') WHERE l_orderkey % 160 IN (3, 35)",
        "UPDATE orders SET o_totalprice = o_totalprice + 1 WHERE o_orderkey % 160 IN (3, 35)",
    ] {
        let began = Instant::now();
        to.run(sql, &CancelToken::default(), &mut |outcome| {
            if let Outcome::Done(what) = outcome {
                println!("{what} in {:.2} s: {sql}", began.elapsed().as_secs_f64());
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn batches(from: &Engine, table: &str) -> Result<Vec<RecordBatch>, Failure> {
    Ok(from.query(&format!("SELECT * FROM {table}"), &CancelToken::default())?.batches)
}

fn load(from: &Engine, to: &Engine) -> Result<(), Failure> {
    for table in from.database().tables() {
        let mut rows = to.create_table_rows(TableDef::clone(&table.def))?;
        for batch in batches(from, table.name())? {
            rows.push(&batch)?;
        }
        rows.finish()?;
    }
    Ok(())
}

fn compare(written: &Engine, loaded: &Engine) -> Result<(), Failure> {
    let mut best = vec![[Duration::MAX; 2]; QUERY_COUNT];
    for round in 0..ROUNDS {
        for number in 1..=QUERY_COUNT {
            let sql = query(number).ok_or("no such query")?;
            let mut answers = Vec::new();
            for (engine, best) in [written, loaded].into_iter().zip(&mut best[number - 1]) {
                let began = Instant::now();
                answers.push(engine.query(sql, &CancelToken::default())?.batches);
                *best = (*best).min(began.elapsed());
            }
            if round == 0 && texts(&answers[0])? != texts(&answers[1])? {
                return Err(format!("query {number}: the answers differ").into());
            }
        }
    }
    let mut sums = [0.0; 2];
    for (number, best) in (1..).zip(&best) {
        let [written, loaded] = best.map(|t| t.as_secs_f64() * 1e3);
        sums = [sums[0] + written, sums[1] + loaded];
        println!("q{number:02} written {written:8.1} ms, loaded {loaded:8.1} ms, ratio {:.2}", written / loaded);
    }
    println!("sum written {:.1} ms, loaded {:.1} ms, ratio {:.3}; all answers agree", sums[0], sums[1], sums[0] / sums[1]);
    Ok(())
}

/// The rows as texts, sorted: sums of floats may differ in their last digits, so those are rounded.
fn texts(batches: &[RecordBatch]) -> Result<Vec<String>, Failure> {
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cell = |column: &ArrayRef| -> Result<String, Failure> {
                Ok(match column.data_type() {
                    DataType::Float64 if column.is_valid(row) => {
                        format!("{:.6e}", column.as_primitive::<arrow::datatypes::Float64Type>().value(row))
                    }
                    _ => arrow::util::display::array_value_to_string(column, row)?,
                })
            };
            rows.push(batch.columns().iter().map(cell).collect::<Result<Vec<_>, _>>()?.join("|"));
        }
    }
    rows.sort();
    Ok(rows)
}
