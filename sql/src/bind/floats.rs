//! Where a DOUBLE meets a DECIMAL, in a comparison or as results of one CASE, both are DOUBLEs. A quotient of DECIMALs is a DOUBLE.
//!
//! The front end would cast the DOUBLE to a DECIMAL of 30 digits, which fails for large values and rounds small ones.

use std::sync::Arc;

use arrow_schema::DataType as Arrow;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, Result};
use datafusion_expr::expr::{Between, Case, InList, ScalarFunction};
use datafusion_expr::logical_plan::{Projection, Union};
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, cast};
use datafusion_optimizer::AnalyzerRule;

use crate::SqlError;

/// See the module; runs before types are coerced.
#[derive(Debug)]
pub(crate) struct CompareAsFloat;

impl AnalyzerRule for CompareAsFloat {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(rewrite_node)?.data)
    }

    fn name(&self) -> &'static str {
        "compare_as_float"
    }
}

fn rewrite_node(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if let LogicalPlan::Union(union) = node {
        return union_as_float(union);
    }
    let schema = merge_schema(&node.inputs());
    let top_level_names = matches!(node, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Window(_));
    node.map_expressions(|expr| {
        let name = expr.schema_name().to_string();
        let done = expr.transform_up(|e| rewrite(e, &schema))?;
        if !done.transformed || !top_level_names {
            return Ok(done);
        }
        done.map_data(|e| Ok(if e.schema_name().to_string() == name { e } else { e.alias(name) }))
    })
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) => {
            let ([left, right], done) = together([*left, *right], schema, true)?;
            Transformed::new_transformed(datafusion_expr::binary_expr(left, op, right), done)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Divide, right }) => {
            let ([left, right], done) = divided([*left, *right], schema);
            Transformed::new_transformed(datafusion_expr::binary_expr(left, Operator::Divide, right), done)
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let ([expr, low, high], done) = together([*expr, *low, *high], schema, true)?;
            Transformed::new_transformed(Expr::Between(Between::new(expr.into(), negated, low.into(), high.into())), done)
        }
        Expr::InList(InList { expr, mut list, negated }) => {
            list.push(*expr);
            let (mut list, done) = all_together(list, schema, true)?;
            match list.pop() {
                Some(expr) => Transformed::new_transformed(Expr::InList(InList::new(expr.into(), list, negated)), done),
                None => return Err(SqlError::new("IN without an operand").into()),
            }
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) if COMMON_TYPE.contains(&func.name()) => {
            let (args, done) = all_together(args, schema, true)?;
            Transformed::new_transformed(Expr::ScalarFunction(ScalarFunction { func, args }), done)
        }
        Expr::Case(case) => case_as_float(case, schema)?,
        other => Transformed::no(other),
    })
}

/// Functions whose result has the common type of their arguments.
const COMMON_TYPE: [&str; 6] = ["coalesce", "nvl", "nvl2", "nullif", "greatest", "least"];

/// The columns of a UNION are results of one type too.
fn union_as_float(union: Union) -> Result<Transformed<LogicalPlan>> {
    let width = union.inputs.iter().map(|input| input.schema().fields().len()).min().unwrap_or(0);
    let has = |column: usize, family: Family| union.inputs.iter().any(|input| family_of_output(input, column) == family);
    let numbers = [Family::Integer, Family::Decimal, Family::Float];
    if (0..width).any(|i| has(i, Family::Date) && numbers.iter().any(|family| has(i, *family))) {
        return Err(SqlError::new("a UNION of a DATE or TIMESTAMP with a number: cast one").into());
    }
    let mixed: Vec<bool> = (0..width).map(|i| has(i, Family::Float) && has(i, Family::Decimal)).collect();
    if !mixed.contains(&true) {
        return Ok(Transformed::no(LogicalPlan::Union(union)));
    }
    let mut inputs = Vec::with_capacity(union.inputs.len());
    for input in union.inputs {
        let exprs = input.schema().iter().enumerate().map(|(i, (qualifier, field))| {
            let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
            match mixed.get(i) == Some(&true) && family_of_output(&input, i) == Family::Decimal {
                true => cast(column, Arrow::Float64).alias(field.name()),
                false => column,
            }
        });
        let exprs: Vec<Expr> = exprs.collect();
        inputs.push(Arc::new(LogicalPlan::Projection(Projection::try_new(exprs, input)?)));
    }
    Ok(Transformed::yes(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?)))
}

