//! Subqueries in `ON`, inside aggregates and in `ORDER BY`, where the front end has no joins for them: they become conditions of a
//! filter or columns of a projection below or above, where it has.

use std::sync::Arc;

use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchemaRef, Result};
use datafusion_expr::utils::{conjunction, split_conjunction_owned};
use datafusion_expr::{Aggregate, Expr, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Sort};
use datafusion_optimizer::AnalyzerRule;

use super::output::MARK;
use crate::SqlError;

/// See the module.
#[derive(Debug)]
pub(crate) struct LiftSubqueries;

impl AnalyzerRule for LiftSubqueries {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let each = |node| match node {
            LogicalPlan::Join(join) if join.filter.as_ref().is_some_and(has_subquery) => of_join(join).map(Transformed::yes),
            LogicalPlan::Aggregate(node) if node.aggr_expr.iter().chain(&node.group_expr).any(has_subquery) => {
                of_aggregate(node).map(Transformed::yes)
            }
            LogicalPlan::Sort(sort) if sort.expr.iter().any(|key| has_subquery(&key.expr)) => of_sort(sort).map(Transformed::yes),
            node => Ok(Transformed::no(node)),
        };
        Ok(plan.transform_up_with_subqueries(each)?.data)
    }

    fn name(&self) -> &'static str {
        "lift_subqueries"
    }
}

/// Whether an expression has a subquery that must become a join; the value of one that reads no outer column is found before.
fn has_subquery(expr: &Expr) -> bool {
    expr.exists(|e| Ok(is_subquery(e))).unwrap_or(false)
}

fn is_subquery(expr: &Expr) -> bool {
    match expr {
        Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => true,
        Expr::ScalarSubquery(subquery) => !subquery.outer_ref_columns.is_empty(),
        _ => false,
    }
}

/// A node's input with a column for each subquery.
struct Lifted {
    /// In the names of the new columns, so that those of both sides of a join differ. They go no further than this node.
    place: &'static str,
    columns: Vec<Expr>,
}

impl Lifted {
    fn new(place: &'static str, schema: &DFSchemaRef) -> Lifted {
        Lifted { place, columns: schema.columns().into_iter().map(Expr::Column).collect() }
    }

    /// The expression, with columns in the place of its subqueries; named as before.
    fn expr(&mut self, expr: Expr) -> Result<Expr> {
        let name = expr.schema_name().to_string();
        let done = expr.transform_down(|e| match is_subquery(&e) {
            true => Ok(Transformed::new(self.column(e), true, TreeNodeRecursion::Jump)),
            false => Ok(Transformed::no(e)),
        })?;
        Ok(if done.data.schema_name().to_string() == name { done.data } else { done.data.alias(name) })
    }

    /// The column of an expression, which a projection computes.
    fn column(&mut self, expr: Expr) -> Expr {
        let name = format!("subquery {}{MARK}{}", self.columns.len(), self.place);
        self.columns.push(expr.alias(&name));
        Expr::Column(Column::from_name(name))
    }

    fn project(self, input: Arc<LogicalPlan>) -> Result<LogicalPlan> {
        LogicalPlanBuilder::from(input).project(self.columns)?.build()
    }
}

fn of_aggregate(aggregate: Aggregate) -> Result<LogicalPlan> {
    let mut lifted = Lifted::new("aggregate", aggregate.input.schema());
    let group: Vec<Expr> = aggregate.group_expr.into_iter().map(|e| lifted.expr(e)).collect::<Result<_>>()?;
    let calls: Vec<Expr> = aggregate.aggr_expr.into_iter().map(|e| lifted.expr(e)).collect::<Result<_>>()?;
    let input = lifted.project(aggregate.input)?;
    Ok(LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), group, calls)?))
}

fn of_sort(mut sort: Sort) -> Result<LogicalPlan> {
    let output = sort.input.schema().columns();
    let mut lifted = Lifted::new("sort", sort.input.schema());
    for key in &mut sort.expr {
        key.expr = lifted.expr(std::mem::take(&mut key.expr))?.unalias();
    }
    let input = Arc::new(lifted.project(sort.input)?);
    let sorted = LogicalPlan::Sort(Sort { input, ..sort });
    LogicalPlanBuilder::from(sorted).project(output.into_iter().map(Expr::Column))?.build()
}

