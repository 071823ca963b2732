//! `INTERSECT ALL` and `EXCEPT ALL`.
//!
//! The front end plans them as semi and anti joins, which keep or drop equal rows together. Here the rows of both sides are counted
//! by value, `l` times on the left and `r` times on the right, and come out `least(l, r)` times or `l - r` times.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::Transformed;
use datafusion_common::{Column, DFSchemaRef, NullEquality, Result, internal_err};
use datafusion_expr::logical_plan::{Distinct, Extension};
use datafusion_expr::{Expr, Join, JoinType, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore, lit, when};
use datafusion_functions_aggregate::expr_fn::sum;
use datafusion_optimizer::AnalyzerRule;

/// How often a row is there.
const LEFT: &str = "on the left";
const RIGHT: &str = "on the right";

/// See the module.
#[derive(Debug)]
pub(crate) struct CountedRows;

impl AnalyzerRule for CountedRows {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let each = |node| match node {
            LogicalPlan::Join(join) if keeps_duplicates(&join) => counted(join).map(Transformed::yes),
            node => Ok(Transformed::no(node)),
        };
        Ok(plan.transform_up_with_subqueries(each)?.data)
    }

    fn name(&self) -> &'static str {
        "counted_rows"
    }
}

/// Whether a join stands for INTERSECT ALL or EXCEPT ALL. Without ALL the left side is made distinct; what is distinct already
/// comes out once at most either way.
fn keeps_duplicates(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && join.filter.is_none()
        && !matches!(&*join.left, LogicalPlan::Distinct(Distinct::All(_)))
}

fn counted(join: Join) -> Result<LogicalPlan> {
    let output = Arc::clone(join.left.schema());
    let names: Vec<String> = (0..output.fields().len()).map(|i| format!("column {i}")).collect();
    let side = |input: Arc<LogicalPlan>, left: i64, right: i64| {
        let columns = input.schema().columns().into_iter().zip(&names).map(|(column, name)| Expr::Column(column).alias(name));
        let exprs: Vec<Expr> = columns.chain([lit(left).alias(LEFT), lit(right).alias(RIGHT)]).collect();
        LogicalPlanBuilder::from(input).project(exprs)?.build()
    };
    let (left, right) = (side(join.left, 1, 0)?, side(join.right, 0, 1)?);
    let by: Vec<Expr> = names.iter().map(|name| column(name)).collect();
    let counts = [sum(column(LEFT)).alias(LEFT), sum(column(RIGHT)).alias(RIGHT)];
    let groups = LogicalPlanBuilder::from(left).union(right)?.aggregate(by, counts)?.build()?;
    let (left, right) = (column(LEFT), column(RIGHT));
    let times = match join.join_type {
        JoinType::LeftSemi => when(left.clone().lt(right.clone()), left).otherwise(right)?,
        _ => left - right,
    };
    let rows = LogicalPlan::Extension(Extension { node: Arc::new(Repeat { input: Arc::new(groups), times }) });
    let columns = names.iter().zip(output.iter());
    let columns = columns.map(|(name, (qualifier, field))| column(name).alias_qualified(qualifier.cloned(), field.name()));
    LogicalPlanBuilder::from(rows).project(columns.collect::<Vec<_>>())?.build()
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}

/// Gives out each row of its input as often as `times` says.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Repeat {
    pub(crate) input: Arc<LogicalPlan>,
    pub(crate) times: Expr,
}

impl PartialOrd for Repeat {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.input.partial_cmp(&other.input)
    }
}

impl UserDefinedLogicalNodeCore for Repeat {
    fn name(&self) -> &'static str {
        "Repeat"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![self.times.clone()]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Repeat {}", self.times)
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let (Some(times), Some(input)) = (exprs.pop(), inputs.pop()) else {
            return internal_err!("rows to repeat without an input");
        };
        Ok(Repeat { input: Arc::new(input), times })
    }
}
