//! Aggregations: one state = merged states = serialized states, under every strategy, and right by a reference.

mod merges;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal64Array, DictionaryArray, Float64Array, Int64Array,
    StringViewArray, UInt32Array,
};
use arrow::datatypes::{Float64Type, UInt32Type};
use arrow::util::display::array_value_to_string;
use stoa_plan::{
    Aggregate, AggregateCall, AggregateFunction as F, BinaryOp, ColumnId, DataType, Expr, Field, Literal, Node, Phase, Plan,
    SortKey, Value, Values,
};

use super::{AggregateState, GroupedAggregation};
use crate::expression::Parameters;
use crate::{Batch, Bounds, CancelToken, Error, Layout, LayoutColumn, MemoryBudget, QueryContext, Settings};

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

const MONEY: DataType = DataType::Decimal { precision: 12, scale: 2 };
/// Two keys that pack, a key that does not, then values.
const TYPES: [DataType; 8] = [
    DataType::Utf8,
    DataType::Int64,
    DataType::Float64,
    MONEY,
    DataType::Float64,
    DataType::Utf8,
    DataType::Date,
    DataType::Bool,
];

fn column(id: usize) -> Expr {
    Expr::Column(ColumnId(id as u32), TYPES[id])
}

fn field(id: u32, ty: DataType) -> Field {
    Field { id: ColumnId(id), name: format!("c{id}"), ty, nullable: true }
}

fn layout(bounded: bool) -> Layout {
    let bounds = |ty| Bounds { range: (bounded && ty == DataType::Int64).then_some((-5, 60)) };
    let column = |(i, ty): (usize, &DataType)| LayoutColumn { field: field(i as u32, *ty), bounds: bounds(*ty) };
    Layout { columns: TYPES.iter().enumerate().map(column).collect() }
}

fn batches(random: &mut Random, count: usize) -> Vec<Batch> {
    let mut all = Vec::new();
    let words: Vec<String> = (0..40).map(|i| format!("{}word {i}", if i % 3 == 0 { "a rather long " } else { "" })).collect();
    let dictionary: ArrayRef = Arc::new(StringViewArray::from_iter_values(&words));
    for _ in 0..count {
        let rows = random.below(200) as usize;
        let mut ints = |n: u64, low: i64| -> Vec<Option<i64>> {
            (0..rows).map(|_| (random.below(9) > 0).then(|| random.below(n) as i64 + low)).collect()
        };
        let keys = ints(words.len() as u64, 0);
        let key: ArrayRef = if rows.is_multiple_of(2) {
            let codes: UInt32Array = keys.iter().map(|v| v.map(|v| v as u32)).collect();
            Arc::new(DictionaryArray::<UInt32Type>::new(codes, dictionary.clone()))
        } else {
            Arc::new(keys.iter().map(|v| v.map(|v| words[v as usize].as_str())).collect::<StringViewArray>())
        };
        let floats = |values: Vec<Option<i64>>| -> ArrayRef {
            Arc::new(values.into_iter().map(|v| v.map(|v| v as f64 / 4.0)).collect::<Float64Array>())
        };
        let columns: Vec<ArrayRef> = vec![
            key,
            Arc::new(Int64Array::from(ints(20, -5))),
            floats(ints(3, 0)),
            Arc::new(Decimal64Array::from(ints(100_000, -50_000)).with_precision_and_scale(12, 2).unwrap()),
            floats(ints(1000, -300)),
            Arc::new(ints(30, 0).iter().map(|v| v.map(|v| words[v as usize].as_str())).collect::<StringViewArray>()),
            Arc::new(ints(5000, 0).iter().map(|v| v.map(|v| v as i32)).collect::<Date32Array>()),
            Arc::new(ints(2, 0).iter().map(|v| v.map(|v| v != 0)).collect::<BooleanArray>()),
        ];
        all.push(Batch { columns, rows });
    }
    all
}

fn call(function: F, args: Vec<Expr>, ty: DataType) -> AggregateCall {
    AggregateCall { function, args, distinct: false, filter: None, order_by: vec![], ty }
}

fn literal(ty: DataType, value: Value) -> Expr {
    Expr::Literal(Literal { ty, value })
}

