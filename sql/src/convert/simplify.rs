//! Small rewrites of converted expressions that the front end leaves or undoes.

use stoa_plan::{BinaryOp, DataType, Expr, Literal, Value};

use super::is_true;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// `x AND TRUE` is `x`.
pub(super) fn without_true(op: BinaryOp, mut operands: Vec<Expr>) -> Vec<Expr> {
    if op == BinaryOp::And && !operands.iter().all(is_true) {
        operands.retain(|e| !is_true(e));
    }
    operands
}

/// `x = 1 OR x = 2 OR y` is `x IN (1, 2) OR y`: the front end takes short lists apart, scans want them whole.
pub(super) fn collect_equalities(operands: Vec<Expr>) -> Vec<Expr> {
    let mut collected: Vec<Expr> = Vec::with_capacity(operands.len());
    // Lists stay few: one for each column that is compared with literals.
    let mut lists: Vec<usize> = Vec::new();
    for operand in operands {
        let (input, literal) = match operand {
            Expr::Binary { op: BinaryOp::Eq, left, right, .. } if matches!((&*left, &*right), (Expr::Column(..), Expr::Literal(l)) if l.value != Value::Null) => {
                (*left, *right)
            }
            other => {
                collected.push(other);
                continue;
            }
        };
        let known = lists.iter().find(|&&at| matches!(&collected[at], Expr::InList { input: known, .. } if **known == input));
        match known {
            Some(&at) => {
                if let Expr::InList { list, .. } = &mut collected[at] {
                    list.push(literal);
                }
            }
            None => {
                lists.push(collected.len());
                collected.push(Expr::InList { input: Box::new(input), list: vec![literal], negated: false });
            }
        }
    }
    collected.into_iter().map(single_candidate).collect()
}

/// `x IN (1)` is `x = 1`.
fn single_candidate(expr: Expr) -> Expr {
    match expr {
        Expr::InList { input, mut list, negated: false } if list.len() == 1 && matches!(list[0], Expr::Literal(_)) => {
            Expr::Binary { op: BinaryOp::Eq, left: input, right: Box::new(list.remove(0)), ty: DataType::Bool }
        }
        other => other,
    }
}

/// `CAST(date AS TIMESTAMP) < timestamp literal` as a comparison of the date with a date.
pub(super) fn compare_as_date(op: BinaryOp, left: Expr, right: Expr) -> (BinaryOp, Expr, Expr) {
    let Expr::Cast { input, ty: DataType::Timestamp, safe: false } = &left else { return (op, left, right) };
    let Expr::Literal(Literal { value: Value::Int(micros), .. }) = &right else { return (op, left, right) };
    if input.data_type() != DataType::Date {
        return (op, left, right);
    }
    let midnight = micros.rem_euclid(MICROS_PER_DAY) == 0;
    // The first instant of a day is at or before any instant of it.
    let op = match op {
        BinaryOp::Eq | BinaryOp::NotEq if midnight => op,
        BinaryOp::Lt if midnight => BinaryOp::Lt,
        BinaryOp::Lt | BinaryOp::LtEq => BinaryOp::LtEq,
        BinaryOp::GtEq if midnight => BinaryOp::GtEq,
        BinaryOp::Gt | BinaryOp::GtEq => BinaryOp::Gt,
        _ => return (op, left, right),
    };
    let day = Expr::Literal(Literal { ty: DataType::Date, value: Value::Int(micros.div_euclid(MICROS_PER_DAY)) });
    ((op), (**input).clone(), day)
}
