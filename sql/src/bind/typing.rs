//! Types, from the inputs up: when an expression is typed, the columns that it reads have their final types.
//!
//! That matters for two columns whose types the front end settles late: those of a UNION, and those of an outer query that a
//! correlated subquery reads. So a node's inputs come first, then the subqueries of its expressions, then the expressions, each
//! with Stoa's own rules before the front end's coercion.

use std::sync::Arc;

use arrow_schema::DataType as Arrow;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRewriter};
use datafusion_common::{DFSchema, Result, internal_err};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::logical_plan::Subquery;
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, binary_expr, cast};
use datafusion_optimizer::AnalyzerRule;
use datafusion_optimizer::analyzer::type_coercion::TypeCoercionRewriter;

use super::{floats, markers};

/// See the module.
#[derive(Debug)]
pub(crate) struct Typing;

impl AnalyzerRule for Typing {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        settle(plan, &mut Vec::new())
    }

    fn name(&self) -> &'static str {
        "typing"
    }
}

/// `outer`: the columns of the enclosing queries, the innermost last.
fn settle(plan: LogicalPlan, outer: &mut Vec<DFSchema>) -> Result<LogicalPlan> {
    let plan = plan.map_children(|input| settle(input, outer).map(Transformed::yes))?.data;
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        schema = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?;
    }
    outer.push(schema);
    let plan = plan.map_subqueries(|subquery| settle_subquery(subquery, outer).map(Transformed::yes))?.data;
    let Some(schema) = outer.pop() else { return internal_err!("a query without columns") };
    let plan = match plan {
        LogicalPlan::Filter(mut filter) => {
            // `WHERE NULL`.
            filter.predicate = filter.predicate.cast_to(&Arrow::Boolean, &schema)?;
            LogicalPlan::Filter(filter)
        }
        LogicalPlan::Union(union) => floats::union_as_float(union)?,
        plan => plan,
    };
    let names = NamePreserver::new(&plan);
    let mut rewriter = Rewriter { schema: &schema, outer, coercion: TypeCoercionRewriter::new(&schema) };
    let plan = plan.map_expressions(|expr| match expr {
        // Its keys have names, it has none.
        Expr::GroupingSet(_) => expr.map_children(|key| rewriter.named(key, &names)),
        expr => rewriter.named(expr, &names),
    })?;
    TypeCoercionRewriter::new(&schema).coerce_plan(plan.data)?.recompute_schema()
}

/// A comparison of expressions that have their types, coerced.
pub(super) fn comparison(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(TypeCoercionRewriter::new(schema).f_up(floats::rewrite(expr, schema)?)?.data)
}

fn settle_subquery(plan: LogicalPlan, outer: &mut Vec<DFSchema>) -> Result<LogicalPlan> {
    let LogicalPlan::Subquery(Subquery { subquery, outer_ref_columns, spans }) = plan else {
        return internal_err!("a subquery is a {}", plan.display());
    };
    let subquery = Arc::new(settle(Arc::unwrap_or_clone(subquery), outer)?);
    let outer_ref_columns = outer_ref_columns.into_iter().map(|column| outer_column(column, outer)).collect();
    Ok(LogicalPlan::Subquery(Subquery { subquery, outer_ref_columns, spans }))
}

/// A column of an outer query, as it is there.
fn outer_column(expr: Expr, outer: &[DFSchema]) -> Expr {
    let Expr::OuterReferenceColumn(field, column) = expr else { return expr };
    let found =
        outer.iter().rev().find_map(|schema| Some(Arc::clone(schema.fields().get(schema.maybe_index_of_column(&column)?)?)));
    Expr::OuterReferenceColumn(found.unwrap_or(field), column)
}

struct Rewriter<'a> {
    schema: &'a DFSchema,
    outer: &'a [DFSchema],
    coercion: TypeCoercionRewriter<'a>,
}

impl Rewriter<'_> {
    fn named(&mut self, expr: Expr, names: &NamePreserver) -> Result<Transformed<Expr>> {
        let name = names.save(&expr);
        Ok(expr.rewrite(self)?.update_data(|e| name.restore(e)))
    }
}

impl TreeNodeRewriter for Rewriter<'_> {
    type Node = Expr;

    fn f_up(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        let expr = outer_column(expr, self.outer);
        let expr = markers::unmark(expr, |e| e.get_type(self.schema))?;
        let expr = arithmetic(expr, self.schema)?;
        let expr = floats::rewrite(expr, self.schema)?;
        self.coercion.f_up(expr).map(|done| Transformed::yes(done.data))
    }
}

/// `+`, `-` and `*` of integers are BIGINTs, so that small types do not overflow; a DATE and an integer are a DATE; the difference of
/// two TIMESTAMPs is an INTERVAL.
fn arithmetic(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus | Operator::Multiply), right }) = expr
    else {
        return Ok(expr);
    };
    let types = (left.get_type(schema)?, right.get_type(schema)?);
    let time = |ty: &Arrow| matches!(ty, Arrow::Timestamp(..));
    let day_or_time = |ty: &Arrow| time(ty) || *ty == Arrow::Date32;
    if op == Operator::Minus && day_or_time(&types.0) && day_or_time(&types.1) && (time(&types.0) || time(&types.1)) {
        return Ok(markers::difference(*left, *right));
    }
    let literal = matches!(*left, Expr::Literal(..)) || matches!(*right, Expr::Literal(..));
    let date = match (&types, op) {
        ((Arrow::Date32, days), Operator::Plus | Operator::Minus) | ((days, Arrow::Date32), Operator::Plus) => {
            days.is_integer() && !literal
        }
        _ => false,
    };
    let wide = |e: Box<Expr>, ty: Arrow| if ty == Arrow::Int64 { *e } else { cast(*e, Arrow::Int64) };
    if date {
        return Ok(cast(binary_expr(wide(left, types.0), op, wide(right, types.1)), Arrow::Date32));
    }
    let integer = |ty: &Arrow| ty.is_integer() && *ty != Arrow::UInt64;
    if integer(&types.0) && integer(&types.1) {
        return Ok(binary_expr(wide(left, types.0), op, wide(right, types.1)));
    }
    Ok(Expr::BinaryExpr(BinaryExpr { left, op, right }))
}
