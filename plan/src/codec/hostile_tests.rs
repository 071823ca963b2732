//! Messages from an enemy: an error, at a bounded cost, never a panic.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use stoa_schema::limits::{MAX_EXPRESSION_DEPTH, MAX_PLAN_DEPTH};

use super::*;
use crate::sample;
use crate::{DataType, Expr, Literal, Node, Plan, UnaryOp, Value, Values};

/// A query with a small message that still has subplans, a scan, a filter and expressions.
fn small() -> Query {
    let mut query = sample::query();
    let Some(shared) = query.subplans.pop() else { unreachable!("the sample has subplans") };
    let output = shared.plan.fields();
    Query { subplans: vec![], root: shared.plan, output }
}

fn error(bytes: &[u8]) -> String {
    decode(bytes).expect_err("a hostile message").to_string()
}

#[test]
fn every_byte_of_a_message_changed() {
    let bytes = encode(&small()).unwrap();
    for at in 0..bytes.len() {
        for change in [1, 0x80, 0xff, bytes[at].wrapping_add(1) ^ bytes[at]] {
            let mut bytes = bytes.clone();
            bytes[at] ^= change;
            // It may still be a plan (a name is changed); if it is, it is one that comes back.
            if let Ok(query) = decode(&bytes) {
                assert_eq!(decode(&encode(&query).unwrap()).unwrap(), query);
            }
        }
    }
}

#[test]
fn every_bit_of_a_message_with_every_node_changed() {
    let bytes = encode(&sample::query()).unwrap();
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        let _ = decode(&bytes);
    }
}

#[test]
fn a_message_cut_at_every_length_is_refused() {
    let bytes = encode(&small()).unwrap();
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length]).is_err(), "cut to {length} bytes");
    }
    let longer = [&bytes[..], &[0; 8]].concat();
    assert!(error(&longer).contains("follow the message"));
}

proptest! {
    #[test]
    fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn random_words_behind_a_valid_header_are_refused(words in proptest::collection::vec(0u8..4, 0..256)) {
        let words: Vec<u8> = words.into_iter().flat_map(|w| [w, 0, 0, 0]).collect();
        let length = u32::try_from(words.len() / 8).unwrap();
        let bytes = [&0u32.to_le_bytes()[..], &length.to_le_bytes(), &words[..length as usize * 8]].concat();
        let _ = decode(&bytes);
    }
}

