//! `USING` and `NATURAL` in RIGHT and FULL joins, whose common columns are not those of the left side: all joins of such a FROM are
//! written with `ON`, and what a common column and `*` stand for is written out.

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    BinaryOperator, ExcludeSelectItem, Expr, Ident, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, OrderBy, Query,
    Select, SelectItem, SelectItemQualifiedWildcardKind, Spanned, TableFactor, TableWithJoins, Value, VisitMut, VisitorMut,
    WildcardAdditionalOptions,
};

use super::rewrite::{binary, call};
use super::using::{Columns, name_of};
use crate::SqlError;
use crate::token::folded;

/// Rewrites a SELECT if one of its joins needs that, and the order of its rows.
pub(super) fn write_out(select: &mut Select, order_by: Option<&mut OrderBy>, columns: &Columns<'_>) -> Result<(), SqlError> {
    if !select.from.iter().any(is_needed) {
        return Ok(());
    }
    let mut output = Vec::new();
    for table in &mut select.from {
        output.extend(joins(table, columns)?);
    }
    // A key may be the alias of an item.
    let aliases: Vec<String> = select.projection.iter().filter_map(alias).collect();
    items(select, &output)?;
    let mut written = Written { output: &output, depth: 0 };
    // Visits never break off.
    let _ = select.selection.visit(&mut written);
    let keys: Vec<Output> = output.iter().filter(|o| !o.name().is_some_and(|name| aliases.contains(&name))).cloned().collect();
    let mut written = Written { output: &keys, depth: 0 };
    let _ = select.group_by.visit(&mut written);
    let _ = select.having.visit(&mut written);
    if let Some(order_by) = order_by {
        let _ = order_by.visit(&mut written);
    }
    Ok(())
}

fn is_needed(table: &TableWithJoins) -> bool {
    let nested =
        |factor: &TableFactor| matches!(factor, TableFactor::NestedJoin { table_with_joins, .. } if is_needed(table_with_joins));
    nested(&table.relation)
        || table.joins.iter().any(|join| {
            let of_right = matches!(
                &join.join_operator,
                JoinOperator::Right(JoinConstraint::Using(_) | JoinConstraint::Natural)
                    | JoinOperator::RightOuter(JoinConstraint::Using(_) | JoinConstraint::Natural)
                    | JoinOperator::FullOuter(JoinConstraint::Using(_) | JoinConstraint::Natural)
            );
            of_right || nested(&join.relation)
        })
}

/// What `*` yields, in order.
#[derive(Clone)]
enum Output {
    /// A common column.
    Common(Ident, Box<Expr>),
    /// The columns of a table but for some; all their names if they are known.
    Of(Ident, Vec<Ident>, Option<Vec<String>>),
}

impl Output {
    fn name(&self) -> Option<String> {
        match self {
            Output::Common(name, _) => Some(folded(name)),
            Output::Of(..) => None,
        }
    }

    /// Whether these are columns of a table that has one of the name. One whose columns are not known may have it.
    fn may_have(&self, name: &Ident) -> bool {
        match self {
            Output::Of(_, except, names) => {
                !except.iter().any(|e| folded(e) == folded(name)) && names.as_ref().is_none_or(|n| n.contains(&folded(name)))
            }
            Output::Common(..) => false,
        }
    }
}

