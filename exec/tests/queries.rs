//! Whole queries over stored tables: the same answers as plain loops over the rows, however the tables are cut and batched.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal64Array, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType as Arrow, Int64Type};
use stoa_columnstore::{BitmapIndex, ColumnDef, Database, Options, Table, TableDef};
use stoa_exec::{
    CancelToken, Error, MemoryBudget, Progress, QueryContext, QueryResult, Received, Result, Settings, Storage, execute,
    execute_fragment, stream_fragment,
};
use stoa_plan::{
    Aggregate, AggregateCall, AggregateFunction, BinaryOp, ColumnId, DataType, Expr, Field, Join, JoinKind, Literal, Node, Phase,
    Plan, Query, Scan, ScanColumn, Side, SortKey, SubplanKind, Value, distribute,
};

struct Stored(Arc<Database>);

impl Storage for Stored {
    fn table(&self, name: &str) -> Result<Arc<Table>> {
        self.0.table(name).ok_or_else(|| Error::User(format!("no table {name}")))
    }
}

#[derive(Clone, Debug)]
struct Row {
    id: i64,
    group: Option<String>,
    value: Option<i64>,
    other: i64,
}

fn rows(count: i64) -> Vec<Row> {
    let mut state = 1u64;
    let mut next = |n: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % n
    };
    (0..count)
        .map(|id| Row {
            id,
            group: (next(20) > 0).then(|| format!("group {}", next(7))),
            value: (next(15) > 0).then(|| next(1000) as i64 - 500),
            other: next(count as u64 / 3 + 1) as i64,
        })
        .collect()
}

fn column(name: &str, ty: Arrow, nullable: bool) -> ColumnDef {
    ColumnDef { name: name.into(), ty, nullable, bitmap_index: BitmapIndex::Auto, sql_type: String::new() }
}

fn store(database: &Arc<Database>, name: &str, rows: &[Row], partitions: u32) {
    let columns = vec![
        column("id", Arrow::Int64, false),
        column("g", Arrow::Utf8View, true),
        column("v", Arrow::Decimal64(12, 2), true),
        column("o", Arrow::Int64, false),
    ];
    let def = TableDef { name: name.into(), columns, shard_key: vec![0], partitions, ..TableDef::default() };
    let schema = def.schema();
    database.create_table(def).expect("create");
    let mut writer = database.writer(name).expect("writer");
    for rows in rows.chunks(1500) {
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|r| Some(r.id)).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|r| r.group.as_deref()).collect::<StringViewArray>()),
            Arc::new(rows.iter().map(|r| r.value).collect::<Decimal64Array>().with_precision_and_scale(12, 2).expect("decimal")),
            Arc::new(rows.iter().map(|r| Some(r.other)).collect::<Int64Array>()),
        ];
        writer.push(&RecordBatch::try_new(schema.clone(), arrays).expect("batch")).expect("push");
    }
    writer.finish().expect("finish");
}

const DECIMAL: DataType = DataType::Decimal { precision: 12, scale: 2 };

fn fields(first: u32) -> Vec<Field> {
    let field = |i: u32, name: &str, ty, nullable| Field { id: ColumnId(first + i), name: name.into(), ty, nullable };
    vec![
        field(0, "id", DataType::Int64, false),
        field(1, "g", DataType::Utf8, true),
        field(2, "v", DECIMAL, true),
        field(3, "o", DataType::Int64, false),
    ]
}

fn scan(table: &str, first: u32, filters: Vec<Expr>) -> Plan {
    let columns = fields(first).into_iter().enumerate().map(|(i, field)| ScanColumn { ordinal: i as u32, field }).collect();
    Plan::new(Node::Scan(Scan {
        table: table.into(),
        columns,
        filters,
        filter_columns: vec![],
        runtime_filters: vec![],
        reference: false,
        shard_key: vec![0],
        revision: 0,
    }))
}

fn col(first: u32, i: u32) -> Expr {
    let field = &fields(first)[i as usize];
    Expr::Column(field.id, field.ty)
}

fn int(v: i64) -> Expr {
    Expr::Literal(Literal { ty: DataType::Int64, value: Value::Int(v) })
}

