//! Joins of every kind against a nested loop, over random rows with NULLs and duplicates, under hostile settings.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Array, Int64Array, StringViewArray};
use stoa_plan::{BinaryOp, ColumnId, DataType, Expr, Field, Join, JoinKind, Node, Plan, Side, SubplanScan};

use crate::executor::{Executor, Rows, Scope, layout_of};
use crate::profile::Progress;
use crate::{Batch, CancelToken, Error, MemoryBudget, QueryContext, Result, Settings};

struct NoTables;

impl crate::Storage for NoTables {
    fn table(&self, name: &str) -> Result<Arc<stoa_columnstore::Table>> {
        Err(Error::Internal(format!("no table {name}")))
    }
}

/// A row: two keys and a string key, all with NULLs, and a payload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    a: Option<i64>,
    b: Option<i32>,
    s: Option<String>,
    payload: i64,
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

fn rows(random: &mut Random, count: usize, distinct: u64, step: i64) -> Vec<Row> {
    let mut rows = Vec::new();
    for payload in 0..count as i64 {
        let k = random.below(distinct) as i64;
        let a = (random.below(10) > 0).then_some(k * step - 3);
        let b = (random.below(12) > 0).then_some(random.below(4) as i32);
        let s = (random.below(10) > 0).then(|| format!("string number {}", random.below(distinct)));
        rows.push(Row { a, b, s, payload });
    }
    rows
}

fn fields(first: u32) -> Vec<Field> {
    let field = |i: u32, name: &str, ty, nullable| Field { id: ColumnId(first + i), name: name.into(), ty, nullable };
    vec![
        field(0, "a", DataType::Int64, true),
        field(1, "b", DataType::Int32, true),
        field(2, "s", DataType::Utf8, true),
        field(3, "payload", DataType::Int64, false),
    ]
}

fn batches(rows: &[Row], size: usize) -> Vec<Batch> {
    let batch = |rows: &[Row]| {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|r| r.a).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|r| r.b).collect::<Int32Array>()),
            Arc::new(rows.iter().map(|r| r.s.as_deref()).collect::<StringViewArray>()),
            Arc::new(rows.iter().map(|r| Some(r.payload)).collect::<Int64Array>()),
        ];
        Batch { columns, rows: rows.len() }
    };
    rows.chunks(size).map(batch).collect()
}

fn scan(number: u32, first: u32) -> Plan {
    let columns = fields(first).into_iter().map(|f| (f.id, f)).collect();
    Plan::new(Node::SubplanScan(SubplanScan { subplan: number, columns }))
}

fn column(first: u32, i: u32) -> Expr {
    let field = &fields(first)[i as usize];
    Expr::Column(field.id, field.ty)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Keys {
    A,
    AB,
    S,
    SA,
    None,
}

impl Keys {
    fn on(self) -> Vec<u32> {
        match self {
            Keys::A => vec![0],
            Keys::AB => vec![0, 1],
            Keys::S => vec![2],
            Keys::SA => vec![2, 0],
            Keys::None => vec![],
        }
    }

    /// True, false or unknown.
    fn matches(self, l: &Row, r: &Row, null_equals_null: bool) -> bool {
        let eq = |same: bool, null: bool, both: bool| if null { null_equals_null && both } else { same };
        self.on().iter().all(|k| match k {
            0 => eq(l.a == r.a, l.a.is_none() || r.a.is_none(), l.a.is_none() && r.a.is_none()),
            1 => eq(l.b == r.b, l.b.is_none() || r.b.is_none(), l.b.is_none() && r.b.is_none()),
            _ => eq(l.s == r.s, l.s.is_none() || r.s.is_none(), l.s.is_none() && r.s.is_none()),
        })
    }
}

/// The condition besides the equalities.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Other {
    None,
    /// `l.payload % 1000 < r.payload % 1000 + 7`.
    Sum,
    /// `l.b op r.b`.
    Left(BinaryOp),
    /// `r.b op l.b`.
    Right(BinaryOp),
}