/// Of an inner join, conditions with subqueries hold above it. Of others, a condition on one side filters that side if its rows
/// without a match are not to be seen, and is a column of it otherwise.
fn of_join(mut join: Join) -> Result<LogicalPlan> {
    let conditions = join.filter.take().map(split_conjunction_owned).unwrap_or_default();
    let (subqueries, mut plain): (Vec<Expr>, Vec<Expr>) = conditions.into_iter().partition(has_subquery);
    if join.join_type == JoinType::Inner {
        join.filter = conjunction(plain);
        let builder = LogicalPlanBuilder::from(LogicalPlan::Join(join));
        return match conjunction(subqueries) {
            Some(condition) => builder.filter(condition)?.build(),
            None => builder.build(),
        };
    }
    let output = join.schema.columns();
    let (mut left, mut right) = (Side::new("left", &join.left), Side::new("right", &join.right));
    for condition in subqueries {
        let columns = columns_of(&condition)?;
        let of = |side: &Side| columns.iter().any(|column| side.schema.has_column(column));
        let keeps = |kinds: &[JoinType]| kinds.contains(&join.join_type);
        let condition = match (of(&left), of(&right)) {
            (true, true) => {
                let message = "a subquery in ON that reads columns of both sides of an outer join is not supported";
                return Err(SqlError::new(message).into());
            }
            (true, false) => {
                left.condition(condition, keeps(&[JoinType::Right, JoinType::RightSemi, JoinType::RightAnti, JoinType::LeftSemi]))
            }
            _ => {
                right.condition(condition, keeps(&[JoinType::Left, JoinType::LeftSemi, JoinType::LeftAnti, JoinType::RightSemi]))
            }
        };
        plain.extend(condition);
    }
    let added = left.lifted.is_some() || right.lifted.is_some();
    let (left, right) = (left.build(join.left)?, right.build(join.right)?);
    let builder = LogicalPlanBuilder::from(left).join_on(right, join.join_type, conjunction(plain))?;
    if added { builder.project(output.into_iter().map(Expr::Column))?.build() } else { builder.build() }
}

/// One input of a join and what is done to it first.
struct Side {
    place: &'static str,
    schema: DFSchemaRef,
    filters: Vec<Expr>,
    lifted: Option<Lifted>,
}

impl Side {
    fn new(place: &'static str, input: &LogicalPlan) -> Side {
        Side { place, schema: Arc::clone(input.schema()), filters: vec![], lifted: None }
    }

    /// Applies a condition here, or gives back what of it the join is to check.
    fn condition(&mut self, condition: Expr, filters: bool) -> Option<Expr> {
        if filters {
            self.filters.push(condition);
            return None;
        }
        Some(self.lifted.get_or_insert_with(|| Lifted::new(self.place, &self.schema)).column(condition))
    }

    fn build(self, input: Arc<LogicalPlan>) -> Result<LogicalPlan> {
        let mut builder = LogicalPlanBuilder::from(input);
        if let Some(condition) = conjunction(self.filters) {
            builder = builder.filter(condition)?;
        }
        let input = builder.build()?;
        match self.lifted {
            Some(lifted) => lifted.project(Arc::new(input)),
            None => Ok(input),
        }
    }
}

/// The columns that an expression reads, those that its subqueries read of the query around them too.
fn columns_of(expr: &Expr) -> Result<Vec<Column>> {
    let mut found = Vec::new();
    expr.apply(|e| {
        let outer = match e {
            Expr::Column(column) => {
                found.push(column.clone());
                return Ok(TreeNodeRecursion::Continue);
            }
            Expr::Exists(exists) => &exists.subquery.outer_ref_columns,
            Expr::InSubquery(found) => &found.subquery.outer_ref_columns,
            Expr::SetComparison(found) => &found.subquery.outer_ref_columns,
            Expr::ScalarSubquery(subquery) => &subquery.outer_ref_columns,
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        found.extend(outer.iter().filter_map(|e| match e {
            Expr::OuterReferenceColumn(_, column) => Some(column.clone()),
            _ => None,
        }));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}