/// Calls of every function whose result does not depend on the order of rows.
fn calls() -> Vec<AggregateCall> {
    use DataType as T;
    let sum = T::Decimal { precision: 22, scale: 2 };
    let mut all = vec![
        call(F::Count, vec![], T::Int64),
        call(F::Count, vec![column(3)], T::Int64),
        call(F::Count, vec![column(3), column(4)], T::Int64),
        call(F::Sum, vec![column(3)], sum),
        call(F::Sum, vec![column(4)], T::Float64),
        call(F::Sum, vec![column(1)], T::Int64),
        call(F::Avg, vec![column(3)], T::Float64),
        call(F::Avg, vec![column(3)], T::Decimal { precision: 16, scale: 6 }),
        call(F::Avg, vec![column(4)], T::Float64),
        call(F::Min, vec![column(3)], MONEY),
        call(F::Max, vec![column(4)], T::Float64),
        call(F::Min, vec![column(5)], T::Utf8),
        call(F::Max, vec![column(6)], T::Date),
        call(F::BoolAnd, vec![column(7)], T::Bool),
        call(F::BoolOr, vec![column(7)], T::Bool),
        call(F::BitXor, vec![column(1)], T::Int64),
        call(F::Median, vec![column(3)], MONEY),
        call(F::Median, vec![column(4)], T::Float64),
        call(F::PercentileCont, vec![column(4), literal(T::Float64, Value::Float(0.25))], T::Float64),
        call(F::ApproxDistinct, vec![column(5)], T::UInt64),
    ];
    for function in [F::VarPop, F::VarSamp, F::StddevPop, F::StddevSamp] {
        all.push(call(function, vec![column(4)], T::Float64));
    }
    for function in [F::CovarPop, F::CovarSamp, F::Corr, F::RegrSlope, F::RegrIntercept, F::RegrR2, F::RegrSxx, F::RegrAvgx] {
        all.push(call(function, vec![column(4), column(3)], T::Float64));
    }
    for function in [F::Count, F::Sum, F::Avg] {
        let ty = if function == F::Count { T::Int64 } else { T::Float64 };
        all.push(AggregateCall { distinct: true, ..call(function, vec![column(4)], ty) });
    }
    all.push(AggregateCall { distinct: true, ..call(F::Count, vec![column(5)], T::Int64) });
    let positive = Expr::Binary {
        op: BinaryOp::Gt,
        left: Box::new(column(3)),
        right: Box::new(literal(MONEY, Value::Decimal(0))),
        ty: T::Bool,
    };
    all.push(AggregateCall { filter: Some(positive.clone()), ..call(F::Sum, vec![column(3)], sum) });
    all.push(AggregateCall { filter: Some(positive), ..call(F::Count, vec![], T::Int64) });
    let key = |id, descending| SortKey { expr: column(id), descending, nulls_first: false };
    let separator = literal(T::Utf8, Value::Str("; ".into()));
    let ordered = vec![key(5, false), key(4, false)];
    all.push(AggregateCall { order_by: ordered, ..call(F::StringAgg, vec![column(5), separator.clone()], T::Utf8) });
    all.push(AggregateCall {
        order_by: vec![key(5, true)],
        distinct: true,
        ..call(F::StringAgg, vec![column(5), separator], T::Utf8)
    });
    all.push(AggregateCall { order_by: vec![key(6, false), key(3, false)], ..call(F::FirstValue, vec![column(3)], MONEY) });
    all.push(AggregateCall { order_by: vec![key(6, false), key(3, false)], ..call(F::LastValue, vec![column(3)], MONEY) });
    all
}

fn aggregate(keys: &[usize], sets: Vec<Vec<u32>>, calls: Vec<AggregateCall>, phase: Phase) -> Aggregate {
    let input = Plan::new(Node::Values(Values { fields: vec![], rows: vec![] }));
    let named = |(i, call): (usize, AggregateCall)| (field(200 + i as u32, call.ty), call);
    Aggregate {
        input,
        keys: keys.iter().map(|k| (field(100 + *k as u32, TYPES[*k]), column(*k))).collect(),
        grouping_id: (!sets.is_empty()).then(|| field(300, DataType::UInt32)),
        grouping_sets: sets,
        calls: calls.into_iter().enumerate().map(named).collect(),
        phase,
    }
}

