//! Spellings of other dialects, turned into ones that the front end knows, and what it would get wrong, rejected.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion_sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, CastKind, DataType, ExactNumberInfo, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentClause, FunctionArgumentList, FunctionArguments, GroupByExpr, GroupByWithModifier, Ident, LimitClause,
    ObjectName, ObjectNamePart, OrderBy, Query, Select, SetExpr, SetOperator, Spanned, Statement, TableFactor, Value, VisitMut,
    VisitorMut,
};
use datafusion_sql::sqlparser::tokenizer::Span;

use super::using::Columns;
use super::{common_columns, markers, output, tuples, using};
use crate::{Catalog, SqlError};

/// More tables than this in one FROM are refused.
const MAX_TABLES: usize = 500;

/// Rewrites a statement in place.
pub(crate) fn statement(statement: &mut Statement, catalog: &dyn Catalog) -> Result<(), SqlError> {
    match statement.visit(&mut Rewriter { columns: Columns { catalog, queries: HashMap::new() } }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Rewriter<'a> {
    columns: Columns<'a>,
}

impl VisitorMut for Rewriter<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        if let Some(with) = &query.with {
            if with.recursive {
                return reject("WITH RECURSIVE", with.span());
            }
            with.cte_tables.iter().for_each(|query| self.columns.add(query));
        }
        if !query.locks.is_empty() {
            return reject("FOR UPDATE", query.span());
        }
        fetch_to_limit(query);
        set_expr(&mut query.body, query.order_by.as_mut(), &self.columns)?;
        output::name_order_keys(query);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<SqlError> {
        match factor {
            TableFactor::Derived { lateral: true, .. } | TableFactor::Function { lateral: true, .. } => {
                reject("LATERAL", factor.span())
            }
            TableFactor::UNNEST { .. } => reject("UNNEST", factor.span()),
            TableFactor::Table { args: Some(_), name, .. } => {
                let name = name.to_string();
                reject(&format!("the table function {name}"), factor.span())
            }
            TableFactor::Table { sample: Some(_), .. } => reject("TABLESAMPLE", factor.span()),
            TableFactor::Pivot { .. } | TableFactor::Unpivot { .. } => reject("PIVOT", factor.span()),
            TableFactor::MatchRecognize { .. } => reject("MATCH_RECOGNIZE", factor.span()),
            TableFactor::JsonTable { .. } | TableFactor::OpenJsonTable { .. } | TableFactor::XmlTable { .. } => {
                reject("JSON_TABLE", factor.span())
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        expression(expr)?;
        if let Err(error) = tuples::compare_columns(expr) {
            return ControlFlow::Break(error);
        }
        markers::mark(expr);
        ControlFlow::Continue(())
    }
}

/// `FETCH FIRST n ROWS ONLY` is `LIMIT n`.
fn fetch_to_limit(query: &mut Query) {
    let plain = query.fetch.as_ref().is_some_and(|fetch| !fetch.with_ties && !fetch.percent);
    if !plain || matches!(query.limit_clause, Some(LimitClause::OffsetCommaLimit { .. })) {
        return;
    }
    let offset = match query.limit_clause.take() {
        Some(LimitClause::LimitOffset { offset, limit: None, .. }) => offset,
        None => None,
        other => {
            query.limit_clause = other;
            return;
        }
    };
    let count = query.fetch.take().and_then(|fetch| fetch.quantity);
    let limit = count.unwrap_or_else(|| Expr::value(Value::Number("1".to_owned(), false)));
    query.limit_clause = Some(LimitClause::LimitOffset { limit: Some(limit), offset, limit_by: vec![] });
}

pub(super) fn reject(what: &str, span: Span) -> ControlFlow<SqlError> {
    ControlFlow::Break(SqlError::at(format!("{what} is not supported"), span.start))
}

/// `order_by`: that of a query that is nothing but the SELECT.
fn set_expr(body: &mut SetExpr, order_by: Option<&mut OrderBy>, columns: &Columns<'_>) -> ControlFlow<SqlError> {
    match body {
        SetExpr::Select(select) => {
            output::name_items(select, false);
            self::select(select, order_by, columns)
        }
        SetExpr::SetOperation { op, left, right, .. } => {
            if *op == SetOperator::Minus {
                *op = SetOperator::Except;
            }
            set_expr(left, None, columns)?;
            output::name_right_side(right);
            set_expr(right, None, columns)
        }
        _ => ControlFlow::Continue(()),
    }
}

fn select(select: &mut Select, order_by: Option<&mut OrderBy>, columns: &Columns<'_>) -> ControlFlow<SqlError> {
    if select.from.len() > MAX_TABLES {
        let message = format!("more than {MAX_TABLES} tables in one FROM");
        return ControlFlow::Break(SqlError::at(message, select.span().start));
    }
    select.from.iter_mut().for_each(using::joins);
    if let Err(error) = common_columns::write_out(select, order_by, columns) {
        return ControlFlow::Break(error);
    }
    using::name_common_columns(select);
    if let GroupByExpr::Expressions(exprs, modifiers) = &mut select.group_by
        && let [GroupByWithModifier::Rollup | GroupByWithModifier::Cube] = modifiers[..]
    {
        let each = std::mem::take(exprs).into_iter().map(|e| vec![e]).collect();
        let set = if modifiers[0] == GroupByWithModifier::Rollup { Expr::Rollup(each) } else { Expr::Cube(each) };
        exprs.push(set);
        modifiers.clear();
    }
    ControlFlow::Continue(())
}

fn expression(expr: &mut Expr) -> ControlFlow<SqlError> {
    match expr {
        Expr::RLike { negated, expr: input, pattern, .. } => {
            let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
            *expr = binary(take(input), op, take(pattern));
        }
        Expr::Function(function) => {
            let name = function.name.to_string().to_ascii_lowercase();
            let rewritten = match name.as_str() {
                "date_add" | "adddate" => as_operator(function, BinaryOperator::Plus),
                "date_sub" | "subdate" => as_operator(function, BinaryOperator::Minus),
                "if" | "iff" => conditional(function),
                "isnull" => {
                    plain_args(function).and_then(|args| <[Expr; 1]>::try_from(args).ok()).map(|[x]| Expr::IsNull(Box::new(x)))
                }
                "year" | "quarter" | "month" | "week" | "day" | "hour" | "minute" | "second" => date_field(function, &name),
                "mod" => as_operator(function, BinaryOperator::Modulo),
                "dayofmonth" => date_field(function, "day"),
                "dayofyear" => date_field(function, "doy"),
                "group_concat" => group_concat(function),
                _ => None,
            };
            if let Some(rewritten) = rewritten {
                *expr = rewritten;
            }
        }
        Expr::Substring { expr: input, substring_from, substring_for, .. } => {
            let mut args = vec![*take(input)];
            args.push(substring_from.take().map_or_else(|| Expr::value(Value::Number("1".to_owned(), false)), |from| *from));
            args.extend(substring_for.take().map(|count| *count));
            *expr = call("substr", args);
        }
        Expr::AnyOp { compare_op: BinaryOperator::Eq, right, .. } if matches!(**right, Expr::Subquery(_)) => {
            in_subquery(expr, false);
        }
        Expr::AllOp { compare_op: BinaryOperator::NotEq, right, .. } if matches!(**right, Expr::Subquery(_)) => {
            in_subquery(expr, true);
        }
        Expr::Convert { is_try, expr: input, data_type: Some(ty), charset: None, target_before_value: false, styles }
            if styles.is_empty() =>
        {
            let kind = if *is_try { CastKind::TryCast } else { CastKind::Cast };
            let data_type = ty.clone();
            *expr = Expr::Cast { kind, expr: take(input), data_type, array: false, format: None };
        }
        Expr::Convert { .. } => return reject("this form of CONVERT (write CAST)", expr.span()),
        Expr::Value(_) => return exponent(expr),
        Expr::Lambda(_) => return reject("a lambda", expr.span()),
        Expr::CompoundFieldAccess { .. } | Expr::Array(_) | Expr::Struct { .. } | Expr::Dictionary(_) | Expr::Map(_) => {
            return reject("a nested value (array, struct, map)", expr.span());
        }
        _ => {}
    }
    ControlFlow::Continue(())
}

/// Takes an operand out of an expression that is about to be replaced.
fn take(expr: &mut Box<Expr>) -> Box<Expr> {
    std::mem::replace(expr, Box::new(Expr::value(Value::Null)))
}

/// `x = ANY (q)` is `x IN (q)`, `x <> ALL (q)` is `x NOT IN (q)`.
fn in_subquery(expr: &mut Expr, negated: bool) {
    if let Expr::AnyOp { left, right, .. } | Expr::AllOp { left, right, .. } = expr {
        let (left, right) = (take(left), *take(right));
        if let Expr::Subquery(subquery) = right {
            *expr = Expr::InSubquery { expr: left, subquery, negated };
        }
    }
}

/// A number with an exponent is a DOUBLE; the front end would make a DECIMAL of it.
fn exponent(expr: &mut Expr) -> ControlFlow<SqlError> {
    let Expr::Value(value) = expr else { return ControlFlow::Continue(()) };
    let Value::Number(text, _) = &value.value else { return ControlFlow::Continue(()) };
    if !text.contains(['e', 'E']) {
        return ControlFlow::Continue(());
    }
    if !text.parse::<f64>().is_ok_and(f64::is_finite) {
        return ControlFlow::Break(SqlError::at(format!("the number {text} is out of range"), value.span.start));
    }
    let text = Expr::value(Value::SingleQuotedString(text.clone()));
    *expr = Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(text),
        data_type: DataType::Double(ExactNumberInfo::None),
        array: false,
        format: None,
    };
    ControlFlow::Continue(())
}

/// `year(x)`: `date_part('year', x)`.
fn date_field(function: &Function, field: &str) -> Option<Expr> {
    let [date]: [Expr; 1] = plain_args(function)?.try_into().ok()?;
    Some(call("date_part", vec![Expr::value(Value::SingleQuotedString(field.to_owned())), date]))
}

/// A plain call.
pub(super) fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(Function {
        name: ObjectName(vec![ObjectNamePart::Identifier(Ident::new(name))]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

pub(super) fn binary(left: Box<Expr>, op: BinaryOperator, right: Box<Expr>) -> Expr {
    Expr::Nested(Box::new(Expr::BinaryOp { left, op, right }))
}

/// The arguments of a call that has nothing but plain ones.
fn plain_args(function: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    if !list.clauses.is_empty() || list.duplicate_treatment.is_some() || function.over.is_some() || function.filter.is_some() {
        return None;
    }
    list.args.iter().map(unnamed).collect()
}

fn unnamed(arg: &FunctionArg) -> Option<Expr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    }
}

/// `date_add(x, INTERVAL 1 DAY)` is `x + INTERVAL 1 DAY`, `mod(a, b)` is `a % b`.
fn as_operator(function: &Function, op: BinaryOperator) -> Option<Expr> {
    let [left, right]: [Expr; 2] = plain_args(function)?.try_into().ok()?;
    Some(binary(Box::new(left), op, Box::new(right)))
}

/// `if(c, a, b)`: `CASE WHEN c THEN a ELSE b END`.
fn conditional(function: &Function) -> Option<Expr> {
    let [condition, result, otherwise]: [Expr; 3] = plain_args(function)?.try_into().ok()?;
    Some(Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen { condition, result }],
        else_result: Some(Box::new(otherwise)),
    })
}

/// `group_concat([DISTINCT] x [ORDER BY ...] [SEPARATOR s])`: `string_agg(x, s ORDER BY ...)`.
fn group_concat(function: &Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let mut list = list.clone();
    let mut separator = Expr::value(Value::SingleQuotedString(",".to_owned()));
    list.clauses.retain(|clause| match clause {
        FunctionArgumentClause::Separator(value) => {
            separator = Expr::Value(value.clone());
            false
        }
        _ => true,
    });
    if list.args.len() == 1 {
        list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(separator)));
    }
    let name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new("string_agg"))]);
    Some(Expr::Function(Function { name, args: FunctionArguments::List(list), ..function.clone() }))
}