fn compare(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    Expr::Binary { op, left: Box::new(left), right: Box::new(right), ty: DataType::Bool }
}

fn context(vector_size: usize) -> QueryContext {
    let settings = Settings { vector_size, ..Settings::default() };
    QueryContext { settings, cancel: CancelToken::default(), memory: MemoryBudget::new(1 << 30) }
}

fn query(root: Plan) -> Query {
    let output = root.fields();
    Query { subplans: vec![], root, output }
}

fn ints(result: &QueryResult, i: usize) -> Vec<Option<i64>> {
    let mut all = Vec::new();
    for batch in &result.batches {
        let column = batch.column(i);
        let column = match column.data_type() {
            Arrow::Decimal64(..) => {
                Arc::new(column.as_primitive::<arrow::datatypes::Decimal64Type>().reinterpret_cast::<Int64Type>())
            }
            _ => arrow::compute::cast(column, &Arrow::Int64).expect("ints"),
        };
        let column = column.as_primitive::<Int64Type>();
        all.extend((0..column.len()).map(|r| column.is_valid(r).then(|| column.value(r))));
    }
    all
}

fn strings(result: &QueryResult, i: usize) -> Vec<Option<String>> {
    let mut all = Vec::new();
    for batch in &result.batches {
        all.extend(batch.column(i).as_string_view().iter().map(|s| s.map(str::to_owned)));
    }
    all
}

/// Runs a test with one and several partitions, small and large segments, and batches of several sizes.
fn everywhere(rows: &[Row], check: impl Fn(&dyn Fn(Query) -> QueryResult)) {
    for (partitions, segment_rows) in [(1, 1 << 20), (3, 3000), (2, 64)] {
        let folder = tempfile::tempdir().expect("folder");
        let options = Options { segment_rows, fsync: false, ..Options::default() };
        let database = Database::open(folder.path(), options).expect("open");
        store(&database, "t", rows, partitions);
        store(&database, "u", &rows[..rows.len() / 2], partitions);
        let storage = Stored(database);
        for vector_size in [4096, 2, 100] {
            let context = context(vector_size);
            check(&|query| execute(&distribute::distribute(query), &storage, &context).expect("query"));
        }
    }
}

#[test]
fn scans_filter_and_project() {
    let rows = rows(20_000);
    everywhere(&rows, |run| {
        let filters = vec![
            compare(BinaryOp::Lt, col(0, 0), int(15_000)),
            compare(BinaryOp::GtEq, col(0, 3), int(900)),
            // Reads two columns: not for one column alone to decide.
            compare(BinaryOp::Lt, col(0, 3), col(0, 0)),
        ];
        let result = run(query(scan("t", 0, filters)));
        let mut got = ints(&result, 0);
        got.sort();
        let want: Vec<_> =
            rows.iter().filter(|r| r.id < 15_000 && r.other >= 900 && r.other < r.id).map(|r| Some(r.id)).collect();
        assert!(got == want);
    });
}

#[test]
fn groups_are_summed() {
    let rows = rows(12_000);
    let mut want: BTreeMap<Option<String>, (Option<i64>, i64)> = BTreeMap::new();
    for row in &rows {
        let entry = want.entry(row.group.clone()).or_default();
        entry.1 += 1;
        if let Some(v) = row.value {
            entry.0 = Some(entry.0.unwrap_or(0) + v);
        }
    }
    everywhere(&rows, |run| {
        let key = Field { id: ColumnId(50), name: "g".into(), ty: DataType::Utf8, nullable: true };
        let call = |id, function, args, ty| {
            let field = Field { id: ColumnId(id), name: "x".into(), ty, nullable: true };
            (field, AggregateCall { function, args, distinct: false, filter: None, order_by: vec![], ty })
        };
        let sum = DataType::Decimal { precision: 38, scale: 2 };
        let aggregate = Plan::new(Node::Aggregate(Box::new(Aggregate {
            input: scan("t", 0, vec![]),
            keys: vec![(key.clone(), col(0, 1))],
            grouping_sets: vec![],
            grouping_id: None,
            calls: vec![
                call(51, AggregateFunction::Sum, vec![col(0, 2)], sum),
                call(52, AggregateFunction::Count, vec![], DataType::Int64),
            ],
            phase: Phase::Single,
        })));
        let sorted = Plan::new(Node::Sort {
            input: Box::new(aggregate),
            keys: vec![SortKey { expr: Expr::Column(key.id, key.ty), descending: false, nulls_first: true }],
            fetch: None,
            skip: 0,
        });
        let result = run(query(sorted));
        assert_eq!(strings(&result, 0), want.keys().cloned().collect::<Vec<_>>());
        let counts: Vec<_> = want.values().map(|w| Some(w.1)).collect();
        assert_eq!(ints(&result, 2), counts);
        let mut sums = Vec::new();
        for batch in &result.batches {
            let column = batch.column(1).as_primitive::<arrow::datatypes::Decimal128Type>();
            sums.extend(column.iter().map(|v| v.map(|v| v as i64)));
        }
        assert_eq!(sums, want.values().map(|w| w.0).collect::<Vec<_>>());
    });
}

