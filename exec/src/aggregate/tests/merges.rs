//! Partial states go over the wire and merge in any order and any tree: the answer is that of all rows at once.

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;

use super::*;
use crate::executor::Rows;
use crate::query::record_batches;
use crate::remote::received_rows;

/// A row: one value for each of [`TYPES`].
type Row = (Option<u8>, Option<i64>, Option<u8>, Option<i64>, Option<i16>, Option<u8>, Option<i32>, Option<bool>);

/// Rows of few groups with NULLs. Floats are small integers, so that their sums are exact in any order.
fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (
        weighted(0.9, 0u8..6),
        weighted(0.9, -5i64..6),
        weighted(0.9, 0u8..3),
        weighted(0.8, prop_oneof![-9i64..9, -999_999_999_999i64..=999_999_999_999]),
        weighted(0.8, -500i16..500),
        weighted(0.8, 0u8..200),
        weighted(0.8, -800i32..20_000),
        weighted(0.8, any::<bool>()),
    );
    vec(row, 0..400)
}

fn word(number: u8) -> String {
    format!("{} {number}", ["", "a word", "a word that is too long to be inlined"][usize::from(number % 3)])
}

fn batch(rows: &[Row], dictionary: bool) -> Batch {
    let keys = rows.iter().map(|r| r.0.map(u32::from));
    let key: ArrayRef = if dictionary {
        let words: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..6).map(word)));
        Arc::new(DictionaryArray::<UInt32Type>::new(keys.collect::<UInt32Array>(), words))
    } else {
        Arc::new(rows.iter().map(|r| r.0.map(word)).collect::<StringViewArray>())
    };
    let money: Decimal64Array = rows.iter().map(|r| r.3).collect();
    let columns: Vec<ArrayRef> = vec![
        key,
        Arc::new(rows.iter().map(|r| r.1).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|r| r.2.map(f64::from)).collect::<Float64Array>()),
        Arc::new(money.with_precision_and_scale(12, 2).unwrap()),
        Arc::new(rows.iter().map(|r| r.4.map(f64::from)).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|r| r.5.map(word)).collect::<StringViewArray>()),
        Arc::new(rows.iter().map(|r| r.6).collect::<Date32Array>()),
        Arc::new(rows.iter().map(|r| r.7).collect::<BooleanArray>()),
    ];
    Batch { columns, rows: rows.len() }
}

/// Every call of [`calls`], and of the functions that it leaves out.
fn all_calls() -> Vec<AggregateCall> {
    use DataType as T;
    let mut all = calls();
    let quarter = literal(T::Float64, Value::Float(0.25));
    all.extend([
        call(F::Min, vec![column(1)], T::Int64),
        call(F::Max, vec![column(1)], T::Int64),
        call(F::Min, vec![column(4)], T::Float64),
        call(F::Max, vec![column(3)], MONEY),
        call(F::Max, vec![column(5)], T::Utf8),
        call(F::Min, vec![column(6)], T::Date),
        call(F::Avg, vec![column(1)], T::Float64),
        call(F::BitAnd, vec![column(1)], T::Int64),
        call(F::BitOr, vec![column(1)], T::Int64),
        call(F::PercentileCont, vec![column(3), quarter.clone()], MONEY),
        call(F::ApproxPercentile, vec![column(4), quarter], T::Float64),
        call(F::ApproxDistinct, vec![column(3)], T::UInt64),
        call(F::RegrCount, vec![column(4), column(3)], T::UInt64),
    ]);
    for function in [F::RegrAvgy, F::RegrSyy, F::RegrSxy] {
        all.push(call(function, vec![column(4), column(3)], T::Float64));
    }
    for id in [1, 3, 6, 7] {
        all.push(AggregateCall { distinct: true, ..call(F::Count, vec![column(id)], T::Int64) });
    }
    all
}

