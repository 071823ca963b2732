//! Tests of distribution.

use super::*;
use crate::{Field, ScanColumn};

fn field(id: u32) -> Field {
    Field { id: ColumnId(id), name: format!("c{id}"), ty: DataType::Int64, nullable: true }
}

fn column(id: u32) -> Expr {
    Expr::Column(ColumnId(id), DataType::Int64)
}

/// So many rows of a table of two columns, sharded by the first one.
fn scan(rows: f64) -> Plan {
    let columns = (0..2).map(|ordinal| ScanColumn { ordinal, field: field(ordinal) }).collect();
    let scan = Scan {
        table: "t".into(),
        columns,
        filters: vec![],
        filter_columns: vec![],
        runtime_filters: vec![],
        reference: false,
        shard_key: vec![0],
        revision: 0,
    };
    Plan { rows, ..Plan::new(Node::Scan(scan)) }
}

/// An aggregate of the second column's values in so many groups, by a column.
fn grouped(input: Plan, groups: f64, by: u32, (function, distinct): (AggregateFunction, bool)) -> Plan {
    let call = AggregateCall { function, args: vec![column(1)], distinct, filter: None, order_by: vec![], ty: DataType::Int64 };
    let aggregate = Aggregate {
        input,
        keys: vec![(field(2), column(by))],
        grouping_sets: vec![],
        grouping_id: None,
        calls: vec![(field(3), call)],
        phase: Phase::Single,
    };
    Plan { rows: groups, ..Plan::new(Node::Aggregate(Box::new(aggregate))) }
}

/// The exchanges of a plan on so many leaves, from the root on.
fn exchanges(plan: Plan, leaves: usize) -> Vec<&'static str> {
    let output = plan.fields();
    let query = distribute_over_leaves(Query { subplans: vec![], root: plan, output }, Net { leaves, always_shuffle: false });
    let mut found = Vec::new();
    query.root.walk(&mut |node| {
        if let Node::Exchange { kind, .. } = &node.node {
            found.push(match kind {
                ExchangeKind::Gather => "gather",
                ExchangeKind::Broadcast => "broadcast",
                ExchangeKind::Shuffle(_) => "shuffle",
            });
        }
    });
    found
}

#[test]
fn what_is_much_to_merge_is_merged_on_the_leaves() {
    use AggregateFunction::{Count, Median, Sum};
    let (rows, few) = (MANY_VALUES * 2.0, ENOUGH_GROUPS);
    let of = |rows, groups, call| exchanges(grouped(scan(rows), groups, 1, call), 3);
    assert_eq!(of(1e9, MANY_GROUPS, (Sum, false)), ["gather"]);
    assert_eq!(of(1e9, MANY_GROUPS * 2.0, (Sum, false)), ["gather", "shuffle"]);
    // States that keep values are as large as these are many.
    for call in [(Count, true), (Median, false)] {
        assert_eq!(of(rows, few * 2.0, call), ["gather", "shuffle"]);
        assert_eq!(of(rows, few, call), ["gather"], "few groups are few leaves' work");
        assert_eq!(of(rows / 2.0, few * 2.0, call), ["gather"]);
        assert_eq!(exchanges(grouped(scan(rows), few * 2.0, 1, call), 1), ["gather"], "one leaf merges nothing");
    }
}

#[test]
fn groups_by_the_shard_key_are_whole_where_they_are() {
    let plan = grouped(scan(1e9), 1e9, 0, (AggregateFunction::Count, true));
    let (placed, place) = place(plan, Net { leaves: 3, always_shuffle: false });
    assert!(matches!(placed.node, Node::Aggregate(aggregate) if aggregate.phase == Phase::Single));
    assert_eq!(place, Place::Partitioned(vec![vec![ColumnId(2)]]));
}
