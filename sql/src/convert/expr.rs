//! Scalar expressions.

use datafusion_expr::expr::{Between, Case, Like, ScalarFunction};
use datafusion_expr::{BinaryExpr, Expr as Source, ExprSchemable, Operator};
use stoa_plan::{BinaryOp, DataType, Expr, Literal, UnaryOp, Value};

use super::simplify::{collect_equalities, compare_as_date, without_true};
use super::{Converter, MAX_DEPTH, Scope, literal};
use crate::{SqlError, types};

impl Converter {
    /// Converts an expression and checks its depth.
    pub(super) fn expr(&mut self, expr: &Source, scope: Scope<'_>) -> Result<Expr, SqlError> {
        let converted = self.any(expr, scope)?;
        if depth(&converted) > MAX_DEPTH {
            return Err(SqlError::new(format!("an expression is nested more than {MAX_DEPTH} levels deep")));
        }
        Ok(converted)
    }

    fn any(&mut self, expr: &Source, scope: Scope<'_>) -> Result<Expr, SqlError> {
        match expr {
            Source::Alias(alias) => self.any(&alias.expr, scope),
            Source::Column(column) => column_of(column, scope),
            Source::Literal(scalar, _) => Ok(Expr::Literal(literal::literal(scalar)?)),
            Source::BinaryExpr(binary) => self.binary(expr, binary, scope),
            Source::Like(like) => self.like(like, scope),
            Source::SimilarTo(_) => Err(SqlError::unsupported("SIMILAR TO")),
            Source::Not(e) => self.unary(UnaryOp::Not, e, scope),
            Source::IsNotNull(e) => self.unary(UnaryOp::IsNotNull, e, scope),
            Source::IsNull(e) => self.unary(UnaryOp::IsNull, e, scope),
            Source::IsTrue(e) => self.unary(UnaryOp::IsTrue, e, scope),
            Source::IsFalse(e) => self.unary(UnaryOp::IsFalse, e, scope),
            Source::IsUnknown(e) => self.unary(UnaryOp::IsUnknown, e, scope),
            Source::IsNotTrue(e) => self.unary(UnaryOp::IsNotTrue, e, scope),
            Source::IsNotFalse(e) => self.unary(UnaryOp::IsNotFalse, e, scope),
            Source::IsNotUnknown(e) => self.unary(UnaryOp::IsNotUnknown, e, scope),
            Source::Negative(e) => self.unary(UnaryOp::Negate, e, scope),
            Source::Between(between) => self.between(between, scope),
            Source::Case(case) => self.case(expr, case, scope),
            Source::Cast(inner) => {
                let ty = types::logical_type(inner.field.data_type())?;
                Ok(cast(self.any(&inner.expr, scope)?, ty))
            }
            Source::TryCast(inner) => {
                let ty = types::logical_type(inner.field.data_type())?;
                let input = self.any(&inner.expr, scope)?;
                if input.data_type() == ty {
                    return Ok(input);
                }
                Ok(Expr::Cast { input: Box::new(input), ty, safe: true })
            }
            Source::ScalarFunction(call) => self.function(call, expr, scope),
            Source::InList(list) => {
                let input = self.any(&list.expr, scope)?;
                let ty = input.data_type();
                let candidates = list.list.iter().map(|e| Ok(cast(self.any(e, scope)?, ty)));
                let candidates = candidates.collect::<Result<Vec<_>, SqlError>>()?;
                Ok(Expr::InList { input: Box::new(input), list: candidates, negated: list.negated })
            }
            Source::ScalarSubquery(subquery) => {
                if subquery.outer_ref_columns.is_empty() {
                    return self.scalar_subquery(&subquery.subquery);
                }
                Err(correlated("a subquery that is used as a value"))
            }
            other => Err(refused(other)),
        }
    }

