//! `IN (subquery)` with SQL's three truth values, before the front end turns it into joins of two.
//!
//! In a filter, `x NOT IN (S)` is true exactly if no `s` equals `x`, no `s` is NULL, and `x` is not NULL unless `S` is empty.
//! Written that way, each part is a plain anti join. Elsewhere than in a conjunct of a filter, an IN that may be NULL becomes a
//! CASE over EXISTS. Of rows, `(a, b) NOT IN (S)` is true if for each row of `S` one of the comparisons is false. Parts that
//! nullability rules out are left away, so that the usual `NOT IN` over a key stays one anti join.

use std::sync::Arc;

use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, ExprSchema, Result, ScalarValue};
use datafusion_expr::expr::{Exists, InSubquery};
use datafusion_expr::logical_plan::{Distinct, Filter, Subquery};
use datafusion_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, lit};
use datafusion_functions_aggregate::expr_fn::count;
use datafusion_optimizer::AnalyzerRule;

use super::named::rewrite_named;
use super::{markers, typing};
use crate::SqlError;

/// See the module.
#[derive(Debug)]
pub(crate) struct ThreeValuedIn;

impl AnalyzerRule for ThreeValuedIn {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        rewrite_plan(set_apart(plan)?)
    }

    fn name(&self) -> &'static str {
        "three_valued_in"
    }
}

fn rewrite_plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    Ok(plan.transform_up_with_subqueries(|node| rewrite_node(node).map(Transformed::yes))?.data)
}

fn rewrite_node(node: LogicalPlan) -> Result<LogicalPlan> {
    match node {
        LogicalPlan::Filter(filter) => {
            let schema = Arc::clone(filter.input.schema());
            let mut conjuncts = Vec::new();
            for conjunct in split_conjunction_owned(filter.predicate) {
                conjuncts.push(positive(conjunct, &schema)?);
            }
            let predicate = conjunction(conjuncts).unwrap_or_else(|| lit(true));
            Ok(LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?))
        }
        LogicalPlan::Projection(projection) => {
            let schema = Arc::clone(projection.input.schema());
            let node = LogicalPlan::Projection(projection);
            let changed = node.map_expressions(|expr| rewrite_named(expr, |e| value(e, &schema, true)))?;
            changed.data.recompute_schema()
        }
        other => Ok(other),
    }
}

/// A condition of a filter, or a part of one under AND and OR alone: NULL and false are the same there.
fn positive(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    if !has_in_subquery(&expr)? {
        return Ok(expr);
    }
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            Ok(datafusion_expr::binary_expr(positive(*left, schema)?, op, positive(*right, schema)?))
        }
        Expr::Not(inner) => negative(*inner, schema),
        Expr::InSubquery(found) if !found.negated && markers::row(&found.expr).is_some() => {
            let parts = Parts::new(&found, schema)?;
            parts.exists(Some(parts.equal()?), false, false)
        }
        Expr::InSubquery(found) if !found.negated => Ok(Expr::InSubquery(found)),
        Expr::InSubquery(found) => not_in(found, schema),
        other => Ok(other.transform_up(|e| value(e, schema, false))?.data),
    }
}

/// The negation of a part: NOT moves towards the leaves, which changes none of the three values.
fn negative(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            Ok(negative(*left, schema)?.or(negative(*right, schema)?))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            Ok(negative(*left, schema)?.and(negative(*right, schema)?))
        }
        Expr::Not(inner) => positive(*inner, schema),
        Expr::InSubquery(found) => positive(Expr::InSubquery(InSubquery { negated: !found.negated, ..found }), schema),
        Expr::Exists(found) => Ok(Expr::Exists(Exists { negated: !found.negated, ..found })),
        other => {
            let inner = other.transform_up(|e| value(e, schema, false))?.data;
            Ok(Expr::Not(Box::new(inner)))
        }
    }
}

fn has_in_subquery(expr: &Expr) -> Result<bool> {
    expr.exists(|e| Ok(matches!(e, Expr::InSubquery(_))))
}

/// One column of an IN: the operand as seen from inside the subquery, what it is compared with, and what may be NULL.
struct Pair {
    operand: Expr,
    inside: Expr,
    column: Expr,
    operand_nullable: bool,
    column_nullable: bool,
}

/// What an IN needs.
struct Parts {
    pairs: Vec<Pair>,
    /// The rows that are compared.
    rows: Arc<LogicalPlan>,
    subquery: Subquery,
    /// Rows of several values are compared.
    several: bool,
}

