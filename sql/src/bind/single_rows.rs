//! Correlated scalar subqueries without an aggregate, `(SELECT b.x FROM b WHERE b.k = a.k)`, as ones with an aggregate, which the
//! front end has joins for.
//!
//! With `LIMIT 1` the value is the first one in the order asked for. Otherwise it is any one, and how many rows there are is found
//! beside it: more than one is an error where the value is used, and only there.

use std::sync::Arc;

use arrow_schema::DataType as Arrow;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::Transformed;
use datafusion_common::{Column, Result, not_impl_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::logical_plan::Subquery;
use datafusion_expr::{
    ColumnarValue, Expr, FetchType, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    SkipType, SortExpr, Volatility, lit,
};
use datafusion_functions_aggregate::expr_fn::{count, first_value};
use datafusion_functions_aggregate::first_last::first_value_udaf;
use datafusion_optimizer::AnalyzerRule;

use super::named::rewrite_named;

/// See the module.
#[derive(Debug)]
pub(crate) struct SingleRows;

impl AnalyzerRule for SingleRows {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let each = |node: LogicalPlan| {
            node.map_expressions(|expr| {
                rewrite_named(expr, |e| match e {
                    Expr::ScalarSubquery(subquery) if !subquery.outer_ref_columns.is_empty() => single(subquery),
                    other => Ok(Transformed::no(other)),
                })
            })
        };
        Ok(plan.transform_up_with_subqueries(each)?.data)
    }

    fn name(&self) -> &'static str {
        "single_rows"
    }
}

/// What a subquery yields: the rows below, the value of each, the order, and whether the first one is all that is wanted.
struct Shape<'a> {
    rows: &'a Arc<LogicalPlan>,
    value: Expr,
    order: Vec<SortExpr>,
    first: bool,
}

fn single(subquery: Subquery) -> Result<Transformed<Expr>> {
    let Some(Shape { rows, value, order, first }) = shape(&subquery.subquery)? else {
        return Ok(Transformed::no(Expr::ScalarSubquery(subquery)));
    };
    let aggregated = |call: Expr| -> Result<Expr> {
        let plan = LogicalPlanBuilder::from(Arc::clone(rows)).aggregate(Vec::<Expr>::new(), [call])?.build()?;
        Ok(Expr::ScalarSubquery(Subquery { subquery: Arc::new(plan), ..subquery.clone() }))
    };
    let call = if order.is_empty() { first_value_udaf().call(vec![value]) } else { first_value(value, order) };
    let value = aggregated(call)?;
    if first {
        return Ok(Transformed::yes(value));
    }
    let args = vec![value, aggregated(count(lit(1i64)))?];
    let func = Arc::new(ScalarUDF::from(SingleRow { signature: Signature::any(2, Volatility::Immutable) }));
    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args })))
}

/// `None` for what has an aggregate already and for what is left to be refused.
fn shape(subquery: &Arc<LogicalPlan>) -> Result<Option<Shape<'_>>> {
    let mut plan = subquery;
    let mut first = false;
    if let LogicalPlan::Limit(limit) = &**plan {
        let SkipType::Literal(0) = limit.get_skip_type()? else { return Ok(None) };
        first = match limit.get_fetch_type()? {
            FetchType::Literal(Some(1)) => true,
            FetchType::Literal(Some(0)) | FetchType::UnsupportedExpr => return Ok(None),
            FetchType::Literal(_) => false,
        };
        plan = &limit.input;
    }
    let column = |plan: &LogicalPlan| Expr::Column(Column::from(plan.schema().qualified_field(0)));
    let mut value = None;
    if let LogicalPlan::Projection(projection) = &**plan
        && let [only] = &projection.expr[..]
        && !matches!(&*projection.input, LogicalPlan::Filter(filter) if is_aggregate(&filter.input))
        && !is_aggregate(&projection.input)
    {
        value = Some(only.clone().unalias());
        plan = &projection.input;
    }
    let mut order = Vec::new();
    if let LogicalPlan::Sort(sort) = &**plan
        && sort.fetch.is_none()
    {
        order.clone_from(&sort.expr);
        plan = &sort.input;
    }
    if is_aggregate(plan) || matches!(&**plan, LogicalPlan::Filter(filter) if is_aggregate(&filter.input)) {
        return Ok(None);
    }
    let value = value.unwrap_or_else(|| column(plan));
    Ok(Some(Shape { rows: plan, value, order, first }))
}

fn is_aggregate(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(_) => true,
        LogicalPlan::Projection(projection) => is_aggregate(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_aggregate(&alias.input),
        _ => false,
    }
}

/// The value, if there is at most one row; the executor's.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SingleRow {
    signature: Signature,
}

impl ScalarUDFImpl for SingleRow {
    fn name(&self) -> &'static str {
        "single_row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[Arrow]) -> Result<Arrow> {
        Ok(types.first().cloned().unwrap_or(Arrow::Null))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        not_impl_err!("a subquery is no constant")
    }
}