/// Expressions that will get one type: DECIMALs are cast if there is a DOUBLE and, in a comparison, if there is a string, which
/// is a DOUBLE then too. A date and a number have nothing in common; the front end would take the number for days.
fn all_together(exprs: Vec<Expr>, schema: &DFSchema, comparison: bool) -> Result<(Vec<Expr>, bool)> {
    let families: Vec<Family> = exprs.iter().map(|e| family(e, schema)).collect();
    let has = |family| families.contains(&family);
    if has(Family::Date) && (has(Family::Integer) || has(Family::Decimal) || has(Family::Float)) {
        return Err(SqlError::new("a DATE or TIMESTAMP and a number have no common type: write DATE '...' or cast one").into());
    }
    let texts = comparison && has(Family::Text);
    if !(has(Family::Decimal) && (has(Family::Float) || texts)) {
        return Ok((exprs, false));
    }
    let cast = |(e, family)| match family {
        Family::Decimal => cast(e, Arrow::Float64),
        Family::Text if texts => cast(e, Arrow::Float64),
        _ => e,
    };
    Ok((exprs.into_iter().zip(families).map(cast).collect(), true))
}

fn together<const N: usize>(exprs: [Expr; N], schema: &DFSchema, comparison: bool) -> Result<([Expr; N], bool)> {
    let (exprs, done) = all_together(exprs.into(), schema, comparison)?;
    let exprs = exprs.try_into().map_err(|_| SqlError::new("a comparison lost an operand"))?;
    Ok((exprs, done))
}

/// The operands of a division. A quotient has no scale of its own: cut to any it would be a wrong number.
fn divided(operands: [Expr; 2], schema: &DFSchema) -> ([Expr; 2], bool) {
    let families = operands.each_ref().map(|e| family(e, schema));
    let number = |f| matches!(f, Family::Decimal | Family::Integer | Family::Float);
    if !families.contains(&Family::Decimal) || !families.into_iter().all(number) {
        return (operands, false);
    }
    let [left, right] = operands;
    let as_float = |e, family| if family == Family::Float { e } else { cast(e, Arrow::Float64) };
    ([as_float(left, families[0]), as_float(right, families[1])], true)
}

fn case_as_float(case: Case, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let mut results: Vec<Expr> = case.when_then_expr.iter().map(|(_, then)| (**then).clone()).collect();
    results.extend(case.else_expr.as_deref().cloned());
    let (results, done) = all_together(results, schema, false)?;
    if !done {
        return Ok(Transformed::no(Expr::Case(case)));
    }
    let mut results = results.into_iter().map(Box::new);
    let Case { expr, when_then_expr, else_expr } = case;
    let when_then_expr: Vec<_> = when_then_expr.into_iter().map(|(when, _)| when).zip(results.by_ref()).collect();
    // What is left over is the ELSE.
    let else_expr = else_expr.and(results.next());
    Ok(Transformed::yes(Expr::Case(Case { expr, when_then_expr, else_expr })))
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

#[derive(PartialEq, Clone, Copy)]
enum Family {
    Float,
    Decimal,
    Integer,
    Text,
    Date,
    Other,
}

/// Only comparisons ask, and those are seldom deep: finding the type again for each is affordable.
fn family(expr: &Expr, schema: &DFSchema) -> Family {
    expr.get_type(schema).map_or(Family::Other, |ty| family_of(&ty))
}

/// The type of a nested UNION is not settled yet: it will be a DOUBLE if any input has one.
fn family_of_output(plan: &LogicalPlan, column: usize) -> Family {
    let LogicalPlan::Union(union) = plan else {
        return plan.schema().fields().get(column).map_or(Family::Other, |field| family_of(field.data_type()));
    };
    let families: Vec<Family> = union.inputs.iter().map(|input| family_of_output(input, column)).collect();
    let has = |family| families.contains(&family);
    match (has(Family::Float), has(Family::Decimal)) {
        (true, _) => Family::Float,
        (false, true) => Family::Decimal,
        (false, false) => Family::Other,
    }
}

fn family_of(ty: &Arrow) -> Family {
    match ty {
        Arrow::Float32 | Arrow::Float64 => Family::Float,
        Arrow::Decimal32(..) | Arrow::Decimal64(..) | Arrow::Decimal128(..) | Arrow::Decimal256(..) => Family::Decimal,
        Arrow::Date32 | Arrow::Timestamp(..) => Family::Date,
        Arrow::Utf8 | Arrow::Utf8View | Arrow::LargeUtf8 => Family::Text,
        ty if ty.is_integer() => Family::Integer,
        _ => Family::Other,
    }
}
