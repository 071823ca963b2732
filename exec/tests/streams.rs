//! Queries whose rows leave while they run: the same rows as when all are kept, in parts, and no more work than somebody takes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType as Arrow, Int64Type};
use rayon::{ThreadPool, ThreadPoolBuilder};
use stoa_columnstore::{BitmapIndex, ColumnDef, Database, Options, Table, TableDef};
use stoa_exec::{
    CancelToken, Error, Fragment, Fragments, LeafRows, MemoryBudget, Profile, Progress, QueryContext, ReadLeaves, Received,
    Result, Settings, Storage, TakeRows, execute, execute_fragment, execute_on_leaves, stream_on_leaves, stream_query,
};
use stoa_plan::distribute::{Net, distribute, distribute_over_leaves};
use stoa_plan::{BinaryOp, ColumnId, DataType, Expr, Field, Literal, Node, Plan, Query, Scan, ScanColumn, SortKey, Value};

const ROWS: i64 = 300_000;
const PART: usize = 1000;

struct Stored(Arc<Database>, #[allow(dead_code, reason = "it is removed when this is dropped")] tempfile::TempDir);

impl Storage for Stored {
    fn table(&self, name: &str) -> Result<Arc<Table>> {
        self.0.table(name).ok_or_else(|| Error::User(format!("no table {name}")))
    }
}

/// A table `t` with these values of `a`, and `b` = `a` % 1000.
fn stored(values: impl Iterator<Item = i64>) -> Stored {
    let folder = tempfile::tempdir().expect("folder");
    let database = Database::open(folder.path(), Options { fsync: false, ..Options::default() }).expect("open");
    let column = |name: &str| ColumnDef {
        name: name.into(),
        ty: Arrow::Int64,
        nullable: false,
        bitmap_index: BitmapIndex::Auto,
        sql_type: String::new(),
    };
    let columns = vec![column("a"), column("b")];
    let def = TableDef { name: "t".into(), columns, shard_key: vec![0], partitions: 2, ..TableDef::default() };
    let schema = def.schema();
    database.create_table(def).expect("create");
    let mut writer = database.writer("t").expect("writer");
    let values: Vec<i64> = values.collect();
    for values in values.chunks(10_000) {
        let columns: [ArrayRef; 2] = [
            Arc::new(Int64Array::from_iter_values(values.iter().copied())),
            Arc::new(Int64Array::from_iter_values(values.iter().map(|a| a % 1000))),
        ];
        writer.push(&RecordBatch::try_new(schema.clone(), columns.to_vec()).expect("batch")).expect("push");
    }
    writer.finish().expect("finish");
    Stored(database, folder)
}

fn context() -> QueryContext {
    QueryContext { settings: Settings::default(), cancel: CancelToken::default(), memory: MemoryBudget::new(1 << 30) }
}

fn pool() -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(2).build().expect("threads")
}

fn field(id: u32, name: &str) -> Field {
    Field { id: ColumnId(id), name: name.into(), ty: DataType::Int64, nullable: false }
}

fn scan(first: u32) -> Plan {
    let column = |(ordinal, name): (u32, &&str)| ScanColumn { ordinal, field: field(first + ordinal, name) };
    Plan::new(Node::Scan(Scan {
        table: "t".into(),
        columns: (0..).zip(&["a", "b"]).map(column).collect(),
        filters: vec![],
        filter_columns: vec![],
        runtime_filters: vec![],
        reference: false,
        shard_key: vec![0],
        revision: 0,
    }))
}

fn col(id: u32) -> Expr {
    Expr::Column(ColumnId(id), DataType::Int64)
}

fn binary(op: BinaryOp, ty: DataType, left: Expr, right: i64) -> Expr {
    let right = Expr::Literal(Literal { ty: DataType::Int64, value: Value::Int(right) });
    Expr::Binary { op, left: Box::new(left), right: Box::new(right), ty }
}

fn limit(input: Plan, fetch: u64, skip: u64) -> Plan {
    Plan::new(Node::Limit { input: Box::new(input), fetch: Some(fetch), skip })
}

fn filter(input: Plan, id: u32, below: i64) -> Plan {
    let predicate = binary(BinaryOp::Lt, DataType::Bool, col(id), below);
    Plan::new(Node::Filter { input: Box::new(input), predicate })
}

fn plus(input: Plan, id: u32, to: u32) -> Plan {
    let exprs = vec![(field(to, "plus"), binary(BinaryOp::Add, DataType::Int64, col(id), 5)), (field(to + 1, "b"), col(id + 1))];
    Plan::new(Node::Project { input: Box::new(input), exprs })
}