/// Turns the joins of one item of FROM into ones with ON.
fn joins(table: &mut TableWithJoins, columns: &Columns<'_>) -> Result<Vec<Output>, SqlError> {
    let mut left = factor(&mut table.relation, columns)?;
    for join in &mut table.joins {
        let place = join.relation.span().start;
        let right = factor(&mut join.relation, columns)?;
        let Some((constraint, kind)) = constraint(&mut join.join_operator) else {
            left.extend(right);
            continue;
        };
        let names = match constraint {
            JoinConstraint::Using(names) => names.iter().filter_map(|n| n.0.first()?.as_ident().cloned()).collect(),
            JoinConstraint::Natural => shared_names(&left, &right).ok_or_else(|| SqlError::at(UNKNOWN, place))?,
            JoinConstraint::On(condition) => {
                let both: Vec<Output> = left.iter().chain(&right).cloned().collect();
                let _ = condition.visit(&mut Written { output: &both, depth: 0 });
                vec![]
            }
            JoinConstraint::None => vec![],
        };
        if matches!(constraint, JoinConstraint::Using(_) | JoinConstraint::Natural) {
            let (condition, common) = equate(&names, &left, &right, &kind).map_err(|message| SqlError::at(message, place))?;
            *constraint = JoinConstraint::On(condition);
            without(&mut left, &names);
            let mut right = right;
            without(&mut right, &names);
            left = common.into_iter().chain(left).chain(if kind == Kind::OneSided { vec![] } else { right }).collect();
        } else if kind != Kind::OneSided {
            left.extend(right);
        }
    }
    Ok(left)
}

const UNKNOWN: &str = "NATURAL in a RIGHT or FULL join of anything but tables is not supported: write USING";

fn factor(factor: &mut TableFactor, columns: &Columns<'_>) -> Result<Vec<Output>, SqlError> {
    if let TableFactor::NestedJoin { table_with_joins, alias: None } = factor {
        return joins(table_with_joins, columns);
    }
    match name_of(factor) {
        Some(name) => Ok(vec![Output::Of(name, vec![], columns.of(factor))]),
        None => Err(SqlError::at("a table beside a RIGHT or FULL join with USING needs a name", factor.span().start)),
    }
}

/// Whose a common column is.
#[derive(PartialEq)]
enum Kind {
    Left,
    Right,
    Both,
    /// The left side's, and nothing of the right side is to be seen.
    OneSided,
}

fn constraint(operator: &mut JoinOperator) -> Option<(&mut JoinConstraint, Kind)> {
    Some(match operator {
        JoinOperator::Join(on) | JoinOperator::Inner(on) | JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => {
            (on, Kind::Left)
        }
        JoinOperator::Right(on) | JoinOperator::RightOuter(on) => (on, Kind::Right),
        JoinOperator::FullOuter(on) => (on, Kind::Both),
        JoinOperator::LeftSemi(on) | JoinOperator::LeftAnti(on) => (on, Kind::OneSided),
        _ => return None,
    })
}

/// The names that both sides have, in the order of the left one; `None` if not all names are known.
fn shared_names(left: &[Output], right: &[Output]) -> Option<Vec<Ident>> {
    let names = |side: &[Output]| -> Option<Vec<String>> {
        let mut all = Vec::new();
        for output in side {
            match output {
                Output::Common(name, _) => all.push(folded(name)),
                Output::Of(_, except, names) => {
                    let names = names.as_ref()?.iter();
                    all.extend(names.filter(|name| !except.iter().any(|e| folded(e) == **name)).cloned());
                }
            }
        }
        Some(all)
    };
    let right = names(right)?;
    Some(names(left)?.into_iter().filter(|name| right.contains(name)).map(|name| Ident::with_quote('"', name)).collect())
}

/// The condition that the common columns are equal, and what they are afterwards.
fn equate(names: &[Ident], left: &[Output], right: &[Output], kind: &Kind) -> Result<(Expr, Vec<Output>), String> {
    let mut condition = None;
    let mut common = Vec::with_capacity(names.len());
    for name in names {
        let (l, r) = (find(name, left)?, find(name, right)?);
        let equal = binary(Box::new(l.clone()), BinaryOperator::Eq, Box::new(r.clone()));
        condition = Some(match condition {
            None => equal,
            Some(before) => binary(Box::new(before), BinaryOperator::And, Box::new(equal)),
        });
        let either = match kind {
            Kind::Left | Kind::OneSided => l,
            Kind::Right => r,
            Kind::Both => call("coalesce", vec![l, r]),
        };
        common.push(Output::Common(name.clone(), Box::new(either)));
    }
    Ok((condition.unwrap_or_else(|| Expr::value(Value::Boolean(true))), common))
}

