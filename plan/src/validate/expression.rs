//! Checks of expressions: what they name is in scope, and their types fit.

use super::{Check, Columns, Context, find};
use crate::{BinaryOp, DataType, Expr, Literal, UnaryOp, Value};

/// What an expression may name: the columns of the inputs, the parameters of the query.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub context: &'a Context,
    pub inputs: &'a [&'a Columns],
}

/// Checks an expression; returns its type.
pub(super) fn check(expr: &Expr, scope: Scope<'_>) -> Check<DataType> {
    for child in expr.children() {
        check(child, scope)?;
    }
    let ty = expr.data_type();
    valid_type(ty)?;
    match expr {
        Expr::Column(id, _) => {
            let found = match scope.inputs {
                [left, right] => find(left, *id).or_else(|_| find(right, *id)),
                inputs => inputs.first().map_or_else(|| Err(format!("column {} in a constant", id.0)), |only| find(only, *id)),
            }?;
            expect(found == ty, || format!("column {} is {found:?} and is read as {ty:?}", id.0))
        }
        Expr::Parameter(id, _) => match scope.context.parameters.get(id) {
            None => Err(format!("parameter {} is not defined before", id.0)),
            Some(found) => expect(*found == ty, || format!("parameter {} is {found:?} and is read as {ty:?}", id.0)),
        },
        Expr::Literal(literal) => expect(fits(literal), || format!("{:?} is no value of type {ty:?}", literal.value)),
        Expr::Binary { op, left, right, .. } => binary(*op, left.data_type(), right.data_type(), ty),
        Expr::Unary { op, input } => unary(*op, input.data_type()),
        Expr::Cast { .. } => Ok(()),
        Expr::Case { branches, otherwise, .. } => case(branches, otherwise.as_deref(), ty),
        Expr::InList { input, list, .. } => {
            let input = input.data_type();
            let odd = list.iter().map(Expr::data_type).find(|ty| !comparable(input, *ty));
            odd.map_or(Ok(()), |ty| Err(format!("IN compares {input:?} with {ty:?}")))
        }
        Expr::Like { input, pattern, .. } => {
            let types = [input.data_type(), pattern.data_type()];
            expect(types.into_iter().all(text), || format!("LIKE over {types:?}"))
        }
        Expr::Function { name, .. } => expect(!name.is_empty(), || "a function has no name".into()),
    }?;
    Ok(ty)
}

/// Checks an expression that must be a condition.
pub(super) fn boolean(expr: &Expr, scope: Scope<'_>) -> Check {
    let ty = check(expr, scope)?;
    expect(condition(ty), || format!("a condition of type {ty:?}"))
}

fn expect(holds: bool, problem: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(problem()) }
}

/// Whether precision and scale of a decimal are in range.
pub(super) fn valid_type(ty: DataType) -> Check {
    match ty {
        DataType::Decimal { precision, scale } => {
            let valid = (1..=38).contains(&precision) && u8::try_from(scale).is_ok_and(|scale| scale <= precision);
            expect(valid, || format!("DECIMAL({precision}, {scale}) is out of range"))
        }
        _ => Ok(()),
    }
}

fn condition(ty: DataType) -> bool {
    matches!(ty, DataType::Bool | DataType::Null)
}

fn text(ty: DataType) -> bool {
    matches!(ty, DataType::Utf8 | DataType::Binary | DataType::Null)
}

pub(super) fn integer(ty: DataType) -> bool {
    use DataType::{Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64};
    matches!(ty, Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64)
}

pub(super) fn numeric(ty: DataType) -> bool {
    integer(ty) || matches!(ty, DataType::Float32 | DataType::Float64 | DataType::Decimal { .. })
}

/// What `+` and its like work on.
fn arithmetic(ty: DataType) -> bool {
    numeric(ty) || matches!(ty, DataType::Null | DataType::Date | DataType::Timestamp | DataType::Interval)
}

