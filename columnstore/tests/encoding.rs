//! What every encoding must keep true, checked by one call on many columns: what was encoded is what is read, a selection reads what
//! taking it from the whole gives, filters agree with looking at every value, and each block reads alone.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal64Array, Decimal128Array, Float32Array,
    Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, StringViewArray, TimestampMicrosecondArray, UInt8Array,
    UInt16Array, UInt32Array, UInt64Array,
};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use proptest::prelude::*;
use stoa_columnstore::predicate::{KeyMembers, ValueFunction};
use stoa_columnstore::{BLOCK_ROWS, Datum, EncodedColumn, Encoding, KeySet, Predicate, encode, encode_as};

/// Flattens dictionaries.
fn flat(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Dictionary(_, values) => arrow::compute::cast(array, values).unwrap(),
        _ => array.clone(),
    }
}

fn same(left: &ArrayRef, right: &ArrayRef) -> bool {
    if left.data_type() != right.data_type() || left.len() != right.len() {
        return false;
    }
    // Floats to the bit.
    match left.data_type() {
        DataType::Float64 => {
            let (l, r) = (left.as_primitive::<Float64Type>(), right.as_primitive::<Float64Type>());
            l.iter().map(|v| v.map(f64::to_bits)).eq(r.iter().map(|v| v.map(f64::to_bits)))
        }
        DataType::Float32 => {
            let (l, r) = (left.as_primitive::<Float32Type>(), right.as_primitive::<Float32Type>());
            l.iter().map(|v| v.map(f32::to_bits)).eq(r.iter().map(|v| v.map(f32::to_bits)))
        }
        _ => left == right,
    }
}

