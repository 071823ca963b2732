//! Walks over plans: every node, every expression, every column that a node defines.

use crate::{AggregateCall, ColumnId, Expr, Field, Node, Plan, Query, SortKey, WindowCall};

impl Plan {
    /// Calls `visit` on this node and every one below it, parents first.
    pub fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Plan)) {
        visit(self);
        for input in self.inputs() {
            input.walk(visit);
        }
    }

    /// Calls `visit` on this node and every one below it, parents first.
    pub fn walk_mut(&mut self, visit: &mut dyn FnMut(&mut Plan)) {
        visit(self);
        for input in self.inputs_mut() {
            input.walk_mut(visit);
        }
    }

    /// The expressions of this node alone, in no particular order.
    #[must_use]
    pub fn expressions(&self) -> Vec<&Expr> {
        match &self.node {
            Node::Scan(scan) => scan.filters.iter().collect(),
            Node::Values(values) => values.rows.iter().flatten().collect(),
            Node::Filter { predicate: e, .. } | Node::Repeat { times: e, .. } => vec![e],
            Node::Project { exprs, .. } => exprs.iter().map(|(_, e)| e).collect(),
            Node::Join(join) => join.on.iter().flat_map(|(l, r)| [l, r]).chain(&join.residual).collect(),
            Node::Aggregate(aggregate) => {
                let mut all: Vec<&Expr> = aggregate.keys.iter().map(|(_, e)| e).collect();
                aggregate.calls.iter().for_each(|(_, call)| all.extend(call.expressions()));
                all
            }
            Node::Sort { keys, .. } => keys.iter().map(|k| &k.expr).collect(),
            Node::Window { calls, .. } => calls.iter().flat_map(WindowCall::expressions).collect(),
            Node::SubplanScan(_) | Node::Limit { .. } | Node::Union { .. } | Node::Exchange { .. } => vec![],
        }
    }

    /// The expressions of this node alone, mutable, in the order of [`Plan::expressions`].
    pub fn expressions_mut(&mut self) -> Vec<&mut Expr> {
        match &mut self.node {
            Node::Scan(scan) => scan.filters.iter_mut().collect(),
            Node::Values(values) => values.rows.iter_mut().flatten().collect(),
            Node::Filter { predicate: e, .. } | Node::Repeat { times: e, .. } => vec![e],
            Node::Project { exprs, .. } => exprs.iter_mut().map(|(_, e)| e).collect(),
            Node::Join(join) => join.on.iter_mut().flat_map(|(l, r)| [l, r]).chain(&mut join.residual).collect(),
            Node::Aggregate(aggregate) => {
                let mut all: Vec<&mut Expr> = aggregate.keys.iter_mut().map(|(_, e)| e).collect();
                aggregate.calls.iter_mut().for_each(|(_, call)| all.extend(call.expressions_mut()));
                all
            }
            Node::Sort { keys, .. } => keys.iter_mut().map(|k| &mut k.expr).collect(),
            Node::Window { calls, .. } => calls.iter_mut().flat_map(WindowCall::expressions_mut).collect(),
            Node::SubplanScan(_) | Node::Limit { .. } | Node::Union { .. } | Node::Exchange { .. } => vec![],
        }
    }

    /// The columns that this node itself defines (not those that it passes on).
    #[must_use]
    pub fn defines(&self) -> Vec<Field> {
        match &self.node {
            Node::Scan(scan) => scan.columns.iter().chain(&scan.filter_columns).map(|c| c.field.clone()).collect(),
            Node::Join(join) => match &join.kind {
                crate::JoinKind::LeftMark(mark) => vec![mark.clone()],
                _ => vec![],
            },
            Node::Window { calls, .. } => calls.iter().map(|c| c.field.clone()).collect(),
            Node::Values(_) | Node::SubplanScan(_) | Node::Project { .. } | Node::Aggregate(_) | Node::Union { .. } => {
                self.fields()
            }
            Node::Filter { .. } | Node::Sort { .. } | Node::Limit { .. } | Node::Repeat { .. } | Node::Exchange { .. } => {
                vec![]
            }
        }
    }
}

impl Query {
    /// The plans, in the order in which they run: the subplans, then the root.
    #[must_use]
    pub fn plans(&self) -> Vec<&Plan> {
        self.subplans.iter().map(|s| &s.plan).chain([&self.root]).collect()
    }

    /// The plans, mutable, in the order in which they run.
    pub fn plans_mut(&mut self) -> Vec<&mut Plan> {
        self.subplans.iter_mut().map(|s| &mut s.plan).chain([&mut self.root]).collect()
    }

    /// A column id that is free, and so is every greater one.
    #[must_use]
    pub fn next_column(&self) -> ColumnId {
        let mut next = self.output.iter().map(|f| f.id.0 + 1).max().unwrap_or(0);
        for plan in self.plans() {
            plan.walk(&mut |node| {
                next = node.defines().iter().map(|f| f.id.0.saturating_add(1)).fold(next, u32::max);
                if let Node::Aggregate(aggregate) = &node.node {
                    next = aggregate.fields().iter().map(|f| f.id.0.saturating_add(1)).fold(next, u32::max);
                }
            });
        }
        ColumnId(next)
    }

    /// Numbers all nodes: subplans first, each tree in pre-order, from 0.
    pub fn number(&mut self) {
        let mut next = 0;
        for plan in self.plans_mut() {
            plan.walk_mut(&mut |node| {
                node.id = crate::NodeId(next);
                next += 1;
            });
        }
    }
}

impl AggregateCall {
    /// All expressions of the call.
    #[must_use]
    pub fn expressions(&self) -> Vec<&Expr> {
        self.args.iter().chain(&self.filter).chain(self.order_by.iter().map(|k| &k.expr)).collect()
    }

    /// All expressions of the call, mutable.
    pub fn expressions_mut(&mut self) -> Vec<&mut Expr> {
        self.args.iter_mut().chain(&mut self.filter).chain(self.order_by.iter_mut().map(|k: &mut SortKey| &mut k.expr)).collect()
    }
}

impl WindowCall {
    /// All expressions of the call.
    #[must_use]
    pub fn expressions(&self) -> Vec<&Expr> {
        self.args.iter().chain(&self.partition_by).chain(self.order_by.iter().map(|k| &k.expr)).collect()
    }

    /// All expressions of the call, mutable.
    pub fn expressions_mut(&mut self) -> Vec<&mut Expr> {
        let keys = self.order_by.iter_mut().map(|k| &mut k.expr);
        self.args.iter_mut().chain(&mut self.partition_by).chain(keys).collect()
    }
}

impl Expr {
    /// Calls `visit` on this expression and every one below it, parents first.
    pub fn walk_mut(&mut self, visit: &mut dyn FnMut(&mut Expr)) {
        visit(self);
        for child in self.children_mut() {
            child.walk_mut(visit);
        }
    }

    /// The column, if this is nothing but one.
    #[must_use]
    pub fn as_column(&self) -> Option<ColumnId> {
        match self {
            Expr::Column(id, _) => Some(*id),
            _ => None,
        }
    }
}