#[test]
fn sorts_and_first_rows() {
    let rows = rows(9_000);
    let mut want: Vec<(Option<i64>, i64)> = rows.iter().map(|r| (r.value, r.id)).collect();
    // Descending, NULLs last; then by id.
    want.sort_by(|a, b| match (a.0, b.0) {
        (Some(x), Some(y)) => y.cmp(&x).then(a.1.cmp(&b.1)),
        (None, None) => a.1.cmp(&b.1),
        (x, _) => x.is_none().cmp(&true).reverse().then(std::cmp::Ordering::Less),
    });
    want.sort_by_key(|w| w.0.is_none());
    everywhere(&rows, |run| {
        for (fetch, skip) in [(None, 0), (Some(10), 0), (Some(100), 50), (Some(0), 0), (Some(100_000), 8990), (Some(5), 20_000)] {
            let sorted = Plan::new(Node::Sort {
                input: Box::new(scan("t", 0, vec![])),
                keys: vec![
                    SortKey { expr: col(0, 2), descending: true, nulls_first: false },
                    SortKey { expr: col(0, 0), descending: false, nulls_first: false },
                ],
                fetch,
                skip,
            });
            let result = run(query(sorted));
            let end = fetch.map_or(want.len(), |f| (f + skip) as usize).min(want.len());
            let want = want.get((skip as usize).min(end)..end).unwrap_or_default();
            assert_eq!(ints(&result, 0), want.iter().map(|w| Some(w.1)).collect::<Vec<_>>(), "{fetch:?} {skip}");
        }
    });
}

fn join(kind: JoinKind, build: Side) -> Plan {
    Plan::new(Node::Join(Box::new(Join {
        kind,
        left: scan("t", 0, vec![]),
        right: scan("u", 10, vec![compare(BinaryOp::Lt, col(10, 3), int(200))]),
        on: vec![(col(0, 3), col(10, 3))],
        null_equals_null: false,
        residual: None,
        build,
        publishes: vec![],
    })))
}

#[test]
fn joins_of_tables() {
    let rows = rows(4_000);
    let right: Vec<&Row> = rows[..rows.len() / 2].iter().filter(|r| r.other < 200).collect();
    let mut pairs = Vec::new();
    for l in &rows {
        pairs.extend(right.iter().filter(|r| r.other == l.other).map(|r| (Some(l.id), Some(r.id))));
    }
    pairs.sort();
    everywhere(&rows, |run| {
        for build in [Side::Left, Side::Right] {
            let result = run(query(join(JoinKind::Inner, build)));
            let mut got: Vec<_> = ints(&result, 0).into_iter().zip(ints(&result, 4)).collect();
            got.sort();
            assert!(got == pairs, "{} pairs for {}", got.len(), pairs.len());
            let mut semi = ints(&run(query(join(JoinKind::LeftSemi, build))), 0);
            semi.sort();
            let mut want: Vec<_> = pairs.iter().map(|p| p.0).collect();
            want.dedup();
            assert!(semi == want);
        }
    });
}