impl Other {
    fn holds(self, l: &Row, r: &Row) -> bool {
        let compare = |op, x: Option<i32>, y: Option<i32>| match (x, y, op) {
            (None, ..) | (_, None, _) => false,
            (x, y, BinaryOp::NotEq) => x != y,
            (x, y, BinaryOp::Lt) => x < y,
            (x, y, BinaryOp::LtEq) => x <= y,
            (x, y, BinaryOp::Gt) => x > y,
            (x, y, BinaryOp::GtEq) => x >= y,
            (_, _, op) => panic!("{op:?}"),
        };
        match self {
            Other::None => true,
            Other::Sum => l.payload % 1000 < r.payload % 1000 + 7,
            Other::Left(op) => compare(op, l.b, r.b),
            Other::Right(op) => compare(op, r.b, l.b),
        }
    }

    fn expr(self) -> Option<Expr> {
        let ty = DataType::Int64;
        let literal = |v: i64| Expr::Literal(stoa_plan::Literal { ty, value: stoa_plan::Value::Int(v) });
        let binary = |op, l: Expr, r: Expr, ty| Expr::Binary { op, left: Box::new(l), right: Box::new(r), ty };
        let modulo = |e: Expr| binary(BinaryOp::Mod, e, literal(1000), ty);
        Some(match self {
            Other::None => return None,
            Other::Sum => {
                let right = binary(BinaryOp::Add, modulo(column(10, 3)), literal(7), ty);
                binary(BinaryOp::Lt, modulo(column(0, 3)), right, DataType::Bool)
            }
            Other::Left(op) => binary(op, column(0, 1), column(10, 1), DataType::Bool),
            Other::Right(op) => binary(op, column(10, 1), column(0, 1), DataType::Bool),
        })
    }
}

struct Case {
    kind: JoinKind,
    build: Side,
    keys: Keys,
    residual: Other,
    null_equals_null: bool,
}

type Line = Vec<Option<i64>>;

fn expected(case: &Case, left: &[Row], right: &[Row]) -> Vec<Line> {
    let holds = |l: &Row, r: &Row| case.keys.matches(l, r, case.null_equals_null) && case.residual.holds(l, r);
    let any_l = |l: &Row| right.iter().any(|r| holds(l, r));
    let any_r = |r: &Row| left.iter().any(|l| holds(l, r));
    let mut out: Vec<Line> = Vec::new();
    let pairs = matches!(case.kind, JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full);
    if pairs {
        for l in left {
            out.extend(right.iter().filter(|r| holds(l, r)).map(|r| vec![Some(l.payload), Some(r.payload)]));
        }
    }
    for l in left {
        match &case.kind {
            JoinKind::Left | JoinKind::Full if !any_l(l) => out.push(vec![Some(l.payload), None]),
            JoinKind::LeftSemi if any_l(l) => out.push(vec![Some(l.payload)]),
            JoinKind::LeftAnti if !any_l(l) => out.push(vec![Some(l.payload)]),
            JoinKind::LeftMark(mark) => {
                let null = l.a.is_none() || right.iter().any(|r| r.a.is_none());
                let mark = if any_l(l) {
                    Some(1)
                } else if mark.nullable && null && !right.is_empty() {
                    None
                } else {
                    Some(0)
                };
                out.push(vec![Some(l.payload), mark]);
            }
            _ => {}
        }
    }
    for r in right {
        match &case.kind {
            JoinKind::Right | JoinKind::Full if !any_r(r) => out.push(vec![None, Some(r.payload)]),
            JoinKind::RightSemi if any_r(r) => out.push(vec![Some(r.payload)]),
            JoinKind::RightAnti if !any_r(r) => out.push(vec![Some(r.payload)]),
            _ => {}
        }
    }
    out.sort();
    out
}

fn plan(case: &Case) -> Plan {
    let on = case.keys.on().iter().map(|k| (column(0, *k), column(10, *k))).collect();
    let residual = case.residual.expr();
    Plan::new(Node::Join(Box::new(Join {
        kind: case.kind.clone(),
        left: scan(0, 0),
        right: scan(1, 10),
        on,
        null_equals_null: case.null_equals_null,
        residual,
        build: case.build,
        publishes: vec![],
    })))
}

