//! Boolean algebra on predicates: conjuncts, common factors of a disjunction, what a disjunction implies for some columns alone.

use hashbrown::HashMap;

use crate::{BinaryOp, ColumnId, DataType, Expr, Literal, UnaryOp, Value};

/// Functions whose value is not a function of their arguments: a predicate with one stays where it is.
const VOLATILE: [&str; 3] = ["random", "uuid", "now"];

/// The conjuncts of `expr`, in order, appended to `out`. Constant TRUE disappears.
pub fn split_conjuncts(expr: Expr, out: &mut Vec<Expr>) {
    match expr {
        Expr::Binary { op: BinaryOp::And, left, right, .. } => {
            split_conjuncts(*left, out);
            split_conjuncts(*right, out);
        }
        Expr::Literal(Literal { value: Value::Bool(true), .. }) => {}
        other => {
            if !out.contains(&other) {
                out.push(other);
            }
        }
    }
}

/// The disjuncts of `expr`, in order.
fn disjuncts(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Binary { op: BinaryOp::Or, left, right, .. } => {
            let mut all = disjuncts(left);
            all.extend(disjuncts(right));
            all
        }
        other => vec![other],
    }
}

/// `a AND b AND ...`; `None` of nothing.
pub fn conjunction(parts: impl IntoIterator<Item = Expr>) -> Option<Expr> {
    parts.into_iter().reduce(|a, b| binary(BinaryOp::And, a, b))
}

fn disjunction(parts: impl IntoIterator<Item = Expr>) -> Option<Expr> {
    parts.into_iter().reduce(|a, b| binary(BinaryOp::Or, a, b))
}

/// `left op right` of type boolean.
pub fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    Expr::Binary { op, left: Box::new(left), right: Box::new(right), ty: DataType::Bool }
}

/// The conjuncts that every branch of a disjunction has are taken out of it: `(a AND b) OR (a AND c)` is `a AND (b OR c)`.
pub fn factor(conjuncts: Vec<Expr>) -> Vec<Expr> {
    let mut out = Vec::new();
    for conjunct in conjuncts {
        let branches: Vec<Vec<Expr>> = disjuncts(&conjunct).into_iter().map(conjuncts_of).collect();
        let Some((first, others)) = branches.split_first() else { continue };
        let common: Vec<Expr> = first.iter().filter(|c| others.iter().all(|b| b.contains(c))).cloned().collect();
        if others.is_empty() || common.is_empty() || common.iter().any(is_volatile) {
            push_new(&mut out, conjunct);
            continue;
        }
        let rest: Vec<Option<Expr>> =
            branches.iter().map(|b| conjunction(b.iter().filter(|c| !common.contains(c)).cloned())).collect();
        common.into_iter().for_each(|c| push_new(&mut out, c));
        // A branch with nothing left is TRUE, and so is the disjunction.
        if let Some(rest) = rest.into_iter().collect::<Option<Vec<Expr>>>()
            && let Some(rest) = disjunction(rest)
        {
            push_new(&mut out, rest);
        }
    }
    out
}

fn conjuncts_of(expr: &Expr) -> Vec<Expr> {
    let mut out = Vec::new();
    split_conjuncts(expr.clone(), &mut out);
    out
}

fn push_new(out: &mut Vec<Expr>, expr: Expr) {
    if !out.contains(&expr) {
        out.push(expr);
    }
}

/// What a disjunction implies for the columns that `own` accepts: in each branch the conjuncts over them alone. `None` if a branch
/// has none, or if `expr` is no disjunction.
pub fn implied(expr: &Expr, own: &dyn Fn(ColumnId) -> bool) -> Option<Expr> {
    let branches = disjuncts(expr);
    if branches.len() < 2 || is_volatile(expr) {
        return None;
    }
    let parts: Option<Vec<Expr>> = branches
        .into_iter()
        .map(|branch| {
            let mine = conjuncts_of(branch).into_iter().filter(|c| {
                let columns = c.columns();
                !columns.is_empty() && columns.iter().all(|id| own(*id))
            });
            conjunction(mine)
        })
        .collect();
    let mut different: Vec<Expr> = Vec::new();
    parts?.into_iter().for_each(|p| push_new(&mut different, p));
    merge_equalities(&mut different);
    disjunction(different)
}