/// Sixty nested binary expressions, the right operand of each being its left one: 2^60 expressions from a thousand words.
#[test]
fn operands_that_are_shared_do_not_multiply_the_work() {
    let allocator = capnp::message::HeapAllocator::new().first_segment_words(10_000);
    let mut message = capnp::message::Builder::new(allocator);
    let query = message.init_root::<wire::query::Builder<'_>>();
    let mut expr = query.init_root().init_values().init_rows(1).get(0).init_expressions(1).get(0);
    for _ in 0..60 {
        expr = expr.init_binary().init_left();
    }
    let mut bytes = serialize::write_message_to_words(&message);
    let mut shared = 0;
    for at in (16..bytes.len() - 16).step_by(8) {
        let left = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let (offset, kind) = (left as u32 >> 2, left & 3);
        if kind == 0 && offset > 0 && left >> 32 != 0 && bytes[at + 8..at + 16] == [0; 8] {
            // The same target, seen from one word further.
            let right = (left & !0xffff_ffff) | u64::from((offset - 1) << 2);
            bytes[at + 8..at + 16].copy_from_slice(&right.to_le_bytes());
            shared += 1;
        }
    }
    assert!(shared >= 60, "{shared}");
    let started = Instant::now();
    let error = error(&bytes);
    assert!(error.contains("limit"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// A list of a hundred million elements of no size takes one word.
#[test]
fn lists_of_nothing_are_refused() {
    let mut message = capnp::message::Builder::new_default();
    let query = message.init_root::<wire::query::Builder<'_>>();
    query.init_root().init_union().init_inputs(1);
    let bytes = serialize::write_message_to_words(&message);
    let list = bytes.chunks_exact(8).rposition(|w| w[0] & 3 == 1 && w[4] & 7 == 7).unwrap();
    for size in [0u64, 7] {
        let mut bytes = bytes.clone();
        let pointer = 1 | (size << 32) | (((1u64 << 28) - 1) << 35);
        bytes[list * 8..list * 8 + 8].copy_from_slice(&pointer.to_le_bytes());
        assert!(decode(&bytes).is_err());
    }
}

#[test]
fn pointers_in_a_circle_are_refused() {
    let mut message = capnp::message::Builder::new_default();
    let query = message.init_root::<wire::query::Builder<'_>>();
    query.init_root().init_exchange().init_input().init_exchange();
    let bytes = serialize::write_message_to_words(&message);
    // Point each pointer word at every other place of this small message, backwards too.
    let mut circles = 0;
    for word in 1..bytes.len() / 8 {
        for offset in -12i32..12 {
            let mut bytes = bytes.clone();
            bytes[word * 8..word * 8 + 4].copy_from_slice(&(offset << 2).to_le_bytes());
            circles += usize::from(decode(&bytes).is_err_and(|e| e.to_string().contains("nested plan nodes")));
        }
    }
    assert!(circles > 0);
}

fn negations(depth: usize) -> Query {
    let one = Expr::Literal(Literal { ty: DataType::Int64, value: Value::Int(1) });
    let expr = (1..depth).fold(one, |expr, _| Expr::Unary { op: UnaryOp::Negate, input: Box::new(expr) });
    let values = Values { fields: vec![sample::field(1, DataType::Int64)], rows: vec![vec![expr]] };
    Query { subplans: vec![], root: Plan::new(Node::Values(values)), output: vec![] }
}

fn limits(depth: usize) -> Query {
    let leaf = Plan::new(Node::Values(Values { fields: vec![], rows: vec![] }));
    let limit = |plan, _| Plan::new(Node::Limit { input: Box::new(plan), fetch: None, skip: 0 });
    Query { subplans: vec![], root: (1..depth).fold(leaf, limit), output: vec![] }
}

/// The deepest plan that is allowed takes little of a small thread's stack, also in a debug build.
#[test]
fn depth_is_limited_and_the_limit_fits_the_stack() {
    let run = || {
        for query in [negations(MAX_EXPRESSION_DEPTH), limits(MAX_PLAN_DEPTH)] {
            assert_eq!(decode(&encode(&query).unwrap()).unwrap(), query);
        }
        let mut deepest = limits(MAX_PLAN_DEPTH - 1);
        deepest.root = Plan::new(Node::Filter {
            predicate: Expr::Unary {
                op: UnaryOp::IsNull,
                input: match negations(MAX_EXPRESSION_DEPTH - 1).root.node {
                    Node::Values(mut values) => Box::new(values.rows.remove(0).remove(0)),
                    _ => unreachable!("negations are values"),
                },
            },
            input: Box::new(deepest.root),
        });
        assert_eq!(decode(&encode(&deepest).unwrap()).unwrap(), deepest);
    };
    std::thread::Builder::new().stack_size(3 << 19).spawn(run).unwrap().join().unwrap();
    assert!(encode(&negations(MAX_EXPRESSION_DEPTH + 1)).unwrap_err().to_string().contains("nested expressions"));
    assert!(encode(&limits(MAX_PLAN_DEPTH + 1)).unwrap_err().to_string().contains("nested plan nodes"));
}

/// The same depth from a writer that does not keep to the limits.
#[test]
fn a_message_that_is_too_deep_is_refused() {
    let mut message = capnp::message::Builder::new_default();
    let mut plan = message.init_root::<wire::query::Builder<'_>>().init_root();
    for _ in 0..100_000 {
        plan = plan.init_filter().init_input();
    }
    let bytes = serialize::write_message_to_words(&message);
    assert!(error(&bytes).contains("nested plan nodes"));

    let mut message = capnp::message::Builder::new_default();
    let query = message.init_root::<wire::query::Builder<'_>>();
    let mut expr = query.init_root().init_values().init_rows(1).get(0).init_expressions(1).get(0);
    for _ in 0..100_000 {
        expr = expr.init_unary().init_input();
    }
    let bytes = serialize::write_message_to_words(&message);
    assert!(error(&bytes).contains("nested expressions"));
}

#[test]
fn what_is_missing_is_named() {
    let mut message = capnp::message::Builder::new_default();
    message.init_root::<wire::query::Builder<'_>>();
    assert!(error(&serialize::write_message_to_words(&message)).contains("root of the query is missing"));

    let mut message = capnp::message::Builder::new_default();
    message.init_root::<wire::query::Builder<'_>>().init_root().init_filter();
    assert!(error(&serialize::write_message_to_words(&message)).contains("input of a plan node is missing"));

    assert!(decode(&[]).is_err());
}

#[test]
fn what_a_newer_version_added_is_refused_as_such() {
    let mut message = capnp::message::Builder::new_default();
    let mut query = message.init_root::<wire::query::Builder<'_>>();
    query.set_requires(PLAN_VERSION + 1);
    assert!(error(&serialize::write_message_to_words(&message)).contains("newer version"));

    // The tag of the root's union is somewhere in the message.
    let bytes = encode(&limits(1)).unwrap();
    let refused = (8..bytes.len() - 1).step_by(2).any(|at| {
        let mut bytes = bytes.clone();
        bytes[at..at + 2].copy_from_slice(&999u16.to_le_bytes());
        decode(&bytes).is_err_and(|e| e.to_string().contains("kind of plan node 999, which this release does not know"))
    });
    assert!(refused);
}

#[test]
fn a_decimal_out_of_range_is_refused() {
    for (precision, scale) in [(0, 0), (39, 0), (255, 0), (10, 11), (10, -1)] {
        let ty = DataType::Decimal { precision, scale };
        let fields = vec![sample::field(1, ty)];
        let root = Plan::new(Node::Values(Values { fields, rows: vec![] }));
        let bytes = encode(&Query { subplans: vec![], root, output: vec![] }).unwrap();
        assert!(error(&bytes).contains("out of range"));
    }
}

#[test]
fn a_name_that_is_too_long_is_refused() {
    let mut field = sample::field(1, DataType::Int64);
    field.name = "x".repeat(limits::MAX_NAME_BYTES + 1);
    let root = Plan::new(Node::Values(Values { fields: vec![field], rows: vec![] }));
    assert!(encode(&Query { subplans: vec![], root, output: vec![] }).is_err());
}