/// Runs a join: its rows, the columns of a line, and what it tells of itself.
fn run(case: &Case, left: &[Row], right: &[Row], settings: &Settings, size: usize) -> Result<(Rows, Vec<ColumnId>, Vec<String>)> {
    let ctx = QueryContext { settings: settings.clone(), cancel: CancelToken::default(), memory: MemoryBudget::new(1 << 30) };
    let mut exec = Executor::new(&NoTables, &ctx, Progress::default());
    for (number, rows, first) in [(0, left, 0), (1, right, 10)] {
        let layout = layout_of(&fields(first), &[]);
        exec.shared.insert(number, Rows { layout, batches: batches(rows, size), reservations: vec![] });
    }
    let plan = plan(case);
    let wanted: Vec<ColumnId> = plan.fields().iter().filter(|f| f.name == "payload" || f.name == "mark").map(|f| f.id).collect();
    exec.required.add(&plan, wanted.iter().copied().collect());
    let rows = exec.collect(&plan, &Scope::default(), "test")?;
    let described = exec.recorder.finish(std::time::Duration::ZERO, 0).lines(plan.id);
    Ok((rows, wanted, described))
}

fn descriptions(case: &Case, left: &[Row], right: &[Row], settings: &Settings) -> String {
    run(case, left, right, settings, 64).expect("join").2.join("\n")
}

fn actual(case: &Case, left: &[Row], right: &[Row], settings: &Settings, size: usize) -> Result<Vec<Line>> {
    let (rows, wanted, _) = run(case, left, right, settings, size)?;
    let mut out = Vec::new();
    for batch in &rows.batches {
        assert!(batch.rows > 0);
        for i in 0..batch.rows {
            let value = |id: &ColumnId| {
                let column = &batch.columns[rows.layout.position(*id).expect("column")];
                assert_eq!(column.len(), batch.rows);
                let column = arrow::compute::cast(column, &arrow::datatypes::DataType::Int64).expect("cast");
                let column = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&column).clone();
                column.is_valid(i).then(|| column.value(i))
            };
            out.push(wanted.iter().map(value).collect());
        }
    }
    out.sort();
    Ok(out)
}

fn kinds() -> Vec<JoinKind> {
    let mark = |nullable| JoinKind::LeftMark(Field { id: ColumnId(99), name: "mark".into(), ty: DataType::Bool, nullable });
    vec![
        JoinKind::Inner,
        JoinKind::Left,
        JoinKind::Right,
        JoinKind::Full,
        JoinKind::LeftSemi,
        JoinKind::LeftAnti,
        JoinKind::RightSemi,
        JoinKind::RightAnti,
        mark(false),
        mark(true),
    ]
}

/// Build sides, residuals, and whether NULLs are equal.
fn shapes() -> Vec<(Side, Other, bool)> {
    let mut shapes = Vec::new();
    for side in [Side::Left, Side::Right] {
        shapes.extend([(side, Other::None, false), (side, Other::Sum, false), (side, Other::None, true)]);
        for op in [BinaryOp::NotEq, BinaryOp::Lt, BinaryOp::LtEq, BinaryOp::Gt, BinaryOp::GtEq] {
            shapes.extend([(side, Other::Left(op), op == BinaryOp::Lt), (side, Other::Right(op), false)]);
        }
    }
    shapes
}

