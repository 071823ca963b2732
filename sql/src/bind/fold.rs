//! Integer arithmetic on literals, checked.
//!
//! The front end's own folding wraps around; this rule runs right before it, so that an overflow stays an error.

use datafusion_common::tree_node::Transformed;
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use datafusion_optimizer::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::named::rewrite_named;
use crate::SqlError;

/// Folds `literal op literal` of one integer type, and casts of literals to numbers on the way.
#[derive(Debug)]
pub(crate) struct CheckedFold;

impl OptimizerRule for CheckedFold {
    fn name(&self) -> &'static str {
        "checked_fold"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        plan.map_expressions(|expr| rewrite_named(expr, fold))
    }
}

fn fold(expr: Expr) -> Result<Transformed<Expr>> {
    if let Expr::BinaryExpr(BinaryExpr { left, op, right }) = &expr
        && let (Expr::Literal(a, _), Expr::Literal(b, _)) = (&**left, &**right)
        && let Some(folded) = arithmetic(a, *op, b)
    {
        let Some(value) = folded else {
            return Err(SqlError::new(format!("integer overflow in {a} {op} {b}")).into());
        };
        return Ok(Transformed::yes(Expr::Literal(value, None)));
    }
    if let Expr::Cast(cast) = &expr
        && let Expr::Literal(value, _) = &*cast.expr
        && cast.field.data_type().is_numeric()
        && let Ok(folded) = value.cast_to(cast.field.data_type())
    {
        return Ok(Transformed::yes(Expr::Literal(folded, None)));
    }
    if let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Divide | Operator::Modulo, right }) = &expr
        && let (Expr::Literal(a, _), Expr::Literal(ScalarValue::Float64(Some(0.0)) | ScalarValue::Float32(Some(0.0)), _)) =
            (&**left, &**right)
        && !a.is_null()
    {
        // The front end would fold this to infinity.
        return Err(SqlError::new(format!("division by zero in {a} / 0")).into());
    }
    if let Expr::Negative(inner) = &expr
        && let Expr::Literal(ScalarValue::Int64(Some(i64::MIN)), _) = **inner
    {
        return Err(SqlError::new(format!("integer overflow in {expr}")).into());
    }
    Ok(Transformed::no(expr))
}

/// `None`: not integer arithmetic. `Some(None)`: it overflows.
#[allow(clippy::option_option, reason = "the two absences differ, as said above")]
fn arithmetic(a: &ScalarValue, op: Operator, b: &ScalarValue) -> Option<Option<ScalarValue>> {
    macro_rules! checked {
        ($a:expr, $b:expr, $variant:path) => {
            match op {
                Operator::Plus => Some($a.checked_add($b).map(|v| $variant(Some(v)))),
                Operator::Minus => Some($a.checked_sub($b).map(|v| $variant(Some(v)))),
                Operator::Multiply => Some($a.checked_mul($b).map(|v| $variant(Some(v)))),
                _ => None,
            }
        };
    }
    match (a, b) {
        (ScalarValue::Int8(Some(a)), ScalarValue::Int8(Some(b))) => checked!(a, *b, ScalarValue::Int8),
        (ScalarValue::Int16(Some(a)), ScalarValue::Int16(Some(b))) => checked!(a, *b, ScalarValue::Int16),
        (ScalarValue::Int32(Some(a)), ScalarValue::Int32(Some(b))) => checked!(a, *b, ScalarValue::Int32),
        (ScalarValue::Int64(Some(a)), ScalarValue::Int64(Some(b))) => checked!(a, *b, ScalarValue::Int64),
        (ScalarValue::UInt8(Some(a)), ScalarValue::UInt8(Some(b))) => checked!(a, *b, ScalarValue::UInt8),
        (ScalarValue::UInt16(Some(a)), ScalarValue::UInt16(Some(b))) => checked!(a, *b, ScalarValue::UInt16),
        (ScalarValue::UInt32(Some(a)), ScalarValue::UInt32(Some(b))) => checked!(a, *b, ScalarValue::UInt32),
        (ScalarValue::UInt64(Some(a)), ScalarValue::UInt64(Some(b))) => checked!(a, *b, ScalarValue::UInt64),
        _ => None,
    }
}
