//! Functions that stand for syntax until types are known.
//!
//! The front end names an expression without its casts, so that `a` and `CAST(a AS BIGINT)` would be one key of a GROUP BY; and it
//! refuses the minus sign before an UNSIGNED. Both are read as calls of functions, which it names in full and types as they say;
//! [`super::typing`] puts casts and minus signs in their places. Rows of values, which the front end does not know, are calls too.

use std::sync::Arc;

use arrow_schema::{DataType as Arrow, Field, FieldRef};
use datafusion_common::{Result, internal_err, not_impl_err, plan_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TryCast, Volatility, cast,
};
use datafusion_sql::sqlparser::ast::{CastKind, DataType as SqlType, Expr as Ast, UnaryOperator};
use stoa_plan::DataType;

use super::in_lists::opaque;
use super::rewrite::call;
use crate::types;

/// A row of values in `IN (subquery)`.
pub(super) const ROW: &str = "row of values";
/// The difference of two times.
pub(crate) const DIFFERENCE: &str = "difference of times";
const MINUS: &str = "minus sign";
const CAST: &str = "cast as ";
const TRY_CAST: &str = "try_cast as ";

/// Puts a marker in the place of a cast or a minus sign. Constants stay as they are: the front end reads them as such.
pub(super) fn mark(expr: &mut Ast) {
    let marked = match expr {
        Ast::Cast { kind, expr: input, data_type, array: false, format: None } if !is_constant(input) => {
            cast_name(*kind != CastKind::Cast && *kind != CastKind::DoubleColon, data_type).map(|name| (name, input))
        }
        Ast::UnaryOp { op: UnaryOperator::Minus, expr: input } if !is_constant(input) => Some((MINUS.to_owned(), input)),
        _ => None,
    };
    if let Some((name, input)) = marked {
        *expr = call(&name, vec![input.as_ref().clone()]);
    }
}

fn is_constant(expr: &Ast) -> bool {
    match expr {
        Ast::Value(_) | Ast::TypedString(_) | Ast::Interval(_) => true,
        Ast::Nested(inner) | Ast::UnaryOp { expr: inner, .. } => is_constant(inner),
        _ => false,
    }
}

/// `None` for a type that does not exist: the front end says so.
fn cast_name(safe: bool, ty: &SqlType) -> Option<String> {
    Some(format!("{}{}", if safe { TRY_CAST } else { CAST }, types::name(types::from_sql(ty).ok()?)))
}

/// The function of a name that [`mark`] gave.
pub(super) fn function(name: &str) -> Option<Arc<ScalarUDF>> {
    let to = |ty: &str| types::from_name(ty);
    let syntax = if let Some(ty) = name.strip_prefix(CAST) {
        Syntax::Cast { ty: to(ty)?, safe: false }
    } else if let Some(ty) = name.strip_prefix(TRY_CAST) {
        Syntax::Cast { ty: to(ty)?, safe: true }
    } else if name == MINUS {
        Syntax::Minus
    } else if name == ROW {
        Syntax::Row
    } else {
        return None;
    };
    let signature = match syntax {
        Syntax::Row => Signature::variadic_any(Volatility::Immutable),
        _ => Signature::any(1, Volatility::Immutable),
    };
    Some(Arc::new(ScalarUDF::from(Marker { name: name.to_owned(), syntax, signature })))
}

/// The values of a row.
pub(super) fn row(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::Alias(alias) => row(&alias.expr),
        Expr::ScalarFunction(call) => {
            call.func.inner().downcast_ref::<Marker>().filter(|marker| marker.syntax == Syntax::Row).map(|_| &call.args[..])
        }
        _ => None,
    }
}

/// What a marker of a cast or a minus sign stands for; `ty` is the type of its argument. Other expressions are given back.
pub(super) fn unmark(expr: Expr, ty: impl FnOnce(&Expr) -> Result<Arrow>) -> Result<Expr> {
    let Expr::ScalarFunction(ScalarFunction { func, mut args }) = expr else { return Ok(expr) };
    let marker = func.inner().downcast_ref::<Marker>().filter(|m| !matches!(m.syntax, Syntax::Row | Syntax::Difference));
    let Some(marker) = marker else { return Ok(Expr::ScalarFunction(ScalarFunction { func, args })) };
    let Some(input) = args.pop() else { return internal_err!("a marker without an argument") };
    Ok(match marker.syntax {
        Syntax::Cast { ty: to, safe } => {
            let (from, to) = (ty(&input)?, types::front_end_type(to));
            let rounds = rounds(&from, &to) && input.any_column_refs();
            let made = if safe { Expr::TryCast(TryCast::new(Box::new(input), to)) } else { cast(input, to) };
            if rounds { opaque(made) } else { made }
        }
        Syntax::Minus => {
            let from = ty(&input)?;
            let to = negated(&from)?;
            Expr::Negative(Box::new(if to == from { input } else { cast(input, to) }))
        }
        Syntax::Row | Syntax::Difference => return internal_err!("'{}' stands for itself", marker.name),
    })
}

/// The difference of two times, one of them a TIMESTAMP: an INTERVAL of days and a time. The front end has a type of its own for it.
pub(super) fn difference(left: Expr, right: Expr) -> Expr {
    let signature = Signature::any(2, Volatility::Immutable);
    let func = Arc::new(ScalarUDF::from(Marker { name: DIFFERENCE.to_owned(), syntax: Syntax::Difference, signature }));
    Expr::ScalarFunction(ScalarFunction { func, args: vec![left, right] })
}

/// Whether several values become one by a cast. The front end would compare what is under such a cast with the constant on the other
/// side: `CAST(2.4 AS INT) = 2` is true, `2.4 = 2` is not.
fn rounds(from: &Arrow, to: &Arrow) -> bool {
    let scale = |ty: &Arrow| match ty {
        Arrow::Decimal32(_, scale) | Arrow::Decimal64(_, scale) | Arrow::Decimal128(_, scale) => Some(*scale),
        ty if ty.is_integer() => Some(0),
        _ => None,
    };
    scale(from).zip(scale(to)).is_some_and(|(from, to)| to < from)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Syntax {
    Cast { ty: DataType, safe: bool },
    Minus,
    Row,
    Difference,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Marker {
    name: String,
    syntax: Syntax,
    signature: Signature,
}

impl ScalarUDFImpl for Marker {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[Arrow]) -> Result<Arrow> {
        match self.syntax {
            Syntax::Cast { ty, .. } => Ok(types::front_end_type(ty)),
            Syntax::Minus => negated(types.first().unwrap_or(&Arrow::Null)),
            // A type for all rows; none is ever made.
            Syntax::Row => Ok(Arrow::Boolean),
            Syntax::Difference => Ok(types::front_end_type(DataType::Interval)),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let nullable = args.arg_fields.iter().any(|f| f.is_nullable()) || matches!(self.syntax, Syntax::Cast { safe: true, .. });
        let types: Vec<Arrow> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        Ok(Arc::new(Field::new(&self.name, self.return_type(&types)?, nullable)))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        not_impl_err!("{} is syntax", self.name)
    }
}

/// The type of `-x`: a BIGINT of any integer, else that of `x`.
fn negated(ty: &Arrow) -> Result<Arrow> {
    match ty {
        ty if ty.is_integer() => Ok(Arrow::Int64),
        Arrow::Null | Arrow::Interval(_) => Ok(ty.clone()),
        ty if ty.is_numeric() => Ok(ty.clone()),
        ty => plan_err!("the minus sign is for numbers and intervals, not for {ty}"),
    }
}