fn context(settings: Settings) -> QueryContext {
    QueryContext { settings, cancel: CancelToken::default(), memory: MemoryBudget::new(1 << 30) }
}

fn plan(aggregate: &Aggregate, bounded: bool, settings: Settings) -> Arc<GroupedAggregation> {
    let layout = if aggregate.phase == Phase::Final { partial_layout(aggregate) } else { layout(bounded) };
    GroupedAggregation::new(aggregate, &layout, &Parameters::new(), &context(settings)).unwrap()
}

fn partial_layout(aggregate: &Aggregate) -> Layout {
    let partial = Aggregate { phase: Phase::Partial, ..aggregate.clone() };
    Layout { columns: partial.fields().into_iter().map(|field| LayoutColumn { field, bounds: Bounds::default() }).collect() }
}

fn single(plan: &Arc<GroupedAggregation>, batches: &[Batch]) -> AggregateState {
    let mut state = plan.new_state();
    batches.iter().for_each(|b| state.update(b).unwrap());
    state
}

/// Rows by their keys, as text; floats with few digits.
fn shown(batches: &[Batch], keys: usize) -> BTreeMap<Vec<String>, Vec<String>> {
    let mut rows = BTreeMap::new();
    for batch in batches {
        for row in 0..batch.rows {
            let cell = |c: &ArrayRef| match c.data_type() {
                _ if c.is_null(row) => "NULL".to_owned(),
                arrow::datatypes::DataType::Float64 => format!("{:.9e}", c.as_primitive::<Float64Type>().value(row) + 0.0),
                _ => array_value_to_string(c, row).unwrap(),
            };
            let cells: Vec<String> = batch.columns.iter().map(cell).collect();
            assert!(rows.insert(cells[..keys].to_vec(), cells[keys..].to_vec()).is_none(), "a group twice: {cells:?}");
        }
    }
    rows
}

fn same(found: &BTreeMap<Vec<String>, Vec<String>>, expected: &BTreeMap<Vec<String>, Vec<String>>, what: &str) {
    let groups = |rows: &BTreeMap<Vec<String>, Vec<String>>| rows.keys().cloned().collect::<Vec<_>>();
    assert_eq!(groups(found), groups(expected), "{what}");
    for (key, row) in expected {
        for (i, (a, b)) in found[key].iter().zip(row).enumerate() {
            let close = match (a.parse::<f64>(), b.parse::<f64>()) {
                // Deviations from a mean of a million, squared, are right to so many digits of its square.
                (Ok(x), Ok(y)) if a.contains('e') => (x - y).abs() <= 1e-7 * x.abs().max(y.abs()).max(1e4),
                _ => a == b,
            };
            assert!(close, "{what}: group {key:?}, call {i}: {a}, expected {b}");
        }
    }
}

fn hostile() -> Vec<(&'static str, Settings)> {
    vec![
        ("defaults", Settings::default()),
        ("rows", Settings { no_fast_paths: true, ..Settings::default() }),
        ("hashes of zero", Settings { hash_zero: true, vector_size: 3, ..Settings::default() }),
        ("rows and hashes of zero", Settings { hash_zero: true, no_fast_paths: true, ..Settings::default() }),
        ("serialized", Settings { serialize_states: true, ..Settings::default() }),
    ]
}

