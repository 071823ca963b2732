//! Keeps NULLs apart where the front end merges IN lists.
//!
//! It turns `x IN (1) AND x IN (2)` into false and `x NOT IN (1) OR x NOT IN (2)` into true, which a NULL x is not, and takes a
//! NULL in a list for a value. So a NULL leaves its list (`x IN (1, NULL)` is `x IN (1) OR NULL`), and where one expression has
//! several lists over the same value, all but the first read it through [`opaque`], which the plan knows nothing of.

use std::sync::{Arc, OnceLock};

use arrow_schema::{DataType, FieldRef};
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion_common::{Result, ScalarValue, not_impl_err};
use datafusion_expr::expr::{InList, ScalarFunction};
use datafusion_expr::{
    BinaryExpr, ColumnarValue, Expr, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion_optimizer::AnalyzerRule;

use super::named::rewrite_named;

/// Name of the function that gives back its argument.
pub(crate) const OPAQUE: &str = "\u{1}opaque";

/// See the module.
#[derive(Debug)]
pub(crate) struct ThreeValuedLists;

impl AnalyzerRule for ThreeValuedLists {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let each = |node: LogicalPlan| {
            node.map_expressions(|expr| {
                let mut seen = Vec::new();
                rewrite_named(expr, |e| list(e, &mut seen))
            })
        };
        Ok(plan.transform_up_with_subqueries(each)?.data)
    }

    fn name(&self) -> &'static str {
        "three_valued_lists"
    }
}

fn list(expr: Expr, seen: &mut Vec<InList>) -> Result<Transformed<Expr>> {
    let Expr::InList(InList { expr: input, list, negated }) = expr else { return Ok(Transformed::no(expr)) };
    let length = list.len();
    let list: Vec<Expr> = list.into_iter().filter(|item| !is_null(item)).collect();
    let had_null = list.len() < length;
    let new = InList { expr: input.clone(), list: list.clone(), negated };
    // The same list again does no harm.
    let again = seen.iter().any(|known| known.expr == input && *known != new);
    let input = if again { Box::new(opaque(*input)) } else { input };
    if !again {
        seen.push(new);
    }
    if list.is_empty() {
        // NULL, whatever the value.
        return Ok(Transformed::yes(Expr::Literal(ScalarValue::Boolean(None), None)));
    }
    let list = Expr::InList(InList { expr: input, list, negated });
    if !had_null {
        return Ok(Transformed::new(list, again, TreeNodeRecursion::Continue));
    }
    let op = if negated { Operator::And } else { Operator::Or };
    let null = Expr::Literal(ScalarValue::Boolean(None), None);
    Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left: Box::new(list), op, right: Box::new(null) })))
}

fn is_null(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => value.is_null(),
        Expr::Cast(cast) => is_null(&cast.expr),
        _ => false,
    }
}

/// The expression itself, in a form that rules do not see through. The conversion to a plan takes it off.
pub(super) fn opaque(expr: Expr) -> Expr {
    static FUNCTION: OnceLock<Arc<ScalarUDF>> = OnceLock::new();
    wrapped(expr, &FUNCTION, Volatility::Immutable)
}

/// As [`opaque`], and rules do not evaluate it where it is a constant.
pub(super) fn unfoldable(expr: Expr) -> Expr {
    static FUNCTION: OnceLock<Arc<ScalarUDF>> = OnceLock::new();
    wrapped(expr, &FUNCTION, Volatility::Volatile)
}

fn wrapped(expr: Expr, function: &OnceLock<Arc<ScalarUDF>>, volatility: Volatility) -> Expr {
    let make = || Arc::new(ScalarUDF::from(Opaque { signature: Signature::any(1, volatility) }));
    Expr::ScalarFunction(ScalarFunction { func: Arc::clone(function.get_or_init(make)), args: vec![expr] })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Opaque {
    signature: Signature,
}

impl ScalarUDFImpl for Opaque {
    fn name(&self) -> &'static str {
        OPAQUE
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match args.arg_fields {
            [field] => Ok(Arc::clone(field)),
            _ => not_impl_err!("one argument"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        args.args.into_iter().next().map_or_else(|| not_impl_err!("one argument"), Ok)
    }
}