/// `x = 1 OR x = 2` as `x IN (1, 2)`, where all parts are equalities of one operand with literals.
fn merge_equalities(parts: &mut Vec<Expr>) {
    let pair = |e: &Expr| match e {
        Expr::Binary { op: BinaryOp::Eq, left, right, .. } if matches!(**right, Expr::Literal(_)) => {
            Some(((**left).clone(), (**right).clone()))
        }
        _ => None,
    };
    let Some(pairs) = parts.iter().map(pair).collect::<Option<Vec<_>>>() else { return };
    let Some((input, _)) = pairs.first().cloned() else { return };
    if pairs.len() > 1 && pairs.iter().all(|(left, _)| *left == input) {
        let list = pairs.into_iter().map(|(_, literal)| literal).collect();
        *parts = vec![Expr::InList { input: Box::new(input), list, negated: false }];
    }
}

/// Whether evaluating the expression twice may give two values.
pub fn is_volatile(expr: &Expr) -> bool {
    let mut found = false;
    expr.walk(&mut |e| found |= matches!(e, Expr::Function { name, .. } if VOLATILE.contains(&name.as_str())));
    found
}

/// Replaces columns by expressions.
pub fn substitute(expr: &mut Expr, map: &HashMap<ColumnId, Expr>) {
    if let Expr::Column(id, _) = expr {
        if let Some(new) = map.get(id) {
            *expr = new.clone();
        }
        return;
    }
    for child in expr.children_mut() {
        substitute(child, map);
    }
}

/// Folds what is constant in boolean expressions: `NOT TRUE`, `x AND FALSE`, `x OR TRUE`, and operators on TRUE and FALSE.
pub fn fold(expr: &mut Expr) {
    for child in expr.children_mut() {
        fold(child);
    }
    let folded = match expr {
        Expr::Binary { op, left, right, .. } => fold_binary(*op, left, right),
        Expr::Unary { op: UnaryOp::Not, input } => constant(input).map(|value| boolean(!value)),
        _ => None,
    };
    if let Some(folded) = folded {
        *expr = folded;
    }
}

fn fold_binary(op: BinaryOp, left: &Expr, right: &Expr) -> Option<Expr> {
    let (dominant, neutral) = match op {
        BinaryOp::And => (false, true),
        BinaryOp::Or => (true, false),
        _ => return None,
    };
    match (constant(left), constant(right)) {
        (Some(value), _) | (_, Some(value)) if value == dominant => Some(boolean(dominant)),
        (Some(value), _) if value == neutral => Some(right.clone()),
        (_, Some(value)) if value == neutral => Some(left.clone()),
        _ => None,
    }
}

fn constant(expr: &Expr) -> Option<bool> {
    match expr {
        Expr::Literal(Literal { value: Value::Bool(value), .. }) => Some(*value),
        _ => None,
    }
}

fn boolean(value: bool) -> Expr {
    Expr::Literal(Literal { ty: DataType::Bool, value: Value::Bool(value) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(id: u32) -> Expr {
        Expr::Column(ColumnId(id), DataType::Int64)
    }

    fn equal(id: u32, value: i64) -> Expr {
        binary(BinaryOp::Eq, column(id), Expr::Literal(Literal { ty: DataType::Int64, value: Value::Int(value) }))
    }

    fn and(a: Expr, b: Expr) -> Expr {
        binary(BinaryOp::And, a, b)
    }

    fn or(a: Expr, b: Expr) -> Expr {
        binary(BinaryOp::Or, a, b)
    }

    #[test]
    fn common_conjuncts_come_out_of_a_disjunction() {
        let join = binary(BinaryOp::Eq, column(1), column(2));
        let input = or(and(join.clone(), equal(3, 1)), and(join.clone(), equal(3, 2)));
        assert_eq!(factor(vec![input]), vec![join.clone(), or(equal(3, 1), equal(3, 2))]);
        assert_eq!(factor(vec![or(and(join.clone(), equal(3, 1)), join.clone())]), vec![join]);
    }

    #[test]
    fn a_disjunction_implies_filters_of_one_side() {
        let pairs = or(and(equal(1, 7), equal(2, 8)), and(equal(1, 8), equal(2, 7)));
        let first = implied(&pairs, &|id| id == ColumnId(1)).expect("each branch has one");
        let Expr::InList { input, list, negated: false } = first else { panic!("equalities become a list: {first:?}") };
        assert_eq!((*input, list.len()), (column(1), 2));
        assert_eq!(implied(&or(equal(1, 7), equal(2, 7)), &|id| id == ColumnId(1)), None);
        assert_eq!(implied(&equal(1, 7), &|_| true), None);
    }

    #[test]
    fn constants_fold() {
        let mut expr = and(or(boolean(false), equal(1, 1)), boolean(true));
        fold(&mut expr);
        assert_eq!(expr, equal(1, 1));
        let mut expr = and(equal(1, 1), boolean(false));
        fold(&mut expr);
        assert_eq!(expr, boolean(false));
    }
}