/// Whether values of the types can be compared: one type, decimals of any scale, a bare NULL with anything.
pub(super) fn comparable(a: DataType, b: DataType) -> bool {
    let decimal = |ty| matches!(ty, DataType::Decimal { .. });
    a == b || a == DataType::Null || b == DataType::Null || (decimal(a) && decimal(b))
}

fn binary(op: BinaryOp, left: DataType, right: DataType, ty: DataType) -> Check {
    use BinaryOp as B;
    let both = |fits: fn(DataType) -> bool| fits(left) && fits(right);
    let holds = match op {
        B::Eq | B::NotEq | B::Lt | B::LtEq | B::Gt | B::GtEq | B::IsDistinctFrom | B::IsNotDistinctFrom => {
            comparable(left, right) && condition(ty)
        }
        B::And | B::Or => both(condition) && condition(ty),
        B::Add | B::Sub | B::Mul | B::Div | B::Mod => both(arithmetic) && arithmetic(ty),
        B::BitAnd | B::BitOr | B::BitXor | B::ShiftLeft | B::ShiftRight => {
            both(|ty| integer(ty) || ty == DataType::Null) && (integer(ty) || ty == DataType::Null)
        }
        B::Concat => both(text) && text(ty),
        B::RegexMatch | B::RegexIMatch | B::RegexNotMatch | B::RegexNotIMatch => both(text) && condition(ty),
    };
    expect(holds, || format!("{op:?} of {left:?} and {right:?} gives {ty:?}"))
}

fn unary(op: UnaryOp, input: DataType) -> Check {
    use UnaryOp as U;
    let holds = match op {
        U::Negate => numeric(input) || matches!(input, DataType::Null | DataType::Interval),
        U::IsNull | U::IsNotNull => true,
        U::Not | U::IsTrue | U::IsNotTrue | U::IsFalse | U::IsNotFalse | U::IsUnknown | U::IsNotUnknown => condition(input),
    };
    expect(holds, || format!("{op:?} of {input:?}"))
}

fn case(branches: &[(Expr, Expr)], otherwise: Option<&Expr>, ty: DataType) -> Check {
    expect(!branches.is_empty(), || "a CASE without WHEN".into())?;
    let odd = branches.iter().map(|(condition, _)| condition.data_type()).find(|ty| !condition(*ty));
    expect(odd.is_none(), || format!("a WHEN of type {odd:?}"))?;
    let mut results = branches.iter().map(|(_, result)| result).chain(otherwise).map(Expr::data_type);
    let odd = results.find(|result| *result != ty && *result != DataType::Null);
    expect(odd.is_none(), || format!("a CASE of type {ty:?} yields {odd:?}"))
}

/// Whether the value of a literal is one of its type.
fn fits(literal: &Literal) -> bool {
    let int = |min: i64, max: i64, value: i64| (min..=max).contains(&value);
    match (&literal.value, literal.ty) {
        (Value::Null, _)
        | (Value::Bool(_), DataType::Bool)
        | (Value::Int(_), DataType::Int64 | DataType::Timestamp)
        | (Value::UInt(_), DataType::UInt64)
        | (Value::Float(_), DataType::Float32 | DataType::Float64)
        | (Value::Str(_), DataType::Utf8)
        | (Value::Bytes(_), DataType::Binary)
        | (Value::Interval { .. }, DataType::Interval) => true,
        (Value::Int(v), DataType::Int8) => int(i8::MIN.into(), i8::MAX.into(), *v),
        (Value::Int(v), DataType::Int16) => int(i16::MIN.into(), i16::MAX.into(), *v),
        (Value::Int(v), DataType::Int32 | DataType::Date) => int(i32::MIN.into(), i32::MAX.into(), *v),
        (Value::UInt(v), DataType::UInt8) => *v <= u8::MAX.into(),
        (Value::UInt(v), DataType::UInt16) => *v <= u16::MAX.into(),
        (Value::UInt(v), DataType::UInt32) => *v <= u32::MAX.into(),
        (Value::Decimal(v), DataType::Decimal { precision, .. }) => {
            10u128.checked_pow(precision.into()).is_some_and(|limit| v.unsigned_abs() < limit)
        }
        _ => false,
    }
}