#[test]
fn every_way_to_aggregate_gives_the_same() {
    let mut random = Random(3);
    let sets: Vec<Vec<u32>> = vec![vec![0, 1], vec![0], vec![]];
    let shapes: Vec<(Vec<usize>, Vec<Vec<u32>>)> = vec![
        (vec![], vec![]),
        (vec![0], vec![]),
        (vec![1], vec![]),
        (vec![0, 1], vec![]),
        (vec![2, 0], vec![]),
        (vec![0, 1], sets),
    ];
    for (keys, sets) in shapes {
        let batches = batches(&mut random, 5);
        let width = keys.len() + usize::from(!sets.is_empty());
        let expected = {
            let whole = aggregate(&keys, sets.clone(), calls(), Phase::Single);
            shown(&single(&plan(&whole, false, Settings::default()), &batches).finish().unwrap(), width)
        };
        for (what, settings) in hostile() {
            for bounded in [false, true] {
                let what = format!("{what}, keys {keys:?}, bounded {bounded}");
                let partial = plan(&aggregate(&keys, sets.clone(), calls(), Phase::Partial), bounded, settings.clone());
                let last = plan(&aggregate(&keys, sets.clone(), calls(), Phase::Final), bounded, settings.clone());
                let one = single(&partial, &batches);
                assert!(one.memory() > 0);
                same(&shown(&one.finish().unwrap(), width), &expected, &what);
                let states = || batches.chunks(2).map(|some| single(&partial, some)).collect::<Vec<_>>();
                same(&shown(&last.merge_all(states()).unwrap(), width), &expected, &format!("{what}, merged"));
                let mut merged = last.new_state();
                for state in states().into_iter().rev() {
                    if random.below(2) == 0 {
                        state.into_partial().unwrap().iter().for_each(|b| merged.merge_partial(b).unwrap());
                    } else {
                        merged.merge(state).unwrap();
                    }
                }
                same(&shown(&merged.finish().unwrap(), width), &expected, &format!("{what}, mixed"));
            }
        }
    }
}

type Expected = (i64, Option<i128>, Option<String>, std::collections::BTreeSet<String>);

#[test]
fn sums_are_as_the_reference_says() {
    let batches = batches(&mut Random(5), 12);
    let sum = DataType::Decimal { precision: 22, scale: 2 };
    let calls = vec![
        call(F::Count, vec![], DataType::Int64),
        call(F::Sum, vec![column(3)], sum),
        call(F::Min, vec![column(5)], DataType::Utf8),
        AggregateCall { distinct: true, ..call(F::Count, vec![column(1)], DataType::Int64) },
    ];
    let found = shown(
        &single(&plan(&aggregate(&[0], vec![], calls, Phase::Single), true, Settings::default()), &batches).finish().unwrap(),
        1,
    );
    let text = |array: &ArrayRef, row| {
        if array.is_null(row) { None } else { Some(array_value_to_string(array, row).unwrap()) }
    };
    let mut expected: BTreeMap<Vec<String>, Expected> = BTreeMap::new();
    for batch in &batches {
        for row in 0..batch.rows {
            let key = text(&batch.columns[0], row).filter(|_| !batch.columns[0].is_null(row)).unwrap_or("NULL".into());
            let entry = expected.entry(vec![key]).or_default();
            entry.0 += 1;
            if let Some(v) = text(&batch.columns[3], row) {
                let v: i128 = v.replace('.', "").parse().unwrap();
                entry.1 = Some(entry.1.unwrap_or(0) + v);
            }
            if let Some(v) = text(&batch.columns[5], row) {
                entry.2 = Some(entry.2.take().map_or(v.clone(), |known| known.min(v)));
            }
            entry.3.extend(text(&batch.columns[1], row));
        }
    }
    assert_eq!(found.len(), expected.len());
    for (key, (count, sum, min, distinct)) in expected {
        let row = &found[&key];
        assert_eq!(row[0], count.to_string());
        assert_eq!(row[1].replace('.', "").parse::<i128>().ok(), sum, "{key:?}");
        assert_eq!(row[2], min.unwrap_or("NULL".into()));
        assert_eq!(row[3], distinct.len().to_string());
    }
}

#[test]
fn nothing_gives_one_row_without_keys_and_none_with() {
    let calls = || vec![call(F::Count, vec![], DataType::Int64), call(F::Sum, vec![column(1)], DataType::Int64)];
    let rows = |keys: &[usize], sets| {
        let plan = plan(&aggregate(keys, sets, calls(), Phase::Single), true, Settings::default());
        shown(&plan.new_state().finish().unwrap(), 0).into_values().next()
    };
    assert_eq!(rows(&[], vec![]), Some(vec!["0".into(), "NULL".into()]));
    assert_eq!(rows(&[0], vec![]), None);
    assert_eq!(rows(&[0], vec![vec![0], vec![]]), Some(vec!["NULL".into(), "1".into(), "0".into(), "NULL".into()]));
    let last = plan(&aggregate(&[], vec![], calls(), Phase::Final), true, Settings::default());
    assert_eq!(shown(&last.merge_all(vec![]).unwrap(), 0).into_values().next(), Some(vec!["0".into(), "NULL".into()]));
}

