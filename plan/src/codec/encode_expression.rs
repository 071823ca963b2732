//! Expressions to messages.

use capnp::struct_list;
use stoa_schema::plan_capnp as wire;

use super::CodecError;
use super::budget::{Budget, list};
use super::values::{encode_binary, encode_literal, encode_name, encode_type, encode_unary};
use crate::{Expr, SortKey};

type To<'a> = wire::expression::Builder<'a>;

/// Writes an expression that stands alone.
pub(super) fn expression(expr: &Expr, to: To<'_>, budget: &mut Budget) -> Result<(), CodecError> {
    nested(expr, to, 1, budget)
}

/// Writes expressions that each stand alone.
pub(super) fn expressions<'e>(
    exprs: impl IntoIterator<Item = &'e Expr>,
    to: struct_list::Builder<'_, wire::expression::Owned>,
    budget: &mut Budget,
) -> Result<(), CodecError> {
    all(exprs, to, 1, budget)
}

/// Writes sort keys.
pub(super) fn sort_keys(
    keys: &[SortKey],
    mut to: struct_list::Builder<'_, wire::sort_key::Owned>,
    budget: &mut Budget,
) -> Result<(), CodecError> {
    for (i, key) in (0..to.len()).zip(keys) {
        let mut to = to.reborrow().get(i);
        to.set_descending(key.descending);
        to.set_nulls_first(key.nulls_first);
        expression(&key.expr, to.init_expression(), budget)?;
    }
    Ok(())
}

fn all<'e>(
    exprs: impl IntoIterator<Item = &'e Expr>,
    mut to: struct_list::Builder<'_, wire::expression::Owned>,
    depth: usize,
    budget: &mut Budget,
) -> Result<(), CodecError> {
    for (i, expr) in (0..to.len()).zip(exprs) {
        nested(expr, to.reborrow().get(i), depth, budget)?;
    }
    Ok(())
}

/// The variants have functions of their own so that the frames of this recursion stay small.
fn nested(expr: &Expr, to: To<'_>, depth: usize, budget: &mut Budget) -> Result<(), CodecError> {
    budget.expression(depth)?;
    match expr {
        Expr::Column(..) | Expr::Literal(_) | Expr::Parameter(..) => {
            leaf(expr, to);
            Ok(())
        }
        Expr::Binary { .. } | Expr::Unary { .. } | Expr::Cast { .. } => operator(expr, to, depth, budget),
        Expr::Case { .. } => case(expr, to, depth, budget),
        Expr::InList { .. } => in_list(expr, to, depth, budget),
        Expr::Like { .. } => like(expr, to, depth, budget),
        Expr::Function { .. } => function(expr, to, depth, budget),
    }
}

fn leaf(expr: &Expr, to: To<'_>) {
    match expr {
        Expr::Column(id, ty) => {
            let mut to = to.init_column();
            to.set_id(id.0);
            encode_type(*ty, to.init_type());
        }
        Expr::Parameter(id, ty) => {
            let mut to = to.init_parameter();
            to.set_id(id.0);
            encode_type(*ty, to.init_type());
        }
        Expr::Literal(literal) => encode_literal(literal, to.init_literal()),
        _ => {}
    }
}

fn operator(expr: &Expr, to: To<'_>, depth: usize, budget: &mut Budget) -> Result<(), CodecError> {
    match expr {
        Expr::Binary { op, left, right, ty } => {
            let mut to = to.init_binary();
            to.set_operator(encode_binary(*op));
            encode_type(*ty, to.reborrow().init_type());
            nested(left, to.reborrow().init_left(), depth + 1, budget)?;
            nested(right, to.init_right(), depth + 1, budget)
        }
        Expr::Unary { op, input } => {
            let mut to = to.init_unary();
            to.set_operator(encode_unary(*op));
            nested(input, to.init_input(), depth + 1, budget)
        }
        Expr::Cast { input, ty, safe } => {
            let mut to = to.init_cast();
            to.set_safe(*safe);
            encode_type(*ty, to.reborrow().init_type());
            nested(input, to.init_input(), depth + 1, budget)
        }
        _ => Ok(()),
    }
}

fn case(expr: &Expr, to: To<'_>, depth: usize, budget: &mut Budget) -> Result<(), CodecError> {
    let Expr::Case { branches, otherwise, ty } = expr else { return Ok(()) };
    let mut to = to.init_case();
    encode_type(*ty, to.reborrow().init_type());
    let count = list("branches of a CASE", branches.len())?;
    let mut list = to.reborrow().init_branches(count);
    for (i, (condition, result)) in (0..count).zip(branches) {
        let mut to = list.reborrow().get(i);
        nested(condition, to.reborrow().init_condition(), depth + 1, budget)?;
        nested(result, to.init_result(), depth + 1, budget)?;
    }
    match otherwise {
        Some(otherwise) => nested(otherwise, to.init_otherwise(), depth + 1, budget),
        None => Ok(()),
    }
}

fn in_list(expr: &Expr, to: To<'_>, depth: usize, budget: &mut Budget) -> Result<(), CodecError> {
    let Expr::InList { input, list: candidates, negated } = expr else { return Ok(()) };
    let mut to = to.init_in_list();
    to.set_negated(*negated);
    nested(input, to.reborrow().init_input(), depth + 1, budget)?;
    let count = list("entries of an IN list", candidates.len())?;
    all(candidates, to.init_list(count), depth + 1, budget)
}

fn like(expr: &Expr, to: To<'_>, depth: usize, budget: &mut Budget) -> Result<(), CodecError> {
    let Expr::Like { input, pattern, escape, negated, case_insensitive } = expr else { return Ok(()) };
    let mut to = to.init_like();
    to.set_negated(*negated);
    to.set_case_insensitive(*case_insensitive);
    to.set_escape(escape.map_or(0, u32::from));
    nested(input, to.reborrow().init_input(), depth + 1, budget)?;
    nested(pattern, to.init_pattern(), depth + 1, budget)
}

fn function(expr: &Expr, to: To<'_>, depth: usize, budget: &mut Budget) -> Result<(), CodecError> {
    let Expr::Function { name, args, ty } = expr else { return Ok(()) };
    let mut to = to.init_function();
    to.set_name(encode_name(name)?);
    encode_type(*ty, to.reborrow().init_type());
    let count = list("arguments of a function", args.len())?;
    all(args, to.init_args(count), depth + 1, budget)
}