/// States on their way from one node to another: an Arrow IPC stream, as the results of fragments.
fn sent(state: AggregateState, fields: &[Field]) -> Vec<u8> {
    let layout =
        Layout { columns: fields.iter().map(|f| LayoutColumn { field: f.clone(), bounds: Bounds::default() }).collect() };
    let rows = Rows { layout, batches: state.into_partial().unwrap(), reservations: vec![] };
    let (schema, batches) = record_batches(fields, &rows, &CancelToken::default()).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
    batches.iter().for_each(|b| writer.write(b).unwrap());
    writer.into_inner().unwrap()
}

/// What merges the states in `messages`, compiled from what they tell as a coordinator does it.
fn merged(whole: &Aggregate, settings: &Settings, messages: &[Vec<u8>]) -> AggregateState {
    let last = Aggregate { phase: Phase::Final, ..whole.clone() };
    let fields = Aggregate { phase: Phase::Partial, ..whole.clone() }.fields();
    let read = |m: &Vec<u8>| StreamReader::try_new(&m[..], None).unwrap().map(Result::unwrap).collect::<Vec<RecordBatch>>();
    let batches: Vec<RecordBatch> = messages.iter().flat_map(read).collect();
    let ctx = context(settings.clone());
    let rows = received_rows(&fields, &batches, &ctx).unwrap();
    let mut state = GroupedAggregation::new(&last, &rows.layout, &Parameters::new(), &ctx).unwrap().new_state();
    rows.batches.iter().for_each(|b| state.merge_partial(b).unwrap());
    state
}

/// Cuts rows into `parts` at random, aggregates each, and merges the states by twos, threes and fours until one is left.
fn distributed(whole: &Aggregate, all: &Batch, parts: u64, settings: &Settings, random: &mut Random) -> Vec<Batch> {
    let partial = Aggregate { phase: Phase::Partial, ..whole.clone() };
    let owners: Vec<u64> = (0..all.rows).map(|_| random.below(parts)).collect();
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for part in 0..parts {
        let rows: UInt32Array = (0u32..).zip(&owners).filter(|(_, owner)| **owner == part).map(|(row, _)| row).collect();
        let columns = all.columns.iter().map(|c| take(c, &rows, None).unwrap()).collect();
        let state = single(&plan(&partial, random.below(2) == 0, settings.clone()), &[Batch { columns, rows: rows.len() }]);
        messages.push(sent(state, &partial.fields()));
    }
    while messages.len() > 1 {
        let count = (2 + random.below(3) as usize).min(messages.len());
        let some: Vec<Vec<u8>> = (0..count).map(|_| messages.swap_remove(random.below(messages.len() as u64) as usize)).collect();
        messages.push(sent(merged(whole, settings, &some), &partial.fields()));
    }
    merged(whole, settings, &messages).finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_tree_of_merges_gives_the_single_answer(
        rows in rows(),
        parts in 1u64..9,
        dictionary: bool,
        shape in 0usize..6,
        setting in 0usize..5,
        seed: u64,
    ) {
        let (keys, sets): (&[usize], Vec<Vec<u32>>) = match shape {
            0 => (&[], vec![]),
            1 => (&[0], vec![]),
            2 => (&[1], vec![]),
            3 => (&[0, 1], vec![]),
            4 => (&[2, 0], vec![]),
            _ => (&[0, 1], vec![vec![0, 1], vec![1], vec![]]),
        };
        let all = batch(&rows, dictionary);
        let whole = aggregate(keys, sets, all_calls(), Phase::Single);
        let width = keys.len() + usize::from(whole.grouping_id.is_some());
        let expected = single(&plan(&whole, false, Settings::default()), std::slice::from_ref(&all)).finish().unwrap();
        let (what, settings) = hostile().swap_remove(setting);
        let found = distributed(&whole, &all, parts, &settings, &mut Random(seed));
        same(&shown(&found, width), &shown(&expected, width), what);
    }
}