/// By the second column, then by the first.
fn sort(input: Plan, first: u32, descending: bool, fetch: Option<u64>, skip: u64) -> Plan {
    let key = |id, descending| SortKey { expr: col(id), descending, nulls_first: false };
    Plan::new(Node::Sort { input: Box::new(input), keys: vec![key(first + 1, descending), key(first, false)], fetch, skip })
}

fn union(inputs: Vec<(Plan, u32)>, to: u32) -> Plan {
    let inputs = inputs.into_iter().map(|(plan, first)| (plan, vec![ColumnId(first), ColumnId(first + 1)])).collect();
    Plan::new(Node::Union { inputs, fields: vec![field(to, "x"), field(to + 1, "y")] })
}

fn query(root: Plan) -> Query {
    Query { subplans: vec![], output: root.fields(), root }
}

fn rows(batches: &[RecordBatch]) -> Vec<(i64, i64)> {
    let columns = |b: &RecordBatch| -> Vec<(i64, i64)> {
        let [a, b] = [0, 1].map(|i| b.column(i).as_primitive::<Int64Type>().values().to_vec());
        a.into_iter().zip(b).collect()
    };
    batches.iter().flat_map(columns).collect()
}

fn sorted(mut rows: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    rows.sort_unstable();
    rows
}

/// Leaves in this process. They count the parts that are taken of them.
struct Leaves {
    leaves: Vec<Stored>,
    taken: AtomicUsize,
}

impl Leaves {
    /// The parts of the rows of each leaf.
    fn parts(&self, fragment: &Fragment, ctx: &QueryContext) -> Result<Vec<VecDeque<RecordBatch>>> {
        let one = |leaf: &Stored| {
            let batches = execute_fragment(&fragment.query, leaf, &Received::default(), ctx)?.batches;
            let cut = |b: RecordBatch| {
                let rows = b.num_rows();
                (0..rows).step_by(PART).map(move |at| b.slice(at, PART.min(rows - at))).collect::<Vec<_>>()
            };
            Ok(batches.into_iter().flat_map(cut).collect())
        };
        self.leaves.iter().map(one).collect()
    }
}

struct Reader<'a>(&'a Leaves, Vec<VecDeque<RecordBatch>>);

impl LeafRows for Reader<'_> {
    fn leaves(&self) -> usize {
        self.1.len()
    }

    fn next(&mut self, leaf: usize) -> Result<Option<Vec<RecordBatch>>> {
        self.0.taken.fetch_add(1, Ordering::Relaxed);
        Ok(self.1[leaf].pop_front().map(|batch| vec![batch]))
    }
}

impl Fragments for Leaves {
    fn run(&self, fragment: &Fragment, ctx: &QueryContext) -> Result<(Vec<Vec<RecordBatch>>, Profile)> {
        let parts = self.parts(fragment, ctx)?;
        Ok((parts.into_iter().map(|parts| parts.into_iter().collect()).collect(), Profile::default()))
    }

    fn stream(&self, fragment: &Fragment, ctx: &QueryContext, each: &mut TakeRows<'_>) -> Result<Profile> {
        for part in self.parts(fragment, ctx)?.into_iter().flatten() {
            self.taken.fetch_add(1, Ordering::Relaxed);
            if !each(vec![part])? {
                break;
            }
        }
        Ok(Profile::default())
    }

    fn pull(&self, fragment: &Fragment, ctx: &QueryContext, read: &mut ReadLeaves<'_>) -> Result<Profile> {
        read(&mut Reader(self, self.parts(fragment, ctx)?))?;
        Ok(Profile::default())
    }

    fn give(&self, _: u32, _: &[RecordBatch], _: &QueryContext) -> Result<()> {
        Err(Error::Internal("nothing is given".into()))
    }
}

fn leaves() -> Leaves {
    let leaf = |n: i64| stored((0..ROWS / 3).map(move |i| i * 3 + n));
    Leaves { leaves: vec![leaf(0), leaf(1), leaf(2)], taken: AtomicUsize::new(0) }
}

type Pairs = Vec<(i64, i64)>;

/// Runs a plan over leaves in both ways: all rows at once, and those that came in parts with how many parts.
fn both(leaves: &Leaves, plan: &Plan) -> (Pairs, Pairs, usize) {
    let query = distribute_over_leaves(query(plan.clone()), Net { leaves: 3, always_shuffle: false });
    let kept = execute_on_leaves(&query, leaves, &context(), &Progress::default()).expect("kept");
    let (mut got, mut parts) = (vec![], 0);
    let mut take = |schema: &arrow::datatypes::SchemaRef, batches: Vec<RecordBatch>| {
        assert_eq!(schema.fields().len(), 2);
        assert!(batches.iter().all(|batch| batch.schema() == *schema));
        parts += 1;
        got.extend(rows(&batches));
        Ok(())
    };
    stream_on_leaves(&query, leaves, &context(), &Progress::default(), &mut take).expect("streamed");
    (rows(&kept.batches), got, parts)
}