/// A column of one side of a join.
fn find(name: &Ident, side: &[Output]) -> Result<Expr, String> {
    let common = side.iter().find_map(|output| match output {
        Output::Common(known, expr) if folded(known) == folded(name) => Some(Expr::clone(expr)),
        _ => None,
    });
    if let Some(common) = common {
        return Ok(common);
    }
    let tables: Vec<&Output> = side.iter().filter(|output| output.may_have(name)).collect();
    match tables[..] {
        [Output::Of(table, ..)] => Ok(Expr::CompoundIdentifier(vec![table.clone(), name.clone()])),
        [] => Err(format!("there is no column '{name}' on one side of the join")),
        _ => Err(format!("column '{name}' of USING may be that of several tables: write ON")),
    }
}

/// Takes columns that [`find`] found out of the rest.
fn without(side: &mut Vec<Output>, names: &[Ident]) {
    for name in names {
        let before = side.len();
        side.retain(|output| output.name() != Some(folded(name)));
        if side.len() == before
            && let Some(Output::Of(_, except, _)) = side.iter_mut().find(|output| output.may_have(name))
        {
            except.push(name.clone());
        }
    }
}

/// Writes out common columns and `*` in the list of a SELECT.
fn items(select: &mut Select, output: &[Output]) -> Result<(), SqlError> {
    let mut written = Written { output, depth: 0 };
    let mut items = Vec::with_capacity(select.projection.len());
    for mut item in std::mem::take(&mut select.projection) {
        match &mut item {
            SelectItem::Wildcard(options) if *options == plain_wildcard(options) => {
                items.extend(output.iter().filter_map(all_of));
                continue;
            }
            SelectItem::Wildcard(_) => {
                return Err(SqlError::at("options of * beside a RIGHT or FULL join with USING", item.span().start));
            }
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => {
                let name = name.clone();
                if let Some(expr) = written.expr(&name) {
                    item = SelectItem::ExprWithAlias { expr, alias: name };
                }
            }
            item => {
                let _ = item.visit(&mut written);
            }
        }
        items.push(item);
    }
    select.projection = items;
    Ok(())
}

fn plain_wildcard(options: &WildcardAdditionalOptions) -> WildcardAdditionalOptions {
    WildcardAdditionalOptions { wildcard_token: options.wildcard_token.clone(), ..WildcardAdditionalOptions::default() }
}

/// The item of a SELECT for a part of `*`; none if nothing is left of a table.
fn all_of(output: &Output) -> Option<SelectItem> {
    match output {
        Output::Common(name, expr) => Some(SelectItem::ExprWithAlias { expr: Expr::clone(expr), alias: name.clone() }),
        Output::Of(table, except, names) => {
            let part = |ident: &Ident| ObjectName(vec![ObjectNamePart::Identifier(ident.clone())]);
            let except: Vec<ObjectName> = except.iter().map(part).collect();
            if names.as_ref().is_some_and(|names| names.len() == except.len()) {
                return None;
            }
            let opt_exclude = (!except.is_empty()).then_some(ExcludeSelectItem::Multiple(except));
            let options = WildcardAdditionalOptions { opt_exclude, ..WildcardAdditionalOptions::default() };
            Some(SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(part(table)), options))
        }
    }
}

/// The name that an item of a SELECT gives.
fn alias(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
        _ => None,
    }
}

/// Puts what common columns stand for in their place, but in subqueries, which may have their own of the name.
struct Written<'a> {
    output: &'a [Output],
    depth: usize,
}

impl Written<'_> {
    fn expr(&self, name: &Ident) -> Option<Expr> {
        self.output.iter().find_map(|output| match output {
            Output::Common(known, expr) if folded(known) == folded(name) => Some(Expr::clone(expr)),
            _ => None,
        })
    }
}

impl VisitorMut for Written<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<SqlError> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<SqlError> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        if self.depth == 0
            && let Expr::Identifier(name) = expr
            && let Some(written) = self.expr(name)
        {
            *expr = written;
        }
        ControlFlow::Continue(())
    }
}
