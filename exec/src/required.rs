//! Which columns of each node are read above it. Operators carry only these.

use std::collections::{HashMap, HashSet};

use stoa_plan::{Aggregate, ColumnId, Expr, Join, Node, Plan};

/// The columns that are read above each node of a plan, by the node's address.
#[derive(Debug, Default)]
pub(crate) struct Required {
    nodes: HashMap<usize, HashSet<ColumnId>>,
}

impl Required {
    /// Adds a plan whose columns `wanted` are read.
    pub fn add(&mut self, plan: &Plan, wanted: HashSet<ColumnId>) {
        match &plan.node {
            Node::Scan(_) | Node::Values(_) | Node::SubplanScan(_) => {}
            Node::Filter { input, predicate: e } | Node::Repeat { input, times: e } => self.add(input, with(&wanted, [e])),
            Node::Project { input, exprs } => {
                let used = exprs.iter().filter(|(field, _)| wanted.contains(&field.id)).map(|(_, e)| e);
                self.add(input, with(&HashSet::new(), used));
            }
            Node::Join(join) => self.join(join, &wanted),
            Node::Aggregate(aggregate) => self.add(&aggregate.input, aggregate_inputs(aggregate)),
            Node::Sort { input, keys, .. } => self.add(input, with(&wanted, keys.iter().map(|k| &k.expr))),
            Node::Limit { input, .. } | Node::Window { input, .. } | Node::Exchange { input, .. } => {
                let mut wanted = wanted.clone();
                if let Node::Exchange { kind: stoa_plan::ExchangeKind::Shuffle(exprs), .. } = &plan.node {
                    wanted = with(&wanted, exprs);
                }
                self.add(input, wanted);
            }
            Node::Union { inputs, fields } => {
                for (input, ids) in inputs {
                    let used = fields.iter().zip(ids).filter(|(f, _)| wanted.contains(&f.id)).map(|(_, id)| *id);
                    self.add(input, used.collect());
                }
            }
        }
        self.nodes.insert(std::ptr::from_ref(plan) as usize, wanted);
    }

    fn join(&mut self, join: &Join, wanted: &HashSet<ColumnId>) {
        let all = with(wanted, join.residual.iter());
        let side =
            |plan: &Plan| -> HashSet<ColumnId> { plan.fields().iter().map(|f| f.id).filter(|id| all.contains(id)).collect() };
        self.add(&join.left, with(&side(&join.left), join.on.iter().map(|(l, _)| l)));
        self.add(&join.right, with(&side(&join.right), join.on.iter().map(|(_, r)| r)));
    }

    /// Whether a column of a node is read above it. A node that was never added has all its columns read.
    pub fn wants(&self, plan: &Plan, column: ColumnId) -> bool {
        self.nodes.get(&(std::ptr::from_ref(plan) as usize)).is_none_or(|set| set.contains(&column))
    }
}

/// The columns that an aggregation reads; those of the states of the final step too.
fn aggregate_inputs(aggregate: &Aggregate) -> HashSet<ColumnId> {
    if aggregate.phase == stoa_plan::Phase::Final {
        return aggregate.input.fields().iter().map(|f| f.id).collect();
    }
    let calls = aggregate
        .calls
        .iter()
        .flat_map(|(_, call)| call.args.iter().chain(&call.filter).chain(call.order_by.iter().map(|k| &k.expr)));
    with(&HashSet::new(), aggregate.keys.iter().map(|(_, e)| e).chain(calls))
}

/// `base` and the columns of expressions.
fn with<'a>(base: &HashSet<ColumnId>, exprs: impl IntoIterator<Item = &'a Expr>) -> HashSet<ColumnId> {
    let mut all = base.clone();
    for expr in exprs {
        all.extend(expr.columns());
    }
    all
}