#[test]
fn rows_of_leaves_pass_through_projections_filters_and_unions() {
    let leaves = leaves();
    let all = plus(filter(scan(0), 0, 250_000), 0, 10);
    let twice = union(vec![(scan(0), 0), (plus(limit(scan(20), 5000, 100), 20, 30), 30), (scan(40), 40)], 50);
    for (plan, count) in [(all, 250_000), (twice, 2 * ROWS as usize + 5000)] {
        let (kept, got, parts) = both(&leaves, &plan);
        assert!(got.len() == count && parts > 10, "{} rows in {parts} parts", got.len());
        // Which rows a limit lets pass is open.
        let pairs = |rows: &[(i64, i64)]| rows.iter().filter(|(a, b)| a % 1000 == *b).count();
        assert!(count != 250_000 || sorted(got.clone()) == sorted(kept.clone()));
        assert_eq!(pairs(&got), pairs(&kept));
    }
    // Few rows come at once, with what is known of their columns.
    let (kept, got, parts) = both(&leaves, &filter(scan(0), 0, 10));
    assert_eq!((parts, sorted(got)), (1, sorted(kept)));
}

#[test]
fn sorted_rows_of_leaves_are_merged_as_they_come() {
    let leaves = leaves();
    for descending in [false, true] {
        for (fetch, skip) in [(None, 0), (Some(123_456), 0), (Some(7), 90_001), (None, 299_990), (Some(0), 0)] {
            let (kept, got, _) = both(&leaves, &sort(scan(0), 0, descending, fetch, skip));
            assert!(kept == got, "{} rows for {}: {fetch:?} {skip}", got.len(), kept.len());
        }
    }
    let (kept, got, parts) = both(&leaves, &limit(plus(sort(scan(0), 0, true, None, 0), 0, 10), 100_000, 50));
    assert!(kept == got && got.len() == 100_000 && parts > 1, "{} rows in {parts} parts", got.len());
    // A merge reads no further than it must.
    leaves.taken.store(0, Ordering::Relaxed);
    let (_, got, _) = both(&leaves, &limit(sort(scan(0), 0, false, None, 0), 10, 0));
    let taken = leaves.taken.load(Ordering::Relaxed);
    assert!(got.len() == 10 && taken <= 6, "{taken} parts were read");
}

#[test]
fn a_limit_takes_no_more_parts_than_it_needs() {
    let leaves = leaves();
    for (fetch, skip, most) in [(0, 0, 0), (10, 0, 1), (2500, 0, 3), (1000, 1500, 3)] {
        leaves.taken.store(0, Ordering::Relaxed);
        // The filter keeps the limit above the gather.
        let plan = limit(filter(limit(scan(0), 100_000, 0), 0, ROWS), fetch, skip);
        let (kept, got, _) = both(&leaves, &plan);
        let taken = leaves.taken.load(Ordering::Relaxed);
        assert!(got.len() == fetch as usize && kept.len() == got.len() && taken <= most, "{taken} parts for {fetch} {skip}");
    }
}

#[test]
fn who_refuses_rows_ends_the_query() {
    let leaves = leaves();
    let query_of = |plan: Plan| distribute_over_leaves(query(plan), Net { leaves: 3, always_shuffle: false });
    for plan in [scan(0), sort(scan(0), 0, false, None, 0)] {
        let mut refuse = |_: &_, _| Err(Error::User("enough".into()));
        let ran = stream_on_leaves(&query_of(plan), &leaves, &context(), &Progress::default(), &mut refuse);
        assert!(matches!(ran, Err(Error::User(why)) if why == "enough"));
    }
}

/// In one process too rows are there before all are made, and memory holds no more than a round of them.
#[test]
fn rows_of_one_process_leave_in_rounds() {
    let (storage, pool) = (stored(0..2_000_000), pool());
    for (plan, count) in
        [(scan(0), 2_000_000), (plus(limit(scan(0), 1_500_000, 10), 0, 10), 1_500_000), (limit(scan(0), 3, 0), 3)]
    {
        let query = distribute(query(plan));
        let (mut got, mut parts) = (vec![], 0);
        let mut context = context();
        context.memory = MemoryBudget::new(28 << 20);
        let mut take = |_: &_, batches: Vec<RecordBatch>| {
            parts += 1;
            got.extend(rows(&batches));
            Ok(())
        };
        stream_query(&query, &storage, &context, &Progress::default(), &pool, &mut take).expect("streamed");
        assert!(got.len() == count && (count == 3 || parts > 2), "{} rows in {parts} parts", got.len());
        got.sort_unstable();
        got.dedup();
        assert_eq!(got.len(), count);
        if count == 2_000_000 {
            assert!(matches!(execute(&query, &storage, &context), Err(Error::Memory { .. })));
        }
    }
}