/// A join of a filtered `u` with `t` on `t.o = u.o` (dense) or `t.id = u.id`, whose keys filter the scan of `t`.
fn filtered_join(kind: JoinKind, on: u32, below: i64) -> Plan {
    let filter = stoa_plan::FilterId(3);
    let mut left = scan("t", 0, vec![]);
    if let Node::Scan(scan) = &mut left.node {
        scan.runtime_filters.push((filter, ColumnId(on)));
    }
    Plan::new(Node::Join(Box::new(Join {
        kind,
        left,
        right: scan("u", 10, vec![compare(BinaryOp::Lt, col(10, 3), int(below))]),
        on: vec![(col(0, on), col(10, on))],
        null_equals_null: false,
        residual: None,
        build: Side::Right,
        publishes: vec![(filter, 0)],
    })))
}

#[test]
fn runtime_filters_change_no_answer() {
    let rows = rows(6_000);
    everywhere(&rows, |run| {
        for (on, below) in [(3, 50), (0, 50), (0, -1), (3, 100_000)] {
            let key = |r: &Row| if on == 0 { r.id } else { r.other };
            let right: Vec<&Row> = rows[..rows.len() / 2].iter().filter(|r| r.other < below).collect();
            let keys: std::collections::BTreeSet<i64> = right.iter().map(|r| key(r)).collect();
            let want: Vec<_> = rows.iter().filter(|r| keys.contains(&key(r))).map(|r| Some(r.id)).collect();
            let result = run(query(filtered_join(JoinKind::LeftSemi, on, below)));
            let mut got = ints(&result, 0);
            got.sort();
            assert!(got == want, "{} rows for {}", got.len(), want.len());
            let mut anti = ints(&run(query(filtered_join(JoinKind::LeftAnti, on, below))), 0);
            anti.sort();
            assert_eq!(anti.len() + want.len(), rows.len());
            let mut left = ints(&run(query(filtered_join(JoinKind::Left, on, below))), 0);
            left.sort();
            left.dedup();
            assert_eq!(left.len(), rows.len());
        }
    });
}

#[test]
fn large_sorts_run_in_parallel() {
    let rows = rows(100_000);
    let folder = tempfile::tempdir().expect("folder");
    let database = Database::open(folder.path(), Options { fsync: false, ..Options::default() }).expect("open");
    store(&database, "t", &rows, 2);
    let keys = vec![
        SortKey { expr: col(0, 3), descending: true, nulls_first: false },
        SortKey { expr: col(0, 0), descending: false, nulls_first: false },
    ];
    let sort = Plan::new(Node::Sort { input: Box::new(scan("t", 0, vec![])), keys, fetch: None, skip: 0 });
    let result = execute(&distribute::distribute(query(sort)), &Stored(database), &context(4096)).expect("query");
    let mut want: Vec<(i64, i64)> = rows.iter().map(|r| (-r.other, r.id)).collect();
    want.sort();
    assert!(ints(&result, 0) == want.iter().map(|w| Some(w.1)).collect::<Vec<_>>());
}

#[test]
fn scalar_subqueries_and_limits() {
    let rows = rows(5_000);
    everywhere(&rows, |run| {
        let parameter = stoa_plan::ParameterId(1);
        let field = Field { id: ColumnId(70), name: "m".into(), ty: DataType::Int64, nullable: true };
        let call = AggregateCall {
            function: AggregateFunction::Max,
            args: vec![col(10, 0)],
            distinct: false,
            filter: None,
            order_by: vec![],
            ty: DataType::Int64,
        };
        let max = Plan::new(Node::Aggregate(Box::new(Aggregate {
            input: scan("u", 10, vec![]),
            keys: vec![],
            grouping_sets: vec![],
            grouping_id: None,
            calls: vec![(field, call)],
            phase: Phase::Single,
        })));
        let filter = compare(BinaryOp::Gt, col(0, 0), Expr::Parameter(parameter, DataType::Int64));
        let root = scan("t", 0, vec![filter]);
        let output = root.fields();
        let subplans = vec![stoa_plan::Subplan { kind: SubplanKind::Scalar(parameter), plan: max }];
        let result = run(Query { subplans, root, output });
        assert_eq!(ints(&result, 0).len(), 2500);
        let limit = Plan::new(Node::Limit { input: Box::new(scan("t", 0, vec![])), fetch: Some(17), skip: 5 });
        assert_eq!(ints(&run(query(limit)), 0).len(), 17);
    });
}