fn datum(array: &ArrayRef, row: usize) -> Option<Datum> {
    if array.is_null(row) {
        return None;
    }
    use arrow::datatypes as t;
    Some(match array.data_type() {
        DataType::Boolean => Datum::Int(array.as_boolean().value(row).into()),
        DataType::Int8 => Datum::Int(array.as_primitive::<t::Int8Type>().value(row).into()),
        DataType::Int16 => Datum::Int(array.as_primitive::<t::Int16Type>().value(row).into()),
        DataType::Int32 => Datum::Int(array.as_primitive::<t::Int32Type>().value(row).into()),
        DataType::Int64 => Datum::Int(array.as_primitive::<t::Int64Type>().value(row).into()),
        DataType::UInt8 => Datum::Int(array.as_primitive::<t::UInt8Type>().value(row).into()),
        DataType::UInt16 => Datum::Int(array.as_primitive::<t::UInt16Type>().value(row).into()),
        DataType::UInt32 => Datum::Int(array.as_primitive::<t::UInt32Type>().value(row).into()),
        DataType::UInt64 => Datum::Int(array.as_primitive::<t::UInt64Type>().value(row).into()),
        DataType::Date32 => Datum::Int(array.as_primitive::<t::Date32Type>().value(row).into()),
        DataType::Timestamp(..) => Datum::Int(array.as_primitive::<t::TimestampMicrosecondType>().value(row).into()),
        DataType::Decimal64(..) => Datum::Int(array.as_primitive::<t::Decimal64Type>().value(row).into()),
        DataType::Decimal128(..) => Datum::Int(array.as_primitive::<t::Decimal128Type>().value(row)),
        DataType::Float32 => Datum::Float(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => Datum::Float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8View => Datum::Bytes(array.as_string_view().value(row).as_bytes().to_vec()),
        DataType::Binary => Datum::Bytes(array.as_binary::<i32>().value(row).to_vec()),
        other => panic!("{other}"),
    })
}

fn order(left: &Datum, right: &Datum) -> std::cmp::Ordering {
    match (left, right) {
        (Datum::Int(l), Datum::Int(r)) => l.cmp(r),
        (Datum::Float(l), Datum::Float(r)) => l.total_cmp(r),
        (Datum::Bytes(l), Datum::Bytes(r)) => l.cmp(r),
        other => panic!("{other:?}"),
    }
}

/// What a predicate means, by looking at one value.
fn passes(predicate: &Predicate, value: Option<&Datum>, array: &ArrayRef, row: usize) -> bool {
    let equal = |a: &Datum, b: &Datum| order(a, b).is_eq();
    match (predicate, value) {
        (Predicate::IsNull, value) => value.is_none(),
        (Predicate::Function(f), _) => {
            let answer = (f.function)(&array.slice(row, 1)).unwrap();
            answer.is_valid(0) && answer.value(0)
        }
        (_, None) => false,
        (Predicate::IsNotNull, _) => true,
        (Predicate::Range { low, high }, Some(v)) => {
            low.as_ref().is_none_or(|(l, included)| order(v, l).is_gt() || *included && equal(v, l))
                && high.as_ref().is_none_or(|(h, included)| order(v, h).is_lt() || *included && equal(v, h))
        }
        (Predicate::NotEqual(other), Some(v)) => !equal(v, other),
        (Predicate::In(list), Some(v)) => list.iter().any(|other| equal(v, other)),
        (Predicate::KeySet(set), Some(Datum::Int(v))) => i64::try_from(*v).is_ok_and(|v| set.contains(v)),
        (Predicate::KeySet(_), Some(other)) => panic!("{other:?}"),
    }
}

fn function(description: &str, f: impl Fn(&ArrayRef, usize) -> Option<bool> + Send + Sync + 'static) -> Predicate {
    let function = Arc::new(move |array: &ArrayRef| Ok((0..array.len()).map(|row| f(array, row)).collect::<BooleanArray>()));
    Predicate::Function(ValueFunction { description: description.into(), function })
}

/// Predicates around values that occur in the column.
fn predicates(array: &ArrayRef) -> Vec<Predicate> {
    let mut values: Vec<Datum> = (0..array.len()).filter_map(|row| datum(array, row)).collect();
    values.sort_by(order);
    let mut all = vec![
        Predicate::IsNull,
        Predicate::IsNotNull,
        Predicate::Range { low: None, high: None },
        Predicate::In(vec![]),
        function("is null", |a, row| Some(a.is_null(row))),
        function("never", |_, _| None),
        function("by value", |a, row| datum(a, row).map(|d| format!("{d:?}").len() % 2 == 0)),
    ];
    let Some(last) = values.len().checked_sub(1) else { return all };
    let quantile = |n: usize| values[last * n / 8].clone();
    let between =
        |l: usize, li: bool, h: usize, hi: bool| Predicate::Range { low: Some((quantile(l), li)), high: Some((quantile(h), hi)) };
    all.extend([between(2, true, 6, true), between(2, false, 6, false), between(4, true, 4, true), between(4, true, 4, false)]);
    all.extend([between(0, true, 8, true), between(0, false, 8, true), between(8, false, 0, false)]);
    all.push(Predicate::Range { low: Some((quantile(3), true)), high: None });
    all.push(Predicate::Range { low: None, high: Some((quantile(3), false)) });
    all.extend([Predicate::NotEqual(quantile(4)), Predicate::NotEqual(quantile(0)), Predicate::In(vec![quantile(5)])]);
    all.push(Predicate::In((0..=8).step_by(2).map(quantile).collect()));
    all.push(Predicate::In((0..=8).map(quantile).collect()));
    match values[0] {
        Datum::Int(_) => all.extend(integer_predicates(&values)),
        Datum::Float(_) => {
            all.push(Predicate::Range {
                low: Some((Datum::Float(f64::NEG_INFINITY), false)),
                high: Some((Datum::Float(0.5), true)),
            });
            all.push(Predicate::Range {
                low: Some((Datum::Float(-f64::NAN), true)),
                high: Some((Datum::Float(f64::NAN), false)),
            });
        }
        Datum::Bytes(_) => all.push(Predicate::In(vec![Datum::Bytes(b"".to_vec()), Datum::Bytes(b"no such".to_vec())])),
    }
    all
}

fn integer_predicates(values: &[Datum]) -> Vec<Predicate> {
    let ints: Vec<i128> = values.iter().map(|d| if let Datum::Int(v) = d { *v } else { 0 }).collect();
    let mut all = vec![];
    for offset in [-1, 1] {
        all.push(Predicate::In(vec![Datum::Int(ints[0] + offset), Datum::Int(ints[ints.len() / 2] + offset)]));
        all.push(Predicate::NotEqual(Datum::Int(ints[ints.len() / 2] + offset)));
        all.push(Predicate::Range { low: Some((Datum::Int(ints[ints.len() / 3] + offset), true)), high: None });
    }
    for extreme in [i128::MIN, i128::MAX, 0, i64::MAX.into(), i64::MIN.into(), u64::MAX.into()] {
        all.push(Predicate::Range { low: Some((Datum::Int(extreme), false)), high: None });
        all.push(Predicate::Range { low: None, high: Some((Datum::Int(extreme), false)) });
        all.push(Predicate::NotEqual(Datum::Int(extreme)));
    }
    let keys: Vec<i64> = ints.iter().step_by(3).filter_map(|v| i64::try_from(*v).ok()).collect();
    let (Some(&min), Some(&max)) = (keys.first(), keys.last()) else { return all };
    let set = |members| Predicate::KeySet(Arc::new(KeySet { min, max, keys: keys.len(), members }));
    all.push(set(KeyMembers::All));
    if max.checked_sub(min).is_some_and(|range| range < 1 << 20) {
        let mut bits = vec![0u64; (max - min) as usize / 64 + 1];
        keys.iter().for_each(|key| bits[(key - min) as usize / 64] |= 1 << ((key - min) % 64));
        all.push(set(KeyMembers::Bits(bits)));
    }
    let mut words = vec![0u64; (keys.len() / 4).next_power_of_two()];
    for &key in &keys {
        let (word, bits) = KeySet::bloom_bits(key, words.len());
        words[word] |= bits;
    }
    all.push(set(KeyMembers::Bloom(words)));
    all
}

fn masks(rows: usize) -> Vec<Vec<u64>> {
    let mut all =
        vec![vec![u64::MAX; rows.div_ceil(64)], vec![0x8000_0100_0000_0001; rows.div_ceil(64)], vec![0; rows.div_ceil(64)]];
    let mut sparse = vec![0u64; rows.div_ceil(64)];
    (0..rows).step_by(97).for_each(|row| sparse[row / 64] |= 1 << (row % 64));
    all.push(sparse);
    for mask in &mut all {
        if !rows.is_multiple_of(64) {
            *mask.last_mut().unwrap() &= u64::MAX >> (64 - rows % 64);
        }
    }
    all
}

fn check_reads(column: &EncodedColumn, array: &ArrayRef, what: &str) {
    let rows = array.len();
    let read = |first: usize, rows: usize, selection: Option<&[u32]>| column.read(first, rows, selection).unwrap();
    assert!(same(&flat(&read(0, rows, None)), array), "{what}: read");
    for first in (0..rows).step_by(BLOCK_ROWS) {
        let n = (rows - first).min(BLOCK_ROWS);
        assert!(same(&flat(&read(first, n, None)), &array.slice(first, n)), "{what}: block at {first}");
    }
    for (first, n) in [(0, 0), (0, rows / 2), (rows / 3, rows / 2), (rows - 1, 1)] {
        assert!(same(&flat(&read(first, n, None)), &array.slice(first, n)), "{what}: rows {first}+{n}");
        for step in [1, 2, 3, 7, 40, 500, 5000] {
            let selection: Vec<u32> = (0..n as u32).skip(step / 2).step_by(step).collect();
            let taken = arrow::compute::take(&array.slice(first, n), &UInt32Array::from(selection.clone()), None).unwrap();
            assert!(same(&flat(&read(first, n, Some(&selection))), &taken), "{what}: rows {first}+{n} by {step}");
        }
    }
    assert!(column.read(0, rows + 1, None).is_err() && column.read(usize::MAX, 2, None).is_err());
    assert!(column.read(0, rows, Some(&[rows as u32])).is_err() && column.read(0, rows, Some(&[0, 0])).is_err());
    if let Some(dictionary) = column.dictionary() {
        assert_eq!(dictionary.data_type(), array.data_type());
        let all = read(0, rows, None);
        if let Some(all) = all.as_any_dictionary_opt() {
            assert!(Arc::ptr_eq(all.values(), &dictionary), "{what}: values are shared");
        }
    }
}

fn check_filters(column: &EncodedColumn, array: &ArrayRef, what: &str) {
    let rows = array.len();
    let values: Vec<Option<Datum>> = (0..rows).map(|row| datum(array, row)).collect();
    for predicate in predicates(array) {
        let expected: Vec<bool> = (0..rows).map(|row| passes(&predicate, values[row].as_ref(), array, row)).collect();
        let prepared = column.prepare(&predicate).unwrap();
        for start in masks(rows) {
            let mut mask = start.clone();
            column.filter_prepared(&prepared, 0, rows, &mut mask).unwrap();
            for (row, &expected) in expected.iter().enumerate() {
                let bit = |mask: &[u64]| mask[row / 64] >> (row % 64) & 1 == 1;
                assert_eq!(bit(&mask), expected && bit(&start), "{what}: {predicate:?} row {row} {:?}", values[row]);
            }
        }
        for first in (0..rows).step_by(BLOCK_ROWS) {
            let n = (rows - first).min(BLOCK_ROWS);
            let mut mask = vec![u64::MAX; n.div_ceil(64)];
            column.filter(&predicate, first, n, &mut mask).unwrap();
            for i in 0..n {
                assert_eq!(mask[i / 64] >> (i % 64) & 1 == 1, expected[first + i], "{what}: {predicate:?} row {}", first + i);
            }
        }
    }
    let integral = !matches!(array.data_type(), DataType::Float32 | DataType::Float64 | DataType::Utf8View | DataType::Binary);
    let misfit = if integral { Datum::Float(1.0) } else { Datum::Int(1) };
    assert!(column.filter(&Predicate::NotEqual(misfit), 0, rows, &mut masks(rows)[0]).is_err());
}

/// Checks a column in every encoding that accepts it, and answers which.
fn check_conformance(array: &ArrayRef) -> Vec<Encoding> {
    let mut accepted = vec![];
    for encoding in Encoding::ALL {
        let Some(encoded) = encode_as(encoding, array).unwrap() else { continue };
        accepted.push(encoded.encoding);
        let open = EncodedColumn::open(encoding, array.data_type(), array.len(), Buffer::from_vec(encoded.bytes));
        let column = open.unwrap_or_else(|e| panic!("{encoding:?} of {}: {e}", array.data_type()));
        let what = format!("{} of {} rows {}", column.describe(), array.len(), array.data_type());
        assert_eq!(column.null_count(), array.null_count(), "{what}");
        check_reads(&column, array, &what);
        check_filters(&column, array, &what);
    }
    let best = encode(array).unwrap();
    let column = EncodedColumn::open(best.encoding, array.data_type(), array.len(), Buffer::from_vec(best.bytes)).unwrap();
    assert!(same(&flat(&column.read(0, array.len(), None).unwrap()), array));
    accepted
}

/// The column, with one row in three NULL, with runs of NULLs, and with nothing but NULLs.
fn with_nulls(array: &ArrayRef) -> Vec<ArrayRef> {
    let nullify = |null: &dyn Fn(usize) -> bool| {
        let nulls: BooleanArray = (0..array.len()).map(|row| Some(null(row))).collect();
        arrow::compute::nullif(array, &nulls).unwrap()
    };
    vec![
        array.clone(),
        nullify(&|row| row % 3 == 0),
        nullify(&|row| row / 50 % 5 == 0),
        nullify(&|row| row == 70),
        nullify(&|_| true),
        nullify(&|row| row != array.len() / 2),
    ]
}

/// A cheap sequence that looks random.
fn noise(row: usize) -> u64 {
    (row as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

const LENGTHS: [usize; 5] = [1, 63, 1024, 1025, 3500];

/// The encodings that some column of the type was accepted by.
fn check_all(make: impl Fn(usize) -> Vec<ArrayRef>) -> Vec<Encoding> {
    let mut seen: Vec<Encoding> = vec![];
    for rows in LENGTHS {
        for array in make(rows) {
            for array in if rows > 1000 { with_nulls(&array)[..3].to_vec() } else { with_nulls(&array) } {
                seen.extend(check_conformance(&array));
            }
        }
    }
    seen.sort_by_key(|e| e.tag());
    seen.dedup();
    seen
}

const INTEGER: [Encoding; 6] =
    [Encoding::Plain, Encoding::Constant, Encoding::RunLength, Encoding::Dictionary, Encoding::BitPacked, Encoding::Delta];

#[test]
fn integers_of_eight_bytes() {
    let seen = check_all(|rows| {
        vec![
            Arc::new((0..rows).map(|i| Some(noise(i) as i64)).collect::<Int64Array>()),
            Arc::new((0..rows).map(|i| Some(noise(i) as i64 % 1000 - 500)).collect::<Int64Array>()),
            Arc::new((0..rows).map(|i| Some(i as i64 / 4 * 32 + i as i64 % 4)).collect::<Int64Array>()),
            Arc::new((0..rows).map(|i| Some(i as i64)).collect::<Int64Array>()),
            Arc::new((0..rows).map(|i| Some(if i % 1000 == 7 { i64::MAX } else { i64::MIN })).collect::<Int64Array>()),
            Arc::new((0..rows).map(|_| Some(-7)).collect::<Int64Array>()),
        ]
    });
    assert_eq!(seen, INTEGER);
}

#[test]
fn narrow_integers() {
    check_all(|rows| {
        vec![
            Arc::new((0..rows).map(|i| Some(noise(i) as i8)).collect::<Int8Array>()),
            Arc::new((0..rows).map(|i| Some(noise(i) as i16)).collect::<Int16Array>()),
            Arc::new((0..rows).map(|i| Some(noise(i) as i32)).collect::<Int32Array>()),
            Arc::new((0..rows).map(|i| Some(8000 + (noise(i) % 2500) as i32)).collect::<Date32Array>()),
            Arc::new((0..rows).map(|i| Some((i / 100) as i32 - 3)).collect::<Int32Array>()),
        ]
    });
}

#[test]
fn unsigned_integers() {
    check_all(|rows| {
        vec![
            Arc::new((0..rows).map(|i| Some(noise(i) as u8)).collect::<UInt8Array>()),
            Arc::new((0..rows).map(|i| Some(noise(i) as u16)).collect::<UInt16Array>()),
            Arc::new((0..rows).map(|i| Some(noise(i) as u32)).collect::<UInt32Array>()),
            Arc::new((0..rows).map(|i| Some(noise(i))).collect::<UInt64Array>()),
            Arc::new((0..rows).map(|i| Some(u64::MAX - i as u64 % 77 * 1000)).collect::<UInt64Array>()),
        ]
    });
}

#[test]
fn decimals_and_timestamps() {
    let seen = check_all(|rows| {
        let decimal = (0..rows).map(|i| Some((noise(i) % 50) as i64 * 100)).collect::<Decimal64Array>();
        let wide = |f: &dyn Fn(usize) -> i128| {
            let array: Decimal128Array = (0..rows).map(|i| Some(f(i))).collect();
            Arc::new(array.with_precision_and_scale(38, 4).unwrap()) as ArrayRef
        };
        vec![
            Arc::new(decimal.with_precision_and_scale(15, 2).unwrap()),
            Arc::new(
                (0..rows).map(|i| Some(1_600_000_000_000_000 + i as i64 * 60_000_000)).collect::<TimestampMicrosecondArray>(),
            ),
            wide(&|i| i128::from(noise(i)) * i128::from(noise(i + 1) as i64 >> 2)),
            wide(&|i| i128::from(noise(i) % 1_000_000) * 100 - 7),
            wide(&|i| (1 << 100) + (i128::from(noise(i)) << 3)),
            wide(&|i| if i % 2 == 0 { -(10i128.pow(37)) } else { 10i128.pow(37) }),
        ]
    });
    assert_eq!(seen, INTEGER);
}

#[test]
fn floats() {
    let seen = check_all(|rows| {
        let special = [0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, 5e-324, f64::MAX];
        vec![
            Arc::new((0..rows).map(|i| Some((noise(i) % 100_000) as f64 / 100.0)).collect::<Float64Array>()),
            Arc::new((0..rows).map(|i| Some(f64::from_bits(noise(i)))).collect::<Float64Array>()),
            Arc::new(
                (0..rows)
                    .map(|i| Some(if i % 40 == 3 { special[i / 40 % 9] } else { i as f64 / 10.0 }))
                    .collect::<Float64Array>(),
            ),
            Arc::new((0..rows).map(|i| Some(special[i % 9])).collect::<Float64Array>()),
            Arc::new((0..rows).map(|i| Some(special[i / 90 % 9] as f32)).collect::<Float32Array>()),
            Arc::new((0..rows).map(|i| Some(f32::from_bits(noise(i) as u32))).collect::<Float32Array>()),
        ]
    });
    assert!(seen.contains(&Encoding::ScaledFloat) && seen.contains(&Encoding::RunLength), "{seen:?}");
}

#[test]
fn booleans() {
    check_all(|rows| {
        vec![
            Arc::new((0..rows).map(|i| Some(noise(i).is_multiple_of(3))).collect::<BooleanArray>()),
            Arc::new((0..rows).map(|_| Some(true)).collect::<BooleanArray>()),
        ]
    });
}

fn words(row: usize) -> String {
    let vocabulary =
        ["furiously", "ironic", "packages", "sleep", "äöü", "among", "the", "requests", "日本語", "special", "", "x"];
    (0..noise(row) % 12).map(|i| vocabulary[noise(row * 31 + i as usize) as usize % 12]).collect::<Vec<_>>().join(" ")
}

#[test]
fn strings() {
    let seen = check_all(|rows| {
        vec![
            Arc::new((0..rows).map(|i| Some(words(i))).collect::<StringViewArray>()),
            Arc::new(
                (0..rows)
                    .map(|i| Some(["AIR", "RAIL", "a longer ship mode", "", "TRUCK", "ä"][noise(i) as usize % 6]))
                    .collect::<StringViewArray>(),
            ),
            Arc::new((0..rows).map(|i| Some(format!("Customer#{i:09}"))).collect::<StringViewArray>()),
            Arc::new((0..rows).map(|_| Some("always the same string")).collect::<StringViewArray>()),
            Arc::new((0..rows).map(|i| Some("\u{ff}\0".repeat(noise(i) as usize % 3))).collect::<StringViewArray>()),
        ]
    });
    use Encoding::{Constant, Dictionary, Fsst, Lz4, Plain, Zstd};
    assert_eq!(seen, [Plain, Constant, Dictionary, Fsst, Lz4, Zstd]);
}

#[test]
fn binary() {
    check_all(|rows| {
        vec![
            Arc::new(BinaryArray::from_iter_values((0..rows).map(|i| noise(i).to_le_bytes()[..i % 9].to_vec()))),
            Arc::new(BinaryArray::from_iter_values((0..rows).map(|i| vec![0xFF; i % 5]))),
        ]
    });
}

#[test]
fn sliced_arrays_are_read_from_their_offset() {
    let ints: ArrayRef = Arc::new((0..3000).map(|i| (i % 7 != 0).then_some(i)).collect::<Int32Array>());
    let strings: ArrayRef = Arc::new((0..3000).map(|i| (i % 7 != 0).then(|| words(i))).collect::<StringViewArray>());
    let bits: ArrayRef = Arc::new((0..3000).map(|i| (i % 7 != 0).then_some(i % 2 == 0)).collect::<BooleanArray>());
    let bytes: ArrayRef = Arc::new((0..3000).map(|i| (i % 7 != 0).then(|| words(i).into_bytes())).collect::<BinaryArray>());
    for array in [ints, strings, bits, bytes] {
        check_conformance(&array.slice(1001, 1500));
    }
}

#[test]
fn the_best_encoding_is_the_expected_one() {
    let best = |array: ArrayRef| encode(&array).unwrap().encoding;
    let rows = 20_000;
    assert_eq!(best(Arc::new((0..rows).map(|i| Some(noise(i) as i64)).collect::<Int64Array>())), Encoding::Plain);
    assert_eq!(best(Arc::new((0..rows).map(|i| Some(i as i64)).collect::<Int64Array>())), Encoding::Delta);
    assert_eq!(best(Arc::new((0..rows).map(|i| Some(noise(i) as i64 % 9999)).collect::<Int64Array>())), Encoding::BitPacked);
    assert_eq!(best(Arc::new((0..rows).map(|i| Some(noise(i / 5000) as i64)).collect::<Int64Array>())), Encoding::RunLength);
    assert_eq!(
        best(Arc::new((0..rows).map(|i| Some(noise(noise(i) as usize % 50) as i64)).collect::<Int64Array>())),
        Encoding::Dictionary
    );
    assert_eq!(best(Arc::new((0..rows).map(|_| Some(1)).collect::<Int64Array>())), Encoding::Constant);
    assert_eq!(
        best(Arc::new((0..rows).map(|i| Some(noise(i) as u32 as f64 / 100.0)).collect::<Float64Array>())),
        Encoding::ScaledFloat
    );
    assert_eq!(best(Arc::new((0..rows).map(|i| Some(words(i % 40))).collect::<StringViewArray>())), Encoding::Dictionary);
    let digits = |i: usize| format!("{} {}", words(i), noise(i));
    assert_eq!(best(Arc::new((0..rows).map(|i| Some(digits(i))).collect::<StringViewArray>())), Encoding::Fsst);
    assert!(encode(&(Arc::new(Int64Array::from(Vec::<i64>::new())) as ArrayRef)).is_err());
    assert!(encode(&(Arc::new(arrow::array::StringArray::from(vec!["a"])) as ArrayRef)).is_err());
}

/// Everything that a reader may ask of a column.
fn exercise(column: &EncodedColumn, array: &ArrayRef) {
    let rows = array.len();
    let _ = (column.describe(), column.dictionary(), column.null_count());
    let every_third: Vec<u32> = (0..rows as u32).step_by(3).collect();
    for selection in [None, Some(&every_third[..]), Some(&[rows as u32 - 1][..])] {
        if let Ok(read) = column.read(0, rows, selection) {
            // Looks at every value: what was read must be sound.
            read.to_data().validate_full().unwrap();
        }
    }
    for predicate in predicates(array).iter().step_by(3) {
        let _ = column.filter(predicate, 0, rows, &mut vec![u64::MAX; rows.div_ceil(64)]);
    }
}

#[test]
fn damaged_blobs_are_errors_or_values_but_never_panics() {
    let rows = 70;
    let nullable = |i: usize| i % 9 != 4;
    let columns: Vec<ArrayRef> = vec![
        Arc::new((0..rows).map(|i| nullable(i).then_some(i as i64 / 3 * 100)).collect::<Int64Array>()),
        Arc::new(
            (0..rows).map(|i| nullable(i).then_some(i as f64 / 10.0 + if i == 6 { 1e-9 } else { 0.0 })).collect::<Float64Array>(),
        ),
        Arc::new((0..rows).map(|i| nullable(i).then(|| words(i % 5))).collect::<StringViewArray>()),
        Arc::new((0..rows).map(|i| nullable(i).then_some(i % 2 == 0)).collect::<BooleanArray>()),
        Arc::new((0..rows).map(|_| Some("one")).collect::<StringViewArray>()),
        Arc::new((0..rows).map(|i| nullable(i).then(|| vec![7; i % 4])).collect::<BinaryArray>()),
    ];
    for array in columns {
        for encoding in Encoding::ALL {
            let Some(encoded) = encode_as(encoding, &array).unwrap() else { continue };
            let open = |bytes: Vec<u8>| EncodedColumn::open(encoding, array.data_type(), rows, Buffer::from_vec(bytes));
            for end in 0..encoded.bytes.len() {
                if let Ok(column) = open(encoded.bytes[..end].to_vec()) {
                    exercise(&column, &array);
                }
            }
            for at in 0..encoded.bytes.len() {
                for flip in [0x01, 0x80, 0xFF] {
                    let mut bytes = encoded.bytes.clone();
                    bytes[at] ^= flip;
                    if let Ok(column) = open(bytes) {
                        exercise(&column, &array);
                    }
                }
            }
            for other in Encoding::ALL {
                if let Ok(column) = EncodedColumn::open(other, array.data_type(), rows, Buffer::from_vec(encoded.bytes.clone())) {
                    exercise(&column, &array);
                }
            }
        }
    }
}

fn integers() -> impl Strategy<Value = Vec<Option<i64>>> {
    let value = prop_oneof![any::<i64>(), -3i64..3, (0i64..50).prop_map(|v| v * 1_000_000), Just(i64::MIN), Just(i64::MAX)];
    (1usize..2100, proptest::collection::vec(proptest::option::weighted(0.8, value), 1..64), any::<bool>()).prop_map(
        |(rows, pool, sorted)| {
            let mut values: Vec<_> = (0..rows).map(|i| pool[noise(i) as usize % pool.len()]).collect();
            if sorted {
                values.sort_unstable();
            }
            values
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_integers(values in integers()) {
        check_conformance(&(Arc::new(values.iter().map(|v| v.map(|v| v as i16)).collect::<Int16Array>()) as ArrayRef));
        check_conformance(&(Arc::new(values.iter().map(|v| v.map(|v| v as u64)).collect::<UInt64Array>()) as ArrayRef));
        check_conformance(&(Arc::new(values.into_iter().collect::<Int64Array>()) as ArrayRef));
    }

    #[test]
    fn any_floats(values in proptest::collection::vec(proptest::option::weighted(0.9, prop_oneof![1 => proptest::num::f64::ANY, 1 => Just(-0.0), 30 => (-9999i32..9999).prop_map(|v| f64::from(v) / 1000.0)]), 1..1500)) {
        check_conformance(&(Arc::new(values.into_iter().collect::<Float64Array>()) as ArrayRef));
    }

    #[test]
    fn any_strings(values in proptest::collection::vec(proptest::option::weighted(0.9, prop_oneof![any::<String>(), "[a-c]{0,20}"]), 1..300), repeat in 1usize..6) {
        let values = (0..values.len() * repeat).map(|i| values[i % values.len()].clone());
        check_conformance(&(Arc::new(values.collect::<StringViewArray>()) as ArrayRef));
    }

    #[test]
    fn any_bytes_open_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..400), rows in 1usize..3000) {
        let samples: [ArrayRef; 3] = [Arc::new(Int64Array::from(vec![1; rows])), Arc::new(StringViewArray::from(vec!["a"; rows])), Arc::new(Float64Array::from(vec![1.0; rows]))];
        for array in &samples {
            for encoding in Encoding::ALL {
                if let Ok(column) = EncodedColumn::open(encoding, array.data_type(), rows, Buffer::from_vec(bytes.clone())) {
                    exercise(&column, array);
                }
            }
        }
    }
}
