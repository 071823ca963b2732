//! Expressions as text for people.

use std::fmt::Write;

use stoa_plan::{BinaryOp, Expr, Literal, UnaryOp, Value};

use super::bounds;
use crate::Layout;

/// The text of an expression over the columns of a layout.
pub(crate) fn describe(expr: &Expr, layout: &Layout) -> String {
    let mut out = String::new();
    text(expr, layout, &mut out);
    out
}

/// Longest description.
const LONGEST: usize = 400;

fn text(expr: &Expr, layout: &Layout, out: &mut String) {
    if out.len() > LONGEST {
        if !out.ends_with("...") {
            out.push_str("...");
        }
        return;
    }
    match expr {
        Expr::Column(id, _) => match layout.columns.iter().find(|c| c.field.id == *id) {
            Some(column) => out.push_str(&column.field.name),
            None => drop(write!(out, "column {}", id.0)),
        },
        Expr::Literal(value) => literal(value, out),
        Expr::Parameter(id, _) => drop(write!(out, "${}", id.0)),
        Expr::Binary { op, left, right, .. } => {
            operand(left, layout, out);
            let _ = write!(out, " {} ", symbol(*op));
            operand(right, layout, out);
        }
        Expr::Unary { op, input } => unary(*op, input, layout, out),
        Expr::Cast { input, ty, safe } => {
            out.push_str(if *safe { "TRY_CAST(" } else { "CAST(" });
            text(input, layout, out);
            let _ = write!(out, " AS {})", super::arithmetic::name(*ty));
        }
        Expr::Case { branches, otherwise, .. } => {
            out.push_str("CASE");
            for (condition, result) in branches {
                out.push_str(" WHEN ");
                text(condition, layout, out);
                out.push_str(" THEN ");
                text(result, layout, out);
            }
            if let Some(otherwise) = otherwise {
                out.push_str(" ELSE ");
                text(otherwise, layout, out);
            }
            out.push_str(" END");
        }
        Expr::InList { input, list, negated } => {
            operand(input, layout, out);
            out.push_str(if *negated { " NOT IN (" } else { " IN (" });
            items(list, layout, out);
        }
        Expr::Like { input, pattern, negated, case_insensitive, .. } => {
            operand(input, layout, out);
            out.push_str(if *negated { " NOT" } else { "" });
            out.push_str(if *case_insensitive { " ILIKE " } else { " LIKE " });
            operand(pattern, layout, out);
        }
        Expr::Function { name, args, .. } => {
            let _ = write!(out, "{name}(");
            items(args, layout, out);
        }
    }
}

fn items(list: &[Expr], layout: &Layout, out: &mut String) {
    for (i, item) in list.iter().enumerate() {
        out.push_str(if i == 0 { "" } else { ", " });
        text(item, layout, out);
    }
    out.push(')');
}

fn operand(expr: &Expr, layout: &Layout, out: &mut String) {
    let simple =
        matches!(expr, Expr::Column(..) | Expr::Literal(_) | Expr::Parameter(..) | Expr::Cast { .. } | Expr::Function { .. });
    out.push_str(if simple { "" } else { "(" });
    text(expr, layout, out);
    out.push_str(if simple { "" } else { ")" });
}

fn unary(op: UnaryOp, input: &Expr, layout: &Layout, out: &mut String) {
    let (before, after) = match op {
        UnaryOp::Not => ("NOT ", ""),
        UnaryOp::Negate => ("-", ""),
        UnaryOp::IsNull => ("", " IS NULL"),
        UnaryOp::IsNotNull => ("", " IS NOT NULL"),
        UnaryOp::IsTrue => ("", " IS TRUE"),
        UnaryOp::IsNotTrue => ("", " IS NOT TRUE"),
        UnaryOp::IsFalse => ("", " IS FALSE"),
        UnaryOp::IsNotFalse => ("", " IS NOT FALSE"),
        UnaryOp::IsUnknown => ("", " IS UNKNOWN"),
        UnaryOp::IsNotUnknown => ("", " IS NOT UNKNOWN"),
    };
    out.push_str(before);
    operand(input, layout, out);
    out.push_str(after);
}

fn symbol(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Eq => "=",
        BinaryOp::NotEq => "<>",
        BinaryOp::Lt => "<",
        BinaryOp::LtEq => "<=",
        BinaryOp::Gt => ">",
        BinaryOp::GtEq => ">=",
        BinaryOp::IsDistinctFrom => "IS DISTINCT FROM",
        BinaryOp::IsNotDistinctFrom => "IS NOT DISTINCT FROM",
        BinaryOp::And => "AND",
        BinaryOp::Or => "OR",
        BinaryOp::Add => "+",
        BinaryOp::Sub => "-",
        BinaryOp::Mul => "*",
        BinaryOp::Div => "/",
        BinaryOp::Mod => "%",
        BinaryOp::BitAnd => "&",
        BinaryOp::BitOr => "|",
        BinaryOp::BitXor => "#",
        BinaryOp::ShiftLeft => "<<",
        BinaryOp::ShiftRight => ">>",
        BinaryOp::Concat => "||",
        BinaryOp::RegexMatch => "~",
        BinaryOp::RegexIMatch => "~*",
        BinaryOp::RegexNotMatch => "!~",
        BinaryOp::RegexNotIMatch => "!~*",
    }
}

fn literal(literal: &Literal, out: &mut String) {
    let written = match &literal.value {
        Value::Null => write!(out, "NULL"),
        Value::Bool(v) => write!(out, "{v}"),
        Value::Int(v) if literal.ty == stoa_plan::DataType::Date => {
            let (year, month, day) = super::calendar::civil(*v);
            write!(out, "{year:04}-{month:02}-{day:02}")
        }
        Value::Int(v) => write!(out, "{v}"),
        Value::UInt(v) => write!(out, "{v}"),
        Value::Float(v) => write!(out, "{v}"),
        Value::Decimal(v) => {
            let scale = bounds::scale(literal.ty).unsigned_abs();
            match bounds::power_of_ten(scale) {
                Some(unit) if scale > 0 => {
                    let sign = if *v < 0 { "-" } else { "" };
                    write!(out, "{sign}{}.{:0width$}", (v / unit).abs(), (v % unit).abs(), width = scale as usize)
                }
                _ => write!(out, "{v}"),
            }
        }
        Value::Str(v) => write!(out, "'{v}'"),
        Value::Bytes(v) => write!(out, "{} bytes", v.len()),
        Value::Interval { months, days, nanos } => write!(out, "INTERVAL {months} months {days} days {nanos} ns"),
    };
    let _ = written;
}