#[test]
fn overflow_of_a_sum_is_an_error() {
    let plan = plan(
        &aggregate(&[], vec![], vec![call(F::Sum, vec![column(1)], DataType::Int64)], Phase::Single),
        false,
        Settings::default(),
    );
    let mut batch = batches(&mut Random(1), 1).remove(0).slice(0, 2);
    batch.columns[1] = Arc::new(Int64Array::from(vec![i64::MAX, 1]));
    let mut state = plan.new_state();
    state.update(&batch).unwrap();
    assert!(matches!(state.finish(), Err(Error::User(what)) if what.contains("overflow")));
}

#[test]
fn many_groups_merge_in_parallel() {
    let calls = vec![call(F::Count, vec![], DataType::Int64), call(F::Sum, vec![column(1)], DataType::Int64)];
    let layout = Layout { columns: vec![layout(false).columns[0].clone(), layout(false).columns[1].clone()] };
    for keys in [vec![1], vec![0, 1]] {
        let whole = aggregate(&keys, vec![], calls.clone(), Phase::Single);
        let plan = GroupedAggregation::new(&whole, &layout, &Parameters::new(), &context(Settings::default())).unwrap();
        let state = |offset: i64| {
            let mut state = plan.new_state();
            for chunk in 0..20 {
                let values: Vec<i64> = (0..4000).map(|i| (chunk * 4000 + i) * 3 + offset).collect();
                let text = values.iter().map(|v| format!("key {}", v % 1000)).collect::<Vec<_>>();
                let columns: Vec<ArrayRef> =
                    vec![Arc::new(StringViewArray::from_iter_values(text)), Arc::new(Int64Array::from(values))];
                state.update(&Batch { columns, rows: 4000 }).unwrap();
            }
            state
        };
        let rows = plan.merge_all(vec![state(0), state(0), state(1)]).unwrap();
        assert_eq!(rows.iter().map(|b| b.rows).sum::<usize>(), 160_000);
        let shown = shown(&rows, keys.len());
        for (key, row) in shown {
            let key: i64 = key.last().unwrap().parse().unwrap();
            let count = if key % 3 == 0 { 2 } else { 1 };
            assert_eq!(row, [count.to_string(), (count * key).to_string()]);
        }
    }
}

#[test]
fn hostile_states_are_errors() {
    let batches = batches(&mut Random(9), 1);
    let partial = plan(&aggregate(&[1], vec![], calls(), Phase::Partial), true, Settings::default());
    let last = plan(&aggregate(&[1], vec![], calls(), Phase::Final), true, Settings::default());
    let good = single(&partial, &batches).into_partial().unwrap().remove(0).slice(0, 2);
    let mut random = Random(1);
    for column in 1..good.columns.len() {
        let bytes: Vec<Vec<u8>> = (0..2).map(|row| good.columns[column].as_binary::<i32>().value(row).to_vec()).collect();
        for at in 0..bytes[0].len().min(200) {
            let mut damaged = bytes.clone();
            damaged[0][at] ^= 1 << random.below(8);
            let cut = vec![bytes[0][..at].to_vec(), bytes[1].clone()];
            for states in [damaged, cut.clone()] {
                let mut batch = good.clone();
                batch.columns[column] = Arc::new(BinaryArray::from_iter_values(&states));
                let mut state = last.new_state();
                let result = state.merge_partial(&batch);
                assert!(states != cut || result.is_err());
                if result.is_ok() {
                    let _ = state.finish();
                }
            }
        }
    }
    let mut short = good.clone();
    short.columns.pop();
    assert!(last.new_state().merge_partial(&short).is_err());
    let mut swapped = good;
    swapped.columns.swap(0, 1);
    assert!(last.new_state().merge_partial(&swapped).is_err());
}
