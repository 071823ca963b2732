//! What is written is what is read.

use proptest::prelude::*;

use super::values::{ALL_AGGREGATES, ALL_BINARY, ALL_UNARY};
use super::*;
use crate::sample;
use crate::{DataType, Expr, Literal, Node, Plan, Value, Values};

/// Decodes without validation.
fn read(bytes: &[u8]) -> Result<Query, CodecError> {
    let message = serialize::read_message(&mut &*bytes, limits::plan_reader_options(bytes.len()))?;
    decode_query(message.get_root::<wire::query::Reader<'_>>()?)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_query_comes_back(query in strategy::query()) {
        let bytes = encode(&query).unwrap();
        prop_assert_eq!(&read(&bytes).unwrap(), &query);
        // An arbitrary plan makes no sense; validation says so or does not, but it does return.
        let _ = decode(&bytes);
    }
}

#[test]
fn a_valid_query_with_every_node_comes_back_validated() {
    let query = sample::query();
    assert_eq!(decode(&encode(&query).unwrap()).unwrap(), query);
}

#[test]
fn the_sample_has_every_kind_of_node_and_expression() {
    let text = format!("{:?}", sample::query());
    let nodes = "Scan Values SubplanScan Filter Project Join Aggregate Sort Limit Union Window Exchange LeftMark Shuffle Broadcast \
                 Gather Partial Final Single Column Literal Parameter Binary Unary Cast Case InList Like Function";
    for name in nodes.split_whitespace() {
        assert!(text.contains(name), "{name} is missing");
    }
}

#[test]
fn every_operator_and_function_has_a_tag_of_its_own() {
    let tags = |tags: Vec<u16>| tags.iter().copied().eq(0..u16::try_from(tags.len()).unwrap());
    assert!(tags(ALL_BINARY.iter().map(|op| values::encode_binary(*op) as u16).collect()));
    assert!(tags(ALL_UNARY.iter().map(|op| values::encode_unary(*op) as u16).collect()));
    assert!(tags(ALL_AGGREGATES.iter().map(|f| values::encode_aggregate(*f) as u16).collect()));
}

#[test]
fn extreme_literals_come_back() {
    let literals = [
        (DataType::Decimal { precision: 38, scale: 38 }, Value::Decimal(-(10i128.pow(38) - 1))),
        (DataType::Decimal { precision: 1, scale: 0 }, Value::Decimal(-1)),
        (DataType::Int64, Value::Int(i64::MIN)),
        (DataType::UInt64, Value::UInt(u64::MAX)),
        (DataType::Float64, Value::Float(f64::NEG_INFINITY)),
        (DataType::Interval, Value::Interval { months: i32::MIN, days: i32::MAX, nanos: i64::MIN }),
        (DataType::Utf8, Value::Str("\u{0}\u{10FFFF}é".into())),
        (DataType::Binary, Value::Bytes(vec![0, 255])),
        (DataType::Utf8, Value::Null),
    ];
    let (fields, row) = literals
        .into_iter()
        .zip(0..)
        .map(|((ty, value), id)| (sample::field(id, ty), Expr::Literal(Literal { ty, value })))
        .unzip();
    let root = Plan::new(Node::Values(Values { fields, rows: vec![row] }));
    let query = Query { subplans: vec![], root, output: vec![] };
    assert_eq!(decode(&encode(&query).unwrap()).unwrap(), query);
}

/// The tags and positions of the schema may only be added to: this message of the first release must decode for ever.
#[test]
fn the_first_release_is_still_read() {
    let golden: &[u8] = include_bytes!("../../tests/data/sample-v1.plan");
    assert_eq!(decode(golden).unwrap(), sample::query());
}

#[test]
#[ignore = "writes the golden message; only for a new version of the schema"]
fn write_the_golden_message() {
    let path = format!("{}/tests/data/sample-v{PLAN_VERSION}.plan", env!("CARGO_MANIFEST_DIR"));
    std::fs::write(path, encode(&sample::query()).unwrap()).unwrap();
}