fn check_all(settings: &Settings, sizes: (usize, usize), size: usize, seed: u64) {
    for (keys, distinct, step) in [
        (Keys::A, 40, 1),
        (Keys::A, 40, 5003),
        (Keys::A, 40, 1_000_000_007),
        (Keys::A, 1_000_000, 1),
        (Keys::AB, 20, 1),
        (Keys::S, 30, 1),
        (Keys::SA, 8, 1),
        (Keys::None, 10, 1),
    ] {
        let mut random = Random(seed + distinct);
        let left = rows(&mut random, sizes.0, distinct, step);
        let right = rows(&mut random, sizes.1, distinct, step);
        for kind in kinds() {
            for (build, residual, null_equals_null) in shapes() {
                let nullable_mark = matches!(&kind, JoinKind::LeftMark(m) if m.nullable);
                if nullable_mark && (keys != Keys::A || residual != Other::None || null_equals_null) {
                    continue;
                }
                let case = Case { kind: kind.clone(), build, keys, residual, null_equals_null };
                let got = actual(&case, &left, &right, settings, size).expect("join");
                let want = expected(&case, &left, &right);
                assert!(
                    got == want,
                    "{kind:?} build {build:?} {keys:?} residual {residual:?} nulls equal {null_equals_null} {settings:?}\n{} rows for {}",
                    got.len(),
                    want.len()
                );
            }
        }
    }
}

#[test]
fn every_kind_as_a_nested_loop() {
    check_all(&Settings::default(), (150, 120), 50, 1);
}

#[test]
fn every_kind_with_empty_sides() {
    for sizes in [(0, 30), (30, 0), (0, 0), (1, 1)] {
        check_all(&Settings::default(), sizes, 7, 2);
    }
}

#[test]
fn every_kind_with_tiny_batches() {
    check_all(&Settings { vector_size: 1, ..Settings::default() }, (40, 50), 3, 3);
    check_all(&Settings { vector_size: 2, ..Settings::default() }, (50, 40), 8, 4);
}

#[test]
fn every_kind_with_equal_hashes() {
    check_all(&Settings { hash_zero: true, ..Settings::default() }, (60, 70), 20, 5);
    check_all(&Settings { no_fast_paths: true, ..Settings::default() }, (60, 70), 20, 6);
}

#[test]
fn large_sides_in_parallel() {
    let mut random = Random(7);
    let left = rows(&mut random, 60_000, 200_000, 1);
    let right = rows(&mut random, 2_000, 200_000, 1);
    for build in [Side::Left, Side::Right] {
        for kind in [JoinKind::Left, JoinKind::RightSemi, JoinKind::LeftAnti, JoinKind::Inner] {
            let case = Case { kind, build, keys: Keys::A, residual: Other::None, null_equals_null: false };
            let got = actual(&case, &left, &right, &Settings::default(), 5000).expect("join");
            assert!(!got.is_empty());
            let small = Settings { vector_size: 100, ..Settings::default() };
            assert!(got == actual(&case, &left, &right, &small, 60_000).expect("join"));
        }
    }
}

#[test]
fn semi_joins_keep_members_or_extremes() {
    let mut random = Random(8);
    let (left, right) = (rows(&mut random, 300, 100, 1), rows(&mut random, 500, 100, 1));
    for (residual, members, extremes) in [(Other::None, 1, 0), (Other::Left(BinaryOp::NotEq), 0, 1), (Other::Sum, 0, 0)] {
        for kind in [JoinKind::LeftSemi, JoinKind::LeftAnti] {
            let case = Case { kind, build: Side::Right, keys: Keys::A, residual, null_equals_null: false };
            let described = descriptions(&case, &left, &right, &Settings::default());
            assert_eq!(described.matches("members by").count(), members, "{described}");
            assert_eq!(described.matches("smallest and largest").count(), extremes, "{described}");
            let slow = Settings { no_fast_paths: true, ..Settings::default() };
            assert!(descriptions(&case, &left, &right, &slow).contains("hash join"));
        }
    }
}

#[test]
fn keys_too_sparse_for_an_array_are_ranked() {
    for (distinct, step, unique) in [(1_000_000, 1, true), (40, 5003, false)] {
        let mut random = Random(9);
        let (left, right) = (rows(&mut random, 90, distinct, step), rows(&mut random, 100, distinct, step));
        let case =
            Case { kind: JoinKind::Inner, build: Side::Right, keys: Keys::A, residual: Other::None, null_equals_null: false };
        let described = descriptions(&case, &left, &right, &Settings::default());
        assert!(described.contains("by rank"), "{described}");
        assert_eq!(described.contains("unique"), unique, "{described}");
    }
}
