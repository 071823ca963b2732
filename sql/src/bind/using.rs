//! `USING` and `NATURAL`, as far as the front end does not know them, and the spellings of semi and anti joins.

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    Expr, Ident, JoinConstraint, JoinOperator, Query, Select, SelectItem, Spanned, TableFactor, TableWithJoins, VisitMut,
    VisitorMut,
};

use super::rewrite::reject;
use crate::SqlError;
use crate::token::folded;

/// The joins of one item of FROM; `wildcard`: all their columns are asked for, in their order.
pub(super) fn joins(table: &mut TableWithJoins, wildcard: bool) -> ControlFlow<SqlError> {
    let factors = std::iter::once(&mut table.relation).chain(table.joins.iter_mut().map(|join| &mut join.relation));
    for factor in factors {
        if let TableFactor::NestedJoin { table_with_joins, .. } = factor {
            joins(table_with_joins, wildcard)?;
        }
    }
    let mut at = 0;
    while let Some(join) = table.joins.get_mut(at) {
        match &mut join.join_operator {
            JoinOperator::Semi(on) => join.join_operator = JoinOperator::LeftSemi(std::mem::replace(on, JoinConstraint::None)),
            JoinOperator::Anti(on) => join.join_operator = JoinOperator::LeftAnti(std::mem::replace(on, JoinConstraint::None)),
            JoinOperator::FullOuter(JoinConstraint::Using(_) | JoinConstraint::Natural) => {
                // The common column would have to be that of either side.
                return reject("USING or NATURAL in a FULL join (write ON, and coalesce)", join.relation.span());
            }
            JoinOperator::Right(on @ (JoinConstraint::Using(_) | JoinConstraint::Natural))
            | JoinOperator::RightOuter(on @ (JoinConstraint::Using(_) | JoinConstraint::Natural)) => {
                if wildcard {
                    return reject("SELECT * over USING or NATURAL in a RIGHT join (name the columns)", join.relation.span());
                }
                let on = std::mem::replace(on, JoinConstraint::None);
                exchange_sides(table, at, on);
                at = 0;
            }
            _ => {}
        }
        at += 1;
    }
    ControlFlow::Continue(())
}

/// `a RIGHT JOIN b USING (k)` as `b LEFT JOIN a USING (k)`: the front end takes the common column from the left side.
fn exchange_sides(table: &mut TableWithJoins, at: usize, on: JoinConstraint) {
    let mut after = table.joins.split_off(at);
    let mut turned = after.remove(0);
    let before = std::mem::take(&mut table.joins);
    std::mem::swap(&mut table.relation, &mut turned.relation);
    if !before.is_empty() {
        let relation = turned.relation;
        let nested = Box::new(TableWithJoins { relation, joins: before });
        turned.relation = TableFactor::NestedJoin { table_with_joins: nested, alias: None };
    }
    turned.join_operator = JoinOperator::LeftOuter(on);
    table.joins.push(turned);
    table.joins.append(&mut after);
}

/// `k` becomes `a.k` where it is the common column of a `USING`: the front end finds it ambiguous in WHERE, and everywhere if there
/// is another join.
pub(super) fn name_common_columns(select: &mut Select) {
    let columns: Vec<(Ident, Ident)> = select.from.iter().flat_map(common_columns).collect();
    if columns.is_empty() {
        return;
    }
    let mut qualifier = Qualifier { columns, depth: 0 };
    // Visits never break off.
    let _ = select.projection.visit(&mut qualifier);
    let _ = select.selection.visit(&mut qualifier);
    // A key may be the alias of an item.
    let alias = |name: &Ident| {
        select.projection.iter().any(|i| matches!(i, SelectItem::ExprWithAlias { alias, .. } if folded(alias) == folded(name)))
    };
    qualifier.columns.retain(|(_, column)| !alias(column));
    let _ = select.group_by.visit(&mut qualifier);
    let _ = select.having.visit(&mut qualifier);
}

/// The common columns of the first join, with the name of the leftmost table: that one has them, whatever is joined later.
fn common_columns(table: &TableWithJoins) -> Vec<(Ident, Ident)> {
    let (Some(name), Some(join)) = (name_of(&table.relation), table.joins.first()) else { return vec![] };
    let (JoinOperator::Join(JoinConstraint::Using(columns))
    | JoinOperator::Inner(JoinConstraint::Using(columns))
    | JoinOperator::Left(JoinConstraint::Using(columns))
    | JoinOperator::LeftOuter(JoinConstraint::Using(columns))) = &join.join_operator
    else {
        return vec![];
    };
    let column = |column: &datafusion_sql::sqlparser::ast::ObjectName| match &column.0[..] {
        [part] => Some((name.clone(), part.as_ident()?.clone())),
        _ => None,
    };
    columns.iter().filter_map(column).collect()
}

/// What columns of a table are called by.
fn name_of(factor: &TableFactor) -> Option<Ident> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
            Some(alias.name.clone())
        }
        TableFactor::Table { name, .. } => name.0.last()?.as_ident().cloned(),
        _ => None,
    }
}

/// Qualifies columns, but those of subqueries, which may have their own of the name.
struct Qualifier {
    columns: Vec<(Ident, Ident)>,
    depth: usize,
}

impl VisitorMut for Qualifier {
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
            && let Some((table, _)) = self.columns.iter().find(|(_, column)| folded(column) == folded(name))
        {
            *expr = Expr::CompoundIdentifier(vec![table.clone(), name.clone()]);
        }
        ControlFlow::Continue(())
    }
}