impl Parts {
    fn new(found: &InSubquery, schema: &DFSchema) -> Result<Self> {
        let plan = &found.subquery.subquery;
        let several = markers::row(&found.expr).is_some();
        let operands = markers::row(&found.expr).map_or_else(|| vec![(*found.expr).clone()], <[Expr]>::to_vec);
        let (rows, columns) = if several { rows_of(plan)? } else { (Arc::clone(plan), vec![first_column(plan)]) };
        let (rows, columns) = apart(rows, columns, &found.subquery, &operands)?;
        let mut pairs = Vec::with_capacity(operands.len());
        for (operand, column) in operands.into_iter().zip(columns) {
            pairs.push(Pair {
                operand_nullable: operand.nullable(schema)?,
                column_nullable: column.nullable(rows.schema())?,
                inside: seen_from_inside(&operand, schema)?,
                operand,
                column,
            });
        }
        Ok(Parts { pairs, rows, subquery: found.subquery.clone(), several })
    }

    /// `[NOT] EXISTS (SELECT * FROM S WHERE condition)`; where a filter may not hold it, as a count.
    fn exists(&self, condition: Option<Expr>, negated: bool, as_count: bool) -> Result<Expr> {
        let mut outer = self.subquery.outer_ref_columns.clone();
        let mut rows = self.rows.as_ref().clone();
        if let Some(condition) = condition {
            condition.apply(|e| {
                if matches!(e, Expr::OuterReferenceColumn(..)) && !outer.contains(e) {
                    outer.push(e.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
            rows = match rows {
                LogicalPlan::Filter(filter) => {
                    LogicalPlan::Filter(Filter::try_new(filter.predicate.and(condition), filter.input)?)
                }
                rows => LogicalPlan::Filter(Filter::try_new(condition, Arc::new(rows))?),
            };
        }
        let mut builder = LogicalPlanBuilder::from(rows);
        if self.single().is_none() {
            builder = builder.project([lit(1i64)])?;
        }
        let subquery =
            Subquery { subquery: Arc::new(builder.build()?), outer_ref_columns: outer, spans: self.subquery.spans.clone() };
        match as_count {
            true => counted(&Exists { subquery, negated }),
            false => Ok(Expr::Exists(Exists { subquery, negated })),
        }
    }

    /// All columns are equal.
    fn equal(&self) -> Result<Expr> {
        self.all(|_, equal| equal)
    }

    /// All columns are equal or may be: no comparison is false.
    fn maybe_equal(&self) -> Result<Expr> {
        self.all(|pair, equal| match pair.operand_nullable || pair.column_nullable {
            true => Expr::IsNotFalse(Box::new(equal)),
            false => equal,
        })
    }

    fn all(&self, each: impl Fn(&Pair, Expr) -> Expr) -> Result<Expr> {
        let mut conditions = Vec::with_capacity(self.pairs.len());
        for pair in &self.pairs {
            let equal = pair.inside.clone().eq(pair.column.clone());
            conditions.push(each(pair, typing::comparison(equal, self.rows.schema())?));
        }
        Ok(conjunction(conditions).unwrap_or_else(|| lit(true)))
    }

    /// The only column, unless rows of several are compared.
    fn single(&self) -> Option<&Pair> {
        match &self.pairs[..] {
            [pair] if !self.several => Some(pair),
            _ => None,
        }
    }
}

fn first_column(plan: &LogicalPlan) -> Expr {
    Expr::Column(Column::from(plan.schema().qualified_field(0)))
}

/// Columns of a subquery under a name of their own: `t.x` of a subquery over `t` must not be taken for that of the query around it, with
/// which it is compared. What ties a subquery to the query around it is pulled up by the names that are inside: where they are those of
/// the operands, it is refused.
fn apart(
    rows: Arc<LogicalPlan>,
    columns: Vec<Expr>,
    subquery: &Subquery,
    operands: &[Expr],
) -> Result<(Arc<LogicalPlan>, Vec<Expr>)> {
    if subquery.outer_ref_columns.is_empty() {
        let named = columns.into_iter().enumerate().map(|(i, column)| column.alias(format!("column {i}")));
        let rows = LogicalPlanBuilder::from(rows).project(named)?.alias("\u{1}compared")?.build()?;
        let columns = rows.schema().columns().into_iter().map(Expr::Column).collect();
        return Ok((Arc::new(rows), columns));
    }
    let mut inside: Vec<Column> = columns.iter().flat_map(|column| column.column_refs().into_iter().cloned()).collect();
    subquery.subquery.apply(|node| {
        if let LogicalPlan::Filter(filter) = node {
            let ties = split_conjunction(&filter.predicate).into_iter().filter(|condition| condition.contains_outer());
            inside.extend(ties.flat_map(Expr::column_refs).cloned());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    match operands.iter().flat_map(Expr::column_refs).find(|column| inside.contains(column)) {
        Some(column) => {
            let message =
                format!("'{}' is compared with a table of that name in a subquery: name one of them anew", column.flat_name());
            Err(SqlError::new(message).into())
        }
        None => Ok((rows, columns)),
    }
}

/// `> ALL (subquery)` and its like, whose left side is compared in the subquery too.
fn set_apart(plan: LogicalPlan) -> Result<LogicalPlan> {
    let each = |node: LogicalPlan| {
        node.map_expressions(|expr| {
            expr.transform_up(|e| match e {
                Expr::SetComparison(mut found) => {
                    let column = first_column(&found.subquery.subquery);
                    let rows = Arc::clone(&found.subquery.subquery);
                    let operand = std::slice::from_ref(&*found.expr);
                    found.subquery.subquery = apart(rows, vec![column], &found.subquery, operand)?.0;
                    Ok(Transformed::yes(Expr::SetComparison(found)))
                }
                other => Ok(Transformed::no(other)),
            })
        })
    };
    Ok(plan.transform_up_with_subqueries(each)?.data)
}

/// The rows below the marker that makes one value of each, and what it is made of.
fn rows_of(plan: &LogicalPlan) -> Result<(Arc<LogicalPlan>, Vec<Expr>)> {
    match plan {
        // Whether a row is there twice does not matter.
        LogicalPlan::Distinct(Distinct::All(input)) => rows_of(input),
        LogicalPlan::Projection(projection) => match &projection.expr[..] {
            [only] if let Some(values) = markers::row(only) => Ok((Arc::clone(&projection.input), values.to_vec())),
            _ => Err(SqlError::unsupported("a row compared with this subquery").into()),
        },
        _ => Err(SqlError::unsupported("a row compared with this subquery").into()),
    }
}

/// An expression over the outer query's columns, in the subquery.
fn seen_from_inside(operand: &Expr, schema: &DFSchema) -> Result<Expr> {
    let inside = operand.clone().transform_up(|e| match e {
        Expr::Column(c) => {
            let field = Arc::new(schema.field_from_column(&c)?.as_ref().clone());
            Ok(Transformed::yes(Expr::OuterReferenceColumn(field, c)))
        }
        Expr::OuterReferenceColumn(..) | Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => {
            Err(SqlError::unsupported("IN (subquery) whose left side holds a subquery or a column of an outer query").into())
        }
        other => Ok(Transformed::no(other)),
    });
    Ok(inside?.data)
}

fn not_in(found: InSubquery, schema: &DFSchema) -> Result<Expr> {
    let single = markers::row(&found.expr).is_none();
    if single && !found.expr.nullable(schema)? && !found.subquery.subquery.schema().field(0).is_nullable() {
        return Ok(Expr::InSubquery(found));
    }
    let parts = Parts::new(&found, schema)?;
    let Some(pair) = parts.single() else { return parts.exists(Some(parts.maybe_equal()?), true, false) };
    let mut all = parts.exists(Some(parts.equal()?), true, false)?;
    if pair.column_nullable {
        all = all.and(parts.exists(Some(pair.column.clone().is_null()), true, false)?);
    }
    if pair.operand_nullable {
        all = all.and(pair.operand.clone().is_not_null().or(parts.exists(None, true, false)?));
    }
    Ok(all)
}

/// An IN or EXISTS whose value matters, NULL included. In a projection (`as_count`) the front end has no joins for EXISTS.
fn value(expr: Expr, schema: &DFSchema, as_count: bool) -> Result<Transformed<Expr>> {
    match expr {
        Expr::Exists(exists) if as_count => Ok(Transformed::yes(counted(&exists)?)),
        Expr::InSubquery(found) if as_count && markers::row(&found.expr).is_some() => {
            Err(SqlError::new("(a, b, ...) IN (subquery) is supported in WHERE and HAVING, not here").into())
        }
        Expr::InSubquery(found) => {
            let parts = Parts::new(&found, schema)?;
            let null = Expr::Literal(ScalarValue::Boolean(None), None);
            let mut cases = datafusion_expr::when(parts.exists(Some(parts.equal()?), false, as_count)?, lit(!found.negated));
            match parts.single() {
                None => {
                    if parts.pairs.iter().any(|pair| pair.operand_nullable || pair.column_nullable) {
                        cases.when(parts.exists(Some(parts.maybe_equal()?), false, as_count)?, null);
                    }
                }
                Some(pair) => {
                    if pair.operand_nullable {
                        let empty = parts.exists(None, false, as_count)?;
                        cases.when(pair.operand.clone().is_null().and(empty), null.clone());
                    }
                    if pair.column_nullable {
                        cases.when(parts.exists(Some(pair.column.clone().is_null()), false, as_count)?, null);
                    }
                }
            }
            Ok(Transformed::yes(cases.otherwise(lit(found.negated))?))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// `(SELECT count(*) FROM S) > 0`, or `= 0`.
fn counted(exists: &Exists) -> Result<Expr> {
    let plan = LogicalPlanBuilder::from(exists.subquery.subquery.as_ref().clone())
        .aggregate(Vec::<Expr>::new(), vec![count(lit(1i64))])?
        .build()?;
    let subquery = Expr::ScalarSubquery(Subquery {
        subquery: Arc::new(plan),
        outer_ref_columns: exists.subquery.outer_ref_columns.clone(),
        spans: exists.subquery.spans.clone(),
    });
    Ok(if exists.negated { subquery.eq(lit(0i64)) } else { subquery.gt(lit(0i64)) })
}