    fn function(&mut self, call: &ScalarFunction, whole: &Source, scope: Scope<'_>) -> Result<Expr, SqlError> {
        match (call.func.name(), &call.args[..]) {
            (crate::bind::OPAQUE, [inner]) => self.any(inner, scope),
            (crate::bind::DIFFERENCE, [left, right]) => {
                let (left, right) = (Box::new(self.any(left, scope)?), Box::new(self.any(right, scope)?));
                Ok(Expr::Binary { op: BinaryOp::Sub, left, right, ty: DataType::Interval })
            }
            (name, args) => {
                let args = args.iter().map(|a| self.any(a, scope)).collect::<Result<Vec<_>, _>>()?;
                Ok(Expr::Function { name: name.to_owned(), args, ty: type_of(whole, scope)? })
            }
        }
    }

    fn unary(&mut self, op: UnaryOp, input: &Source, scope: Scope<'_>) -> Result<Expr, SqlError> {
        Ok(Expr::Unary { op, input: Box::new(self.any(input, scope)?) })
    }

    fn binary(&mut self, whole: &Source, binary: &BinaryExpr, scope: Scope<'_>) -> Result<Expr, SqlError> {
        if matches!(binary.op, Operator::And | Operator::Or) {
            let mut operands = Vec::new();
            flatten(whole, binary.op, &mut operands);
            let operands = operands.into_iter().map(|e| self.any(e, scope)).collect::<Result<Vec<_>, _>>()?;
            let op = if binary.op == Operator::And { BinaryOp::And } else { BinaryOp::Or };
            let operands = match op {
                BinaryOp::And => without_true(op, operands),
                _ => collect_equalities(operands),
            };
            return balanced(op, operands);
        }
        if let Some((negated, case_insensitive)) = like_operator(binary.op) {
            let (input, pattern) = (self.any(&binary.left, scope)?, self.any(&binary.right, scope)?);
            let (input, pattern) = (Box::new(input), Box::new(pattern));
            return Ok(Expr::Like { input, pattern, escape: None, negated, case_insensitive });
        }
        let op = operator(binary.op)?;
        let (left, right) = (self.any(&binary.left, scope)?, self.any(&binary.right, scope)?);
        let ty = match op {
            BinaryOp::Add
            | BinaryOp::Sub
            | BinaryOp::Mul
            | BinaryOp::Div
            | BinaryOp::Mod
            | BinaryOp::BitAnd
            | BinaryOp::BitOr
            | BinaryOp::BitXor
            | BinaryOp::ShiftLeft
            | BinaryOp::ShiftRight => type_of(whole, scope)?,
            BinaryOp::Concat => DataType::Utf8,
            _ => DataType::Bool,
        };
        let (op, left, right) = match is_comparison(op) {
            true => {
                let (left, right) = comparable(left, right);
                compare_as_date(op, left, right)
            }
            false if ty == DataType::Int64 && is_arithmetic(op) => (op, as_narrow(left), as_narrow(right)),
            false => (op, left, right),
        };
        Ok(Expr::Binary { op, left: Box::new(left), right: Box::new(right), ty })
    }

    fn like(&mut self, like: &Like, scope: Scope<'_>) -> Result<Expr, SqlError> {
        Ok(Expr::Like {
            input: Box::new(self.any(&like.expr, scope)?),
            pattern: Box::new(self.any(&like.pattern, scope)?),
            escape: like.escape_char,
            negated: like.negated,
            case_insensitive: like.case_insensitive,
        })
    }

    fn between(&mut self, between: &Between, scope: Scope<'_>) -> Result<Expr, SqlError> {
        let input = (*between.expr).clone();
        let (low, high) = ((*between.low).clone(), (*between.high).clone());
        let rewritten = match between.negated {
            false => input.clone().gt_eq(low).and(input.lt_eq(high)),
            true => input.clone().lt(low).or(input.gt(high)),
        };
        self.any(&rewritten, scope)
    }

