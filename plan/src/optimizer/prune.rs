//! Column pruning: every node produces only what is read above it. Columns that only a scan's own filters read become
//! `filter_columns`.

use hashbrown::HashSet;

use crate::{Aggregate, ColumnId, Expr, Join, Node, Plan, Query, SubplanKind};

type Needed = HashSet<ColumnId>;

/// Runs the rule on all plans of the query. Shared subplans are pruned to what any reader needs.
pub fn run(query: &mut Query) {
    let needed: Needed = query.output.iter().map(|f| f.id).collect();
    prune(&mut query.root, &needed);
    for at in (0..query.subplans.len()).rev() {
        let needed: Needed = match &query.subplans[at].kind {
            SubplanKind::Scalar(_) | SubplanKind::Filter(_) => {
                query.subplans[at].plan.fields().iter().take(1).map(|f| f.id).collect()
            }
            SubplanKind::Shared(number) | SubplanKind::Received(number) => read_of_shared(query, *number),
        };
        prune(&mut query.subplans[at].plan, &needed);
    }
}

fn read_of_shared(query: &Query, number: u32) -> Needed {
    let mut needed = Needed::new();
    for plan in query.plans() {
        plan.walk(&mut |node| {
            if let Node::SubplanScan(scan) = &node.node
                && scan.subplan == number
            {
                needed.extend(scan.columns.iter().map(|(inner, _)| *inner));
            }
        });
    }
    needed
}

fn and(needed: &Needed, exprs: &[&Expr]) -> Needed {
    let mut all = needed.clone();
    exprs.iter().for_each(|e| all.extend(e.columns()));
    all
}

fn prune(plan: &mut Plan, needed: &Needed) {
    let reads: Vec<ColumnId> = plan.expressions().iter().flat_map(|e| e.columns()).collect();
    match &mut plan.node {
        Node::Scan(scan) => prune_scan(scan, needed),
        Node::Values(_) | Node::SubplanScan(_) => prune_rows(plan, needed),
        Node::Filter { input, .. } | Node::Sort { input, .. } | Node::Repeat { input, .. } => {
            let mut all = needed.clone();
            all.extend(reads);
            prune(input, &all);
        }
        Node::Limit { input, .. } | Node::Exchange { input, .. } => prune(input, needed),
        Node::Project { input, exprs } => {
            exprs.retain(|(field, _)| needed.contains(&field.id));
            let below: Needed = exprs.iter().flat_map(|(_, e)| e.columns()).collect();
            prune(input, &below);
        }
        Node::Join(join) => prune_join(join, needed),
        Node::Aggregate(aggregate) => prune_aggregate(aggregate, needed),
        Node::Union { inputs, fields } => {
            let keep: Vec<bool> = fields.iter().map(|f| needed.contains(&f.id)).collect();
            retain_by(fields, &keep);
            for (input, ids) in inputs {
                retain_by(ids, &keep);
                let below: Needed = ids.iter().copied().collect();
                prune(input, &below);
            }
        }
        Node::Window { input, calls } => {
            calls.retain(|call| needed.contains(&call.field.id));
            let mut all = needed.clone();
            all.extend(calls.iter().flat_map(crate::WindowCall::expressions).flat_map(Expr::columns));
            prune(input, &all);
        }
    }
}

fn prune_rows(plan: &mut Plan, needed: &Needed) {
    match &mut plan.node {
        Node::Values(values) => {
            let keep: Vec<bool> = values.fields.iter().map(|f| needed.contains(&f.id)).collect();
            retain_by(&mut values.fields, &keep);
            values.rows.iter_mut().for_each(|row| retain_by(row, &keep));
        }
        Node::SubplanScan(scan) => scan.columns.retain(|(_, field)| needed.contains(&field.id)),
        _ => {}
    }
}

fn retain_by<T>(items: &mut Vec<T>, keep: &[bool]) {
    let mut flags = keep.iter().copied();
    items.retain(|_| flags.next().unwrap_or(true));
}

fn prune_scan(scan: &mut crate::Scan, needed: &Needed) {
    let all: Vec<crate::ScanColumn> = scan.columns.drain(..).chain(scan.filter_columns.drain(..)).collect();
    let read = and(&scan.runtime_filters.iter().map(|(_, id)| *id).collect(), &scan.filters.iter().collect::<Vec<_>>());
    for column in all {
        if needed.contains(&column.field.id) {
            scan.columns.push(column);
        } else if read.contains(&column.field.id) {
            scan.filter_columns.push(column);
        }
    }
}

fn prune_join(join: &mut Join, needed: &Needed) {
    let mut all = needed.clone();
    all.extend(join.on.iter().flat_map(|(l, r)| [l, r]).chain(&join.residual).flat_map(Expr::columns));
    prune(&mut join.left, &all);
    prune(&mut join.right, &all);
}

fn prune_aggregate(aggregate: &mut Aggregate, needed: &Needed) {
    let one = aggregate.keys.is_empty().then(|| aggregate.calls.first().cloned()).flatten();
    aggregate.calls.retain(|(field, _)| needed.contains(&field.id));
    if aggregate.calls.is_empty() {
        // An aggregation without keys makes one row; it stays an aggregation.
        aggregate.calls.extend(one);
    }
    let keys = aggregate.keys.iter().map(|(_, e)| e);
    let below: Needed =
        keys.chain(aggregate.calls.iter().flat_map(|(_, call)| call.expressions())).flat_map(Expr::columns).collect();
    prune(&mut aggregate.input, &below);
}
