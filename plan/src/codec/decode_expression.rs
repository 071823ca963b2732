//! Expressions from messages.

use capnp::struct_list;
use stoa_schema::plan_capnp as wire;

use super::budget::{Budget, list};
use super::values::{decode_binary, decode_literal, decode_name, decode_type, decode_unary};
use super::{CodecError, newer};
use crate::{ColumnId, Expr, ParameterId, SortKey};

type From<'a> = capnp::Result<wire::expression::Reader<'a>>;
type List<'a> = struct_list::Reader<'a, wire::expression::Owned>;

/// Reads an expression that stands alone.
pub(super) fn expression(from: From<'_>, present: bool, budget: &mut Budget) -> Result<Expr, CodecError> {
    nested(from, present, 1, budget)
}

/// Reads expressions that each stand alone.
pub(super) fn expressions(what: &'static str, from: List<'_>, budget: &mut Budget) -> Result<Vec<Expr>, CodecError> {
    all(what, from, 1, budget)
}

/// Reads sort keys.
pub(super) fn sort_keys(
    from: struct_list::Reader<'_, wire::sort_key::Owned>,
    budget: &mut Budget,
) -> Result<Vec<SortKey>, CodecError> {
    list("sort keys", from.len() as usize)?;
    let mut keys = Vec::new();
    for key in from {
        keys.push(SortKey {
            expr: expression(key.get_expression(), key.has_expression(), budget)?,
            descending: key.get_descending(),
            nulls_first: key.get_nulls_first(),
        });
    }
    Ok(keys)
}

fn all(what: &'static str, from: List<'_>, depth: usize, budget: &mut Budget) -> Result<Vec<Expr>, CodecError> {
    list(what, from.len() as usize)?;
    from.iter().map(|from| nested(Ok(from), true, depth, budget)).collect()
}

fn boxed(from: From<'_>, present: bool, depth: usize, budget: &mut Budget) -> Result<Box<Expr>, CodecError> {
    nested(from, present, depth, budget).map(Box::new)
}

/// The variants have functions of their own so that the frames of this recursion stay small.
fn nested(from: From<'_>, present: bool, depth: usize, budget: &mut Budget) -> Result<Expr, CodecError> {
    use wire::expression::Which;
    budget.expression(depth)?;
    if !present {
        return Err(CodecError::Missing("an expression"));
    }
    match from?.which().map_err(|e| newer("kind of expression", e))? {
        Which::Column(from) => Ok(Expr::Column(ColumnId(from.get_id()), decode_type(from.get_type()?)?)),
        Which::Literal(from) => Ok(Expr::Literal(decode_literal(from?)?)),
        Which::Parameter(from) => Ok(Expr::Parameter(ParameterId(from.get_id()), decode_type(from.get_type()?)?)),
        Which::Binary(from) => binary(from, depth + 1, budget),
        Which::Unary(from) => unary(from, depth + 1, budget),
        Which::Cast(from) => cast(from, depth + 1, budget),
        Which::Case(from) => case(from, depth + 1, budget),
        Which::InList(from) => in_list(from, depth + 1, budget),
        Which::Like(from) => like(from, depth + 1, budget),
        Which::Function(from) => function(from, depth + 1, budget),
    }
}

fn binary(from: wire::expression::binary::Reader<'_>, depth: usize, budget: &mut Budget) -> Result<Expr, CodecError> {
    Ok(Expr::Binary {
        op: decode_binary(from.get_operator())?,
        left: boxed(from.get_left(), from.has_left(), depth, budget)?,
        right: boxed(from.get_right(), from.has_right(), depth, budget)?,
        ty: decode_type(from.get_type()?)?,
    })
}

fn unary(from: wire::expression::unary::Reader<'_>, depth: usize, budget: &mut Budget) -> Result<Expr, CodecError> {
    let op = decode_unary(from.get_operator())?;
    Ok(Expr::Unary { op, input: boxed(from.get_input(), from.has_input(), depth, budget)? })
}

fn cast(from: wire::expression::cast::Reader<'_>, depth: usize, budget: &mut Budget) -> Result<Expr, CodecError> {
    Ok(Expr::Cast {
        input: boxed(from.get_input(), from.has_input(), depth, budget)?,
        ty: decode_type(from.get_type()?)?,
        safe: from.get_safe(),
    })
}

fn case(from: wire::expression::case::Reader<'_>, depth: usize, budget: &mut Budget) -> Result<Expr, CodecError> {
    let list_of = from.get_branches()?;
    list("branches of a CASE", list_of.len() as usize)?;
    let mut branches = Vec::new();
    for branch in list_of {
        let condition = nested(branch.get_condition(), branch.has_condition(), depth, budget)?;
        branches.push((condition, nested(branch.get_result(), branch.has_result(), depth, budget)?));
    }
    let otherwise = if from.has_otherwise() { Some(boxed(from.get_otherwise(), true, depth, budget)?) } else { None };
    Ok(Expr::Case { branches, otherwise, ty: decode_type(from.get_type()?)? })
}

fn in_list(from: wire::expression::in_list::Reader<'_>, depth: usize, budget: &mut Budget) -> Result<Expr, CodecError> {
    Ok(Expr::InList {
        input: boxed(from.get_input(), from.has_input(), depth, budget)?,
        list: all("entries of an IN list", from.get_list()?, depth, budget)?,
        negated: from.get_negated(),
    })
}

fn like(from: wire::expression::like::Reader<'_>, depth: usize, budget: &mut Budget) -> Result<Expr, CodecError> {
    let escape = match from.get_escape() {
        0 => None,
        code => {
            Some(char::from_u32(code).ok_or_else(|| CodecError::Malformed(format!("LIKE escape {code:#x} is not a character")))?)
        }
    };
    Ok(Expr::Like {
        input: boxed(from.get_input(), from.has_input(), depth, budget)?,
        pattern: boxed(from.get_pattern(), from.has_pattern(), depth, budget)?,
        escape,
        negated: from.get_negated(),
        case_insensitive: from.get_case_insensitive(),
    })
}

fn function(from: wire::expression::function::Reader<'_>, depth: usize, budget: &mut Budget) -> Result<Expr, CodecError> {
    Ok(Expr::Function {
        name: decode_name(from.get_name()?)?,
        args: all("arguments of a function", from.get_args()?, depth, budget)?,
        ty: decode_type(from.get_type()?)?,
    })
}