    fn case(&mut self, whole: &Source, case: &Case, scope: Scope<'_>) -> Result<Expr, SqlError> {
        let ty = type_of(whole, scope)?;
        let operand = case.expr.as_ref().map(|e| self.any(e, scope)).transpose()?;
        let mut branches = Vec::with_capacity(case.when_then_expr.len());
        for (when, then) in &case.when_then_expr {
            let mut when = self.any(when, scope)?;
            if let Some(operand) = &operand {
                let (left, right) = (Box::new(operand.clone()), Box::new(when));
                when = Expr::Binary { op: BinaryOp::Eq, left, right, ty: DataType::Bool };
            }
            branches.push((when, cast(self.any(then, scope)?, ty)));
        }
        let otherwise = match &case.else_expr {
            Some(e) => Some(Box::new(cast(self.any(e, scope)?, ty))),
            None => None,
        };
        Ok(Expr::Case { branches, otherwise, ty })
    }
}

/// What the plan cannot say, and why.
fn refused(expr: &Source) -> SqlError {
    match expr {
        Source::Exists(e) => left_over("EXISTS", &e.subquery),
        Source::InSubquery(e) => left_over("IN (subquery)", &e.subquery),
        Source::SetComparison(_) => SqlError::unsupported("ANY or ALL (subquery) in this place"),
        Source::OuterReferenceColumn(_, column) => {
            correlated(&format!("a subquery that refers to the outer column '{}'", column.name))
        }
        Source::Placeholder(placeholder) => {
            SqlError::new(format!("the statement has a placeholder '{}' without a value", placeholder.id))
        }
        Source::ScalarVariable(_, names) => SqlError::new(format!("there is no variable '{}'", names.join("."))),
        Source::AggregateFunction(call) => SqlError::new(format!("the aggregate '{}' is not allowed here", call.func.name())),
        Source::WindowFunction(call) => SqlError::new(format!("the window function '{}' is not allowed here", call.fun.name())),
        other => SqlError::unsupported(format!("the expression {other}")),
    }
}

/// A subquery predicate that no rewrite took away.
fn left_over(what: &str, subquery: &datafusion_expr::Subquery) -> SqlError {
    if subquery.outer_ref_columns.is_empty() {
        return SqlError::new(format!("{what} is supported in WHERE, HAVING and the SELECT list, not here"));
    }
    correlated(what)
}

fn correlated(what: &str) -> SqlError {
    SqlError::new(format!("{what} cannot be turned into a join: this form of correlation is not supported"))
}

fn column_of(column: &datafusion_common::Column, scope: Scope<'_>) -> Result<Expr, SqlError> {
    let index = scope.schema.index_of_column(column).map_err(|e| SqlError::from_front_end(&e))?;
    let Some(field) = scope.columns.get(index) else {
        return Err(SqlError::new(format!("there is no column '{}'", column.flat_name())));
    };
    let wanted = types::logical_type(scope.schema.field(index).data_type())?;
    Ok(cast(Expr::Column(field.id, field.ty), wanted))
}

fn type_of(expr: &Source, scope: Scope<'_>) -> Result<DataType, SqlError> {
    let ty = expr.get_type(scope.schema).map_err(|e| SqlError::from_front_end(&e))?;
    types::logical_type(&ty)
}

/// A cast, unless the type is that already; typed NULLs need none.
pub(super) fn cast(input: Expr, ty: DataType) -> Expr {
    if input.data_type() == ty {
        return input;
    }
    match input {
        Expr::Literal(Literal { value: Value::Null, .. }) => literal::null(ty),
        input => Expr::Cast { input: Box::new(input), ty, safe: false },
    }
}

/// An operand without the cast of a smaller integer to a BIGINT: the operation widens what it reads.
fn as_narrow(operand: Expr) -> Expr {
    match operand {
        Expr::Cast { input, ty: DataType::Int64, safe: false } if is_small_integer(input.data_type()) => *input,
        other => other,
    }
}

fn is_arithmetic(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod)
}

fn is_small_integer(ty: DataType) -> bool {
    use DataType::{Int8, Int16, Int32, UInt8, UInt16, UInt32};
    matches!(ty, Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32)
}

