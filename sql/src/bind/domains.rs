//! Correlated scalar subqueries whose correlation is not made of equalities, `(SELECT sum(b.x) FROM b WHERE b.k < a.k)`, as ones whose
//! correlation is, which the front end has joins for.
//!
//! The subquery reads the domain beside its own tables: the distinct values of the outer columns that it reads. What it said of an outer
//! column it says of the domain's, and the domain's is the outer one, NULL or not (Neumann and Kemper, "Unnesting Arbitrary Queries",
//! 2015).

use std::collections::HashSet;
use std::sync::Arc;

use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, Result, ScalarValue};
use datafusion_expr::logical_plan::{Distinct, Filter, Subquery};
use datafusion_expr::utils::{conjunction, split_conjunction};
use datafusion_expr::{BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, lit, when};
use datafusion_optimizer::AnalyzerRule;

use super::named::rewrite_named;
use super::output::MARK;

/// See the module.
#[derive(Debug)]
pub(crate) struct Domains;

impl AnalyzerRule for Domains {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let each = |node: LogicalPlan| {
            let outer = match &node {
                LogicalPlan::Filter(filter) => Arc::clone(&filter.input),
                LogicalPlan::Projection(projection) => Arc::clone(&projection.input),
                _ => return Ok(Transformed::no(node)),
            };
            node.map_expressions(|expr| {
                rewrite_named(expr, |e| match e {
                    Expr::ScalarSubquery(subquery) => over_domain(subquery, &outer),
                    other => Ok(Transformed::no(other)),
                })
            })
        };
        Ok(plan.transform_up_with_subqueries(each)?.data)
    }

    fn name(&self) -> &'static str {
        "domains"
    }
}

/// The subquery of a node over some rows; as it was if its correlation is made of equalities, or is of a form that is left to be refused.
fn over_domain(subquery: Subquery, outer: &Arc<LogicalPlan>) -> Result<Transformed<Expr>> {
    if !is_candidate(&subquery, outer)? {
        return Ok(Transformed::no(Expr::ScalarSubquery(subquery)));
    }
    let domain = Domain::new(&subquery);
    let done = subquery.subquery.as_ref().clone().transform_up(|node| match node {
        LogicalPlan::Filter(filter) if filter.predicate.contains_outer() => Ok(Transformed::yes(domain.join(filter, outer)?)),
        node => Ok(Transformed::yes(node.recompute_schema()?)),
    })?;
    Ok(Transformed::yes(Expr::ScalarSubquery(Subquery { subquery: Arc::new(done.data), ..subquery })))
}

