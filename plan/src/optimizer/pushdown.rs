//! Pushes predicates towards the scans and hands every group of joins to the join order ([`super::region`]).

use hashbrown::HashMap;

use super::estimate::Estimator;
use super::predicates::{conjunction, factor, is_volatile, split_conjuncts, substitute};
use super::region;
use crate::{Aggregate, ColumnId, DataType, Expr, JoinKind, Node, Plan};

/// Rewrites plans of one query.
pub struct Rewriter<'a> {
    /// For the join order.
    pub estimator: &'a Estimator<'a>,
}

impl Rewriter<'_> {
    /// `plan` with `predicates`, conjuncts over its output, applied as far down as they go. `groups`: by which of its columns its rows
    /// will be grouped.
    pub fn rewrite(&self, plan: Plan, predicates: Vec<Expr>, groups: &[(ColumnId, DataType)]) -> Plan {
        let Plan { id, rows, node } = plan;
        let again = |node| Plan { id, rows, node };
        match node {
            Node::Filter { input, predicate } => {
                let mut all = predicates;
                split_conjuncts(predicate, &mut all);
                self.rewrite(*input, factor(all), groups)
            }
            Node::Scan(mut scan) => {
                let (mine, above) = predicates.into_iter().partition(|p| !p.columns().is_empty() && !is_volatile(p));
                let mut mine: Vec<Expr> = mine;
                mine.retain(|p| !scan.filters.contains(p));
                scan.filters.extend(mine);
                filtered(again(Node::Scan(scan)), above)
            }
            Node::Project { input, exprs } => {
                let map: HashMap<ColumnId, Expr> = exprs.iter().map(|(field, e)| (field.id, e.clone())).collect();
                let (below, above) = push_through(predicates, &map, &|_| true);
                let below_it = |id: ColumnId| exprs.iter().find(|(field, _)| field.id == id).map(|(_, e)| e);
                let groups = columns(groups.iter().filter_map(|(id, _)| below_it(*id)));
                let input = Box::new(self.rewrite(*input, below, &groups));
                filtered(again(Node::Project { input, exprs }), above)
            }
            Node::Join(join) => match join.kind {
                JoinKind::Full => self.opaque_join(*join, predicates),
                JoinKind::Inner if join.null_equals_null => self.opaque_join(*join, predicates),
                _ => region::rewrite(self, again(Node::Join(join)), predicates, groups),
            },
            Node::Aggregate(aggregate) => {
                let (aggregate, above) = self.aggregate(*aggregate, predicates);
                filtered(again(Node::Aggregate(Box::new(aggregate))), above)
            }
            Node::Sort { input, keys, fetch: None, skip: 0 } => {
                let input = Box::new(self.rewrite(*input, predicates, &[]));
                again(Node::Sort { input, keys, fetch: None, skip: 0 })
            }
            Node::Union { inputs, fields } => {
                let inputs = inputs.into_iter().map(|(input, ids)| {
                    let map: HashMap<ColumnId, Expr> =
                        fields.iter().zip(&ids).map(|(f, id)| (f.id, Expr::Column(*id, f.ty))).collect();
                    let mut below = predicates.clone();
                    below.iter_mut().for_each(|p| substitute(p, &map));
                    (self.rewrite(input, below, &[]), ids)
                });
                let inputs = inputs.collect();
                again(Node::Union { inputs, fields })
            }
            node => {
                let mut plan = again(node);
                for input in plan.inputs_mut() {
                    let taken = input.take();
                    *input = self.rewrite(taken, vec![], &[]);
                }
                filtered(plan, predicates)
            }
        }
    }

    /// A join that is not reordered; its build side is the smaller one.
    fn opaque_join(&self, mut join: crate::Join, predicates: Vec<Expr>) -> Plan {
        join.left = self.rewrite(join.left, vec![], &[]);
        join.right = self.rewrite(join.right, vec![], &[]);
        let smaller = self.estimator.plan(&join.left).rows < self.estimator.plan(&join.right).rows;
        join.build = if smaller { crate::Side::Left } else { crate::Side::Right };
        filtered(Plan::new(Node::Join(Box::new(join))), predicates)
    }

    fn aggregate(&self, mut aggregate: Aggregate, predicates: Vec<Expr>) -> (Aggregate, Vec<Expr>) {
        let simple = aggregate.grouping_sets.is_empty();
        let map: HashMap<ColumnId, Expr> = aggregate.keys.iter().map(|(field, e)| (field.id, e.clone())).collect();
        let (below, above) = push_through(predicates, &map, &|p| simple && p.columns().iter().all(|id| map.contains_key(id)));
        let input = aggregate.input.take();
        let groups = if simple { columns(aggregate.keys.iter().map(|(_, e)| e)) } else { vec![] };
        aggregate.input = self.rewrite(input, below, &groups);
        (aggregate, above)
    }
}

/// Those of the expressions that are columns and nothing else.
fn columns<'a>(exprs: impl Iterator<Item = &'a Expr>) -> Vec<(ColumnId, DataType)> {
    exprs.filter_map(|e| Some((e.as_column()?, e.data_type()))).collect()
}

/// Splits predicates into those that may go below, in terms of the columns there, and those that stay.
fn push_through(predicates: Vec<Expr>, map: &HashMap<ColumnId, Expr>, may: &dyn Fn(&Expr) -> bool) -> (Vec<Expr>, Vec<Expr>) {
    let mut below = Vec::new();
    let mut above = Vec::new();
    for mut predicate in predicates {
        let columns = predicate.columns();
        let stable = columns.iter().filter_map(|id| map.get(id)).all(|e| !is_volatile(e)) && !is_volatile(&predicate);
        if !columns.is_empty() && stable && may(&predicate) {
            substitute(&mut predicate, map);
            below.push(predicate);
        } else {
            above.push(predicate);
        }
    }
    (below, above)
}

/// `plan`, filtered if there is anything to filter by.
pub fn filtered(plan: Plan, predicates: Vec<Expr>) -> Plan {
    match conjunction(predicates) {
        Some(predicate) => Plan::new(Node::Filter { input: Box::new(plan), predicate }),
        None => plan,
    }
}
