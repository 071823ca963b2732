//! Which partitions a query reads at all: equality on every column of a shard key leaves one.

use std::collections::BTreeSet;

use arrow::array::ArrayRef;
use arrow::compute::{CastOptions, cast_with_options};
use stoa_columnstore::{partition_of, shard_hashes};
use stoa_plan::{BinaryOp, ColumnId, DataType, Expr, Literal, Node, Plan, Query, Scan, Value};

/// More combinations of values are read everywhere.
const MOST_COMBINATIONS: usize = 64;

/// The partitions, of so many, that hold every row that a query can read; `None`: all of them.
pub(super) fn partitions_read(query: &Query, partitions: usize) -> Option<BTreeSet<usize>> {
    let mut read = BTreeSet::new();
    let mut plans: Vec<&Plan> = query.plans();
    while let Some(plan) = plans.pop() {
        if let Node::Scan(scan) = &plan.node
            && !scan.reference
        {
            read.extend(of_scan(scan, partitions)?);
        }
        plans.extend(plan.inputs());
    }
    (read.len() < partitions && !read.is_empty()).then_some(read)
}

/// Whether a query reads a REFERENCE table.
pub(super) fn reads_reference(query: &Query) -> bool {
    let mut plans: Vec<&Plan> = query.plans();
    while let Some(plan) = plans.pop() {
        if let Node::Scan(scan) = &plan.node
            && scan.reference
        {
            return true;
        }
        plans.extend(plan.inputs());
    }
    false
}

/// The partitions in which rows can pass the filters of a scan.
fn of_scan(scan: &Scan, partitions: usize) -> Option<BTreeSet<usize>> {
    if scan.shard_key.is_empty() {
        return None;
    }
    // Every combination of the values that the columns of the key may have, a list of arrays of one value each.
    let mut combinations: Vec<Vec<ArrayRef>> = vec![vec![]];
    for ordinal in &scan.shard_key {
        let column = scan.columns.iter().chain(&scan.filter_columns).find(|column| column.ordinal == *ordinal)?;
        let values = scan.filters.iter().find_map(|filter| equal_to(filter, column.field.id))?;
        let values: Vec<ArrayRef> = values.into_iter().map(|value| stored(value, column.field.ty)).collect::<Option<_>>()?;
        if combinations.len() * values.len() > MOST_COMBINATIONS {
            return None;
        }
        let with =
            |key: &Vec<ArrayRef>| values.iter().map(|value| [&key[..], std::slice::from_ref(value)].concat()).collect::<Vec<_>>();
        combinations = combinations.iter().flat_map(with).collect();
    }
    let of = |key: Vec<ArrayRef>| shard_hashes(&key).first().map(|hash| partition_of(*hash, partitions));
    combinations.into_iter().map(of).collect()
}

/// The values of which a column must have one for a filter to be true.
fn equal_to(filter: &Expr, column: ColumnId) -> Option<Vec<&Literal>> {
    match filter {
        Expr::Binary { op: BinaryOp::Eq, left, right, .. } => match (left.as_column(), right.as_column()) {
            (Some(id), None) if id == column => Some(vec![literal(right)?]),
            (None, Some(id)) if id == column => Some(vec![literal(left)?]),
            _ => None,
        },
        Expr::InList { input, list, negated: false } if input.as_column() == Some(column) => list.iter().map(literal).collect(),
        _ => None,
    }
}

fn literal(expr: &Expr) -> Option<&Literal> {
    if let Expr::Literal(literal) = expr { Some(literal) } else { None }
}

/// A value in the form in which the column stores it, if it has it there without a change. Floats equal others that are not the same.
fn stored(literal: &Literal, ty: DataType) -> Option<ArrayRef> {
    if literal.value == Value::Null || matches!(ty, DataType::Float32 | DataType::Float64) {
        return None;
    }
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    let value = stoa_exec::literal(literal).ok()?;
    let there = cast_with_options(&value, &ty.to_arrow(), &exact).ok()?;
    let back = cast_with_options(&there, value.data_type(), &exact).ok()?;
    (*back == *value).then_some(there)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, Decimal128Array};

    use super::*;

    #[test]
    fn values_that_a_column_cannot_hold_route_nowhere() {
        let decimal = DataType::Decimal { precision: 10, scale: 1 };
        let literal =
            |unscaled: i128| Literal { ty: DataType::Decimal { precision: 10, scale: 2 }, value: Value::Decimal(unscaled) };
        let there = stored(&literal(150), decimal).unwrap();
        assert_eq!(there.data_type(), &decimal.to_arrow());
        let wide = cast_with_options(&there, &arrow::datatypes::DataType::Decimal128(38, 1), &CastOptions::default()).unwrap();
        assert_eq!(wide.as_any().downcast_ref::<Decimal128Array>().unwrap().value(0), 15);
        assert!(stored(&literal(155), decimal).is_none());
        let float = Literal { ty: DataType::Float64, value: Value::Float(0.0) };
        assert!(stored(&float, DataType::Float64).is_none());
        assert!(stored(&Literal { ty: DataType::Int64, value: Value::Null }, DataType::Int64).is_none());
    }
}