/// Whether the outer columns are read by one filter alone, in other conditions than equalities, and all of them are the outer rows' own.
fn is_candidate(subquery: &Subquery, outer: &LogicalPlan) -> Result<bool> {
    let own = |e: &Expr| matches!(e, Expr::OuterReferenceColumn(_, column) if outer.schema().has_column(column));
    if subquery.outer_ref_columns.is_empty() || !subquery.outer_ref_columns.iter().all(own) {
        return Ok(false);
    }
    if !outer.all_out_ref_exprs().is_empty() || !is_repeatable(outer)? {
        return Ok(false);
    }
    let (mut filters, mut others, mut unequal) = (0, 0, false);
    subquery.subquery.apply(|node| {
        match node {
            LogicalPlan::Filter(filter) if filter.predicate.contains_outer() => {
                filters += 1;
                others += usize::from(filter.predicate.exists(|e| Ok(is_subquery(e)))?);
                let conditions = split_conjunction(&filter.predicate);
                unequal |= conditions.into_iter().any(|e| e.contains_outer() && !is_equality(e));
            }
            node => others += usize::from(node.contains_outer_reference()),
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(filters == 1 && others == 0 && unequal)
}

fn is_subquery(e: &Expr) -> bool {
    matches!(e, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_))
}

/// Whether rows are the same each time that they are made: the domain makes them once more than the query that reads them. `LIMIT` may
/// take others, and sums of floats differ with their order.
fn is_repeatable(rows: &LogicalPlan) -> Result<bool> {
    let mut repeatable = true;
    rows.apply_with_subqueries(|node| {
        repeatable &= match node {
            LogicalPlan::Aggregate(node) => node.aggr_expr.iter().all(|call| is_exact(call, node.input.schema())),
            LogicalPlan::Distinct(Distinct::All(_))
            | LogicalPlan::EmptyRelation(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Projection(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::TableScan(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::Values(_) => true,
            _ => false,
        };
        node.apply_expressions(|expr| {
            repeatable &= !expr.is_volatile();
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(repeatable)
}

/// An aggregate whose value does not hang on the order of its rows.
fn is_exact(call: &Expr, input: &DFSchema) -> bool {
    let Expr::AggregateFunction(aggregate) = call else { return false };
    match aggregate.func.name() {
        "count" | "min" | "max" => true,
        "sum" => call.get_type(input).is_ok_and(|ty| !ty.is_floating()),
        _ => false,
    }
}

/// A condition that an inner column is equal to something outer.
fn is_equality(condition: &Expr) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return false };
    let column = |e: &Expr| match e {
        Expr::Column(_) => true,
        Expr::Cast(Cast { expr, .. }) => matches!(**expr, Expr::Column(_)),
        _ => false,
    };
    let of = |inner: &Expr, outer: &Expr| column(inner) && outer.column_refs().is_empty();
    of(left, right) || of(right, left)
}

/// The outer columns that a subquery reads, each as a column of the domain.
struct Domain(Vec<Expr>);

impl Domain {
    fn new(subquery: &Subquery) -> Domain {
        let mut columns = subquery.outer_ref_columns.clone();
        let mut seen = HashSet::new();
        columns.retain(|column| seen.insert(column.clone()));
        Domain(columns)
    }

    fn column(place: usize) -> Expr {
        Expr::Column(Column::new(Some(relation()), format!("c{place}")))
    }

    /// The filter's rows beside the domain, with conditions of its columns, which are the outer ones.
    fn join(&self, filter: Filter, outer: &Arc<LogicalPlan>) -> Result<LogicalPlan> {
        let named = self.0.iter().enumerate().filter_map(|(place, outer_column)| match outer_column {
            Expr::OuterReferenceColumn(_, column) => Some(Expr::Column(column.clone()).alias(format!("c{place}"))),
            _ => None,
        });
        let values = LogicalPlanBuilder::from(Arc::clone(outer)).project(named)?.distinct()?;
        let mut keys: Vec<Expr> = (0..self.0.len()).map(|place| Expr::Column(Column::from_name(format!("c{place}")))).collect();
        let mut conditions = Vec::new();
        for (place, outer_column) in self.0.iter().enumerate() {
            let Expr::OuterReferenceColumn(field, _) = outer_column else { continue };
            let key = |name: &str| Expr::Column(Column::new(Some(relation()), format!("{name}{place}")));
            if !field.is_nullable() {
                conditions.push(Domain::column(place).eq(outer_column.clone()));
                continue;
            }
            // NULL is equal to NULL here: a key that is never NULL, and whether it stands for NULL.
            let default = lit(ScalarValue::new_default(field.data_type())?);
            let known = |e: &Expr| when(e.clone().is_null(), default.clone()).otherwise(e.clone());
            let own = Expr::Column(Column::from_name(format!("c{place}")));
            keys.push(known(&own)?.alias(format!("k{place}")));
            keys.push(own.is_null().alias(format!("n{place}")));
            conditions.push(key("k").eq(known(outer_column)?));
            conditions.push(key("n").eq(outer_column.clone().is_null()));
        }
        let domain = values.project(keys)?.alias(relation())?.build()?;
        let predicate = filter.predicate.transform_up(|e| match self.0.iter().position(|known| *known == e) {
            Some(place) => Ok(Transformed::yes(Domain::column(place))),
            None => Ok(Transformed::no(e)),
        })?;
        conditions.insert(0, predicate.data);
        let rows = LogicalPlanBuilder::from(filter.input).cross_join(domain)?;
        rows.filter(conjunction(conditions).unwrap_or_else(|| lit(true)))?.build()
    }
}

/// What the domain is called in a subquery.
fn relation() -> String {
    format!("domain{MARK}")
}
