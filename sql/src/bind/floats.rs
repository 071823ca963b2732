//! Where a DOUBLE meets a DECIMAL, in a comparison or as results of one CASE, both are DOUBLEs. A quotient of DECIMALs is a DOUBLE.
//!
//! The front end would cast the DOUBLE to a DECIMAL of 30 digits, which fails for large values and rounds small ones.

use std::sync::Arc;

use arrow_schema::DataType as Arrow;
use datafusion_common::{Column, DFSchema, Result};
use datafusion_expr::expr::{Between, Case, InList, ScalarFunction};
use datafusion_expr::logical_plan::{Projection, Union};
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, cast};

use crate::SqlError;

/// One expression, whose operands have their types; runs before they are coerced.
pub(super) fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) => {
            let [left, right] = together([*left, *right], schema, true)?;
            datafusion_expr::binary_expr(left, op, right)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Divide, right }) => {
            let [left, right] = divided([*left, *right], schema);
            datafusion_expr::binary_expr(left, Operator::Divide, right)
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let [expr, low, high] = together([*expr, *low, *high], schema, true)?;
            Expr::Between(Between::new(expr.into(), negated, low.into(), high.into()))
        }
        Expr::InList(InList { expr, mut list, negated }) => {
            list.push(*expr);
            let mut list = all_together(list, schema, true)?;
            match list.pop() {
                Some(expr) => Expr::InList(InList::new(expr.into(), list, negated)),
                None => return Err(SqlError::new("IN without an operand").into()),
            }
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) if COMMON_TYPE.contains(&func.name()) => {
            Expr::ScalarFunction(ScalarFunction { func, args: all_together(args, schema, true)? })
        }
        Expr::Case(case) => case_as_float(case, schema)?,
        other => other,
    })
}

/// Functions whose result has the common type of their arguments.
const COMMON_TYPE: [&str; 6] = ["coalesce", "nvl", "nvl2", "nullif", "greatest", "least"];

/// The columns of a UNION are results of one type too.
pub(super) fn union_as_float(union: Union) -> Result<LogicalPlan> {
    let width = union.inputs.iter().map(|input| input.schema().fields().len()).min().unwrap_or(0);
    let has = |column: usize, family: Family| union.inputs.iter().any(|input| family_of_output(input, column) == family);
    let numbers = [Family::Integer, Family::Decimal, Family::Float];
    if (0..width).any(|i| has(i, Family::Date) && numbers.iter().any(|family| has(i, *family))) {
        return Err(SqlError::new("a UNION of a DATE or TIMESTAMP with a number: cast one").into());
    }
    let mixed: Vec<bool> = (0..width).map(|i| has(i, Family::Float) && has(i, Family::Decimal)).collect();
    if !mixed.contains(&true) {
        return Ok(LogicalPlan::Union(union));
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
    Ok(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?))
}

/// Expressions that will get one type: DECIMALs are cast if there is a DOUBLE and, in a comparison, if there is a string, which
/// is a DOUBLE then too. A date and a number have nothing in common; the front end would take the number for days.
fn all_together(exprs: Vec<Expr>, schema: &DFSchema, comparison: bool) -> Result<Vec<Expr>> {
    let families: Vec<Family> = exprs.iter().map(|e| family(e, schema)).collect();
    let has = |family| families.contains(&family);
    if has(Family::Date) && (has(Family::Integer) || has(Family::Decimal) || has(Family::Float)) {
        return Err(SqlError::new("a DATE or TIMESTAMP and a number have no common type: write DATE '...' or cast one").into());
    }
    let texts = comparison && has(Family::Text);
    if !(has(Family::Decimal) && (has(Family::Float) || texts)) {
        return Ok(exprs);
    }
    let cast = |(e, family)| match family {
        Family::Decimal => cast(e, Arrow::Float64),
        Family::Text if texts => cast(e, Arrow::Float64),
        _ => e,
    };
    Ok(exprs.into_iter().zip(families).map(cast).collect())
}

fn together<const N: usize>(exprs: [Expr; N], schema: &DFSchema, comparison: bool) -> Result<[Expr; N]> {
    let exprs = all_together(exprs.into(), schema, comparison)?;
    Ok(exprs.try_into().map_err(|_| SqlError::new("a comparison lost an operand"))?)
}

/// The operands of a division. A quotient has no scale of its own: cut to any it would be a wrong number.
fn divided(operands: [Expr; 2], schema: &DFSchema) -> [Expr; 2] {
    let families = operands.each_ref().map(|e| family(e, schema));
    let number = |f| matches!(f, Family::Decimal | Family::Integer | Family::Float);
    if !families.contains(&Family::Decimal) || !families.into_iter().all(number) {
        return operands;
    }
    let [left, right] = operands;
    let as_float = |e, family| if family == Family::Float { e } else { cast(e, Arrow::Float64) };
    [as_float(left, families[0]), as_float(right, families[1])]
}

fn case_as_float(case: Case, schema: &DFSchema) -> Result<Expr> {
    let mut results: Vec<Expr> = case.when_then_expr.iter().map(|(_, then)| (**then).clone()).collect();
    results.extend(case.else_expr.as_deref().cloned());
    let mut results = all_together(results, schema, false)?.into_iter().map(Box::new);
    let Case { expr, when_then_expr, else_expr } = case;
    let when_then_expr: Vec<_> = when_then_expr.into_iter().map(|(when, _)| when).zip(results.by_ref()).collect();
    // What is left over is the ELSE.
    let else_expr = else_expr.and(results.next());
    Ok(Expr::Case(Case { expr, when_then_expr, else_expr }))
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

fn family_of_output(plan: &LogicalPlan, column: usize) -> Family {
    plan.schema().fields().get(column).map_or(Family::Other, |field| family_of(field.data_type()))
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