#[test]
fn limits_of_memory_and_cancellation() {
    let rows = rows(50_000);
    let folder = tempfile::tempdir().expect("folder");
    let database = Database::open(folder.path(), Options { fsync: false, ..Options::default() }).expect("open");
    store(&database, "t", &rows, 2);
    store(&database, "u", &rows, 2);
    let storage = Stored(database);
    let run = |plan, context: &QueryContext| execute(&distribute::distribute(query(plan)), &storage, context);
    let mut small = context(4096);
    small.memory = MemoryBudget::new(100_000);
    assert!(matches!(run(join(JoinKind::Inner, Side::Left), &small), Err(Error::Memory { .. })));
    let cancelled = context(4096);
    cancelled.cancel.cancel();
    assert!(matches!(run(scan("t", 0, vec![]), &cancelled), Err(Error::Cancelled)));
    let missing = run(scan("nothing", 0, vec![]), &context(4096));
    assert!(matches!(missing, Err(Error::User(_))));
}

/// The rows of a fragment leave while it runs: the same as if they were kept, and no more are made once nobody takes them.
#[test]
fn rows_leave_while_a_fragment_runs() {
    let rows = rows(300_000);
    let folder = tempfile::tempdir().expect("folder");
    let database = Database::open(folder.path(), Options { fsync: false, ..Options::default() }).expect("open");
    store(&database, "t", &rows, 3);
    store(&database, "u", &rows[..3000], 3);
    let (storage, received, context) = (Stored(database), Received::default(), context(4096));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
    let ids = |batches: &[RecordBatch]| -> Vec<i64> {
        batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    };
    let few = scan("t", 0, vec![compare(BinaryOp::Lt, col(0, 3), int(50))]);
    // The rows of `u` without a match come last.
    let tail = join(JoinKind::Right, Side::Right);
    let progress = Progress::default();
    for (plan, calls) in [(scan("t", 0, vec![]), 2), (few, 1), (join(JoinKind::Inner, Side::Left), 1), (tail, 1)] {
        let query = query(plan);
        let kept = execute_fragment(&query, &storage, &received, &context).expect("kept");
        let mut want = ids(&kept.batches);
        if matches!(query.root.node, Node::Scan(_)) {
            assert_eq!(kept.profile.nodes[&query.root.id.0].rows, want.len() as u64, "each row counts once");
        }
        let (mut got, mut called) = (vec![], 0);
        let mut each = |batches: &[RecordBatch]| {
            got.extend(ids(batches));
            called += 1;
            Ok(())
        };
        let before = progress.now();
        let profile = stream_fragment(&query, &storage, &received, &context, &progress, &pool, &mut each).expect("streamed");
        assert!(called >= calls && !profile.nodes.is_empty(), "{called} calls");
        let ((done, total), now) = (before, progress.now());
        assert!(now.0 > done && now.0 - done == now.1 - total, "all morsels are done: {before:?}, {now:?}");
        want.sort_unstable();
        got.sort_unstable();
        assert!(want == got, "{} rows for {}", got.len(), want.len());
    }
    let all = query(scan("t", 0, vec![]));
    let mut taken = 0;
    let mut refuse = |batches: &[RecordBatch]| {
        taken += ids(batches).len();
        Err(Error::User("enough".into()))
    };
    let refused = stream_fragment(&all, &storage, &received, &context, &progress, &pool, &mut refuse);
    assert!(matches!(refused, Err(Error::User(why)) if why == "enough") && taken < rows.len());
    let mut cancel = |_: &[RecordBatch]| {
        context.cancel.cancel();
        Ok(())
    };
    assert!(matches!(stream_fragment(&all, &storage, &received, &context, &progress, &pool, &mut cancel), Err(Error::Cancelled)));
}