/// Both sides of a comparison have one type; a literal takes the type of the other side where that loses nothing.
fn comparable(left: Expr, right: Expr) -> (Expr, Expr) {
    let (a, b) = (left.data_type(), right.data_type());
    match (&left, &right) {
        (_, Expr::Literal(Literal { value: Value::Null, .. })) if a != b => (left, literal::null(a)),
        (Expr::Literal(Literal { value: Value::Null, .. }), _) if a != b => (literal::null(b), right),
        _ => (left, right),
    }
}

fn is_comparison(op: BinaryOp) -> bool {
    matches!(
        op,
        BinaryOp::Eq
            | BinaryOp::NotEq
            | BinaryOp::Lt
            | BinaryOp::LtEq
            | BinaryOp::Gt
            | BinaryOp::GtEq
            | BinaryOp::IsDistinctFrom
            | BinaryOp::IsNotDistinctFrom
    )
}

fn flatten<'a>(expr: &'a Source, op: Operator, operands: &mut Vec<&'a Source>) {
    match expr {
        Source::BinaryExpr(binary) if binary.op == op => {
            flatten(&binary.left, op, operands);
            flatten(&binary.right, op, operands);
        }
        other => operands.push(other),
    }
}

/// A chain of AND or OR as a tree of least depth, in the same order.
fn balanced(op: BinaryOp, mut operands: Vec<Expr>) -> Result<Expr, SqlError> {
    if operands.len() <= 1 {
        return operands.pop().ok_or_else(|| SqlError::new("a condition without operands"));
    }
    let right = operands.split_off(operands.len().div_ceil(2));
    let (left, right) = (Box::new(balanced(op, operands)?), Box::new(balanced(op, right)?));
    Ok(Expr::Binary { op, left, right, ty: DataType::Bool })
}

fn depth(expr: &Expr) -> usize {
    1 + expr.children().into_iter().map(depth).max().unwrap_or(0)
}

fn like_operator(op: Operator) -> Option<(bool, bool)> {
    Some(match op {
        Operator::LikeMatch => (false, false),
        Operator::ILikeMatch => (false, true),
        Operator::NotLikeMatch => (true, false),
        Operator::NotILikeMatch => (true, true),
        _ => return None,
    })
}

fn operator(op: Operator) -> Result<BinaryOp, SqlError> {
    Ok(match op {
        Operator::Eq => BinaryOp::Eq,
        Operator::NotEq => BinaryOp::NotEq,
        Operator::Lt => BinaryOp::Lt,
        Operator::LtEq => BinaryOp::LtEq,
        Operator::Gt => BinaryOp::Gt,
        Operator::GtEq => BinaryOp::GtEq,
        Operator::IsDistinctFrom => BinaryOp::IsDistinctFrom,
        Operator::IsNotDistinctFrom => BinaryOp::IsNotDistinctFrom,
        Operator::And => BinaryOp::And,
        Operator::Or => BinaryOp::Or,
        Operator::Plus => BinaryOp::Add,
        Operator::Minus => BinaryOp::Sub,
        Operator::Multiply => BinaryOp::Mul,
        Operator::Divide => BinaryOp::Div,
        Operator::Modulo => BinaryOp::Mod,
        Operator::BitwiseAnd => BinaryOp::BitAnd,
        Operator::BitwiseOr => BinaryOp::BitOr,
        Operator::BitwiseXor => BinaryOp::BitXor,
        Operator::BitwiseShiftLeft => BinaryOp::ShiftLeft,
        Operator::BitwiseShiftRight => BinaryOp::ShiftRight,
        Operator::StringConcat => BinaryOp::Concat,
        Operator::RegexMatch => BinaryOp::RegexMatch,
        Operator::RegexIMatch => BinaryOp::RegexIMatch,
        Operator::RegexNotMatch => BinaryOp::RegexNotMatch,
        Operator::RegexNotIMatch => BinaryOp::RegexNotIMatch,
        other => return Err(SqlError::unsupported(format!("the operator {other}"))),
    })
}
