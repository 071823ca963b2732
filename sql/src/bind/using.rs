//! `USING` and `NATURAL`, as far as the front end does not know them, and the spellings of semi and anti joins.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    Cte, Expr, Ident, JoinConstraint, JoinOperator, Query, Select, SelectItem, SetExpr, TableFactor, TableWithJoins, VisitMut,
    VisitorMut,
};

use crate::token::folded;
use crate::{Catalog, SqlError};

/// Of the tables of a FROM, the names of their columns.
pub(super) struct Columns<'a> {
    pub(super) catalog: &'a dyn Catalog,
    /// The queries that the statement gives a name, and their columns.
    pub(super) queries: HashMap<String, Option<Vec<String>>>,
}

impl Columns<'_> {
    /// Those of a table or of a query that names its columns; `None` of anything else.
    pub(super) fn of(&self, factor: &TableFactor) -> Option<Vec<String>> {
        match factor {
            TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. }
                if !alias.columns.is_empty() =>
            {
                Some(alias.columns.iter().map(|column| folded(&column.name)).collect())
            }
            TableFactor::Table { name, args: None, .. } => {
                let name = folded(name.0.last()?.as_ident()?);
                match self.queries.get(&name) {
                    Some(columns) => columns.clone(),
                    None => Some(self.catalog.table(&name)?.columns.into_iter().map(|column| column.name).collect()),
                }
            }
            TableFactor::Derived { subquery, .. } => named_columns(&subquery.body),
            _ => None,
        }
    }

    /// Notes a query of WITH.
    pub(super) fn add(&mut self, query: &Cte) {
        let columns = match &query.alias.columns[..] {
            [] => named_columns(&query.query.body),
            columns => Some(columns.iter().map(|column| folded(&column.name)).collect()),
        };
        self.queries.insert(folded(&query.alias.name), columns);
    }
}

fn named_columns(body: &SetExpr) -> Option<Vec<String>> {
    let select = match body {
        SetExpr::Select(select) => select,
        SetExpr::SetOperation { left, .. } => return named_columns(left),
        SetExpr::Query(query) => return named_columns(&query.body),
        _ => return None,
    };
    let name = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(Expr::Identifier(name)) | SelectItem::ExprWithAlias { alias: name, .. } => Some(folded(name)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().map(folded),
        // Nobody means one by the text of its expression.
        SelectItem::UnnamedExpr(other) => Some(other.to_string()),
        _ => None,
    };
    select.projection.iter().map(name).collect()
}

/// The short spellings of semi and anti joins.
pub(super) fn joins(table: &mut TableWithJoins) {
    let factors = std::iter::once(&mut table.relation).chain(table.joins.iter_mut().map(|join| &mut join.relation));
    for factor in factors {
        if let TableFactor::NestedJoin { table_with_joins, .. } = factor {
            joins(table_with_joins);
        }
    }
    for join in &mut table.joins {
        match &mut join.join_operator {
            JoinOperator::Semi(on) => join.join_operator = JoinOperator::LeftSemi(std::mem::replace(on, JoinConstraint::None)),
            JoinOperator::Anti(on) => join.join_operator = JoinOperator::LeftAnti(std::mem::replace(on, JoinConstraint::None)),
            _ => {}
        }
    }
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
pub(super) fn name_of(factor: &TableFactor) -> Option<Ident> {
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
