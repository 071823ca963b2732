//! Names of output columns: what the user wrote.
//!
//! The front end wants the names of a SELECT list to be unique and makes up its own for expressions. Here every unnamed
//! expression gets its own text as its name; where a name comes again it gets a suffix that [`display_name`] takes off.

use std::collections::HashSet;

use datafusion_sql::sqlparser::ast::{Distinct, Expr, Ident, OrderByKind, Query, Select, SelectItem, SetExpr};

use crate::token::folded;

/// Begins a suffix; no text can hold it in a name that somebody means.
pub(super) const MARK: char = '\u{1}';

/// Longest name that is made of an expression's text.
const MAX_NAME: usize = 120;

/// The name to show.
pub(crate) fn display_name(name: &str) -> String {
    name.split(MARK).next().unwrap_or_default().to_owned()
}

/// Names what the outermost SELECT yields: the same column or name may be there twice.
pub(crate) fn name_result(query: &mut Query) {
    let mut body = &mut *query.body;
    loop {
        match body {
            SetExpr::Select(select) => return name_items(select, true),
            SetExpr::SetOperation { left, .. } => body = left,
            SetExpr::Query(inner) => body = &mut inner.body,
            _ => return,
        }
    }
}

/// Makes the names of a set operation's right side unique: nobody sees them.
pub(super) fn name_right_side(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => name_items(select, true),
        SetExpr::SetOperation { left, right, .. } => {
            name_right_side(left);
            name_right_side(right);
        }
        SetExpr::Query(inner) => name_right_side(&mut inner.body),
        _ => {}
    }
}

/// Names the unnamed expressions of any SELECT; with `outermost`, makes columns and given names unique too.
pub(crate) fn name_items(select: &mut Select, outermost: bool) {
    let wildcard =
        select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    let mut used: HashSet<String> = HashSet::new();
    for item in &mut select.projection {
        let renamed = match item {
            SelectItem::UnnamedExpr(expr) => {
                let column = column_name(expr);
                let name = column.clone().unwrap_or_else(|| text_name(expr));
                let again = used.contains(&name) || (wildcard && column.is_some());
                match (column.is_some(), again && outermost) {
                    (true, false) => {
                        used.insert(name);
                        None
                    }
                    (true, true) => Some((expr.clone(), unique(&name, &mut used, true))),
                    (false, _) => Some((expr.clone(), unique(&name, &mut used, false))),
                }
            }
            SelectItem::ExprWithAlias { expr, alias } => {
                let name = folded(alias);
                let again = used.contains(&name) || wildcard;
                if outermost && again {
                    Some((expr.clone(), unique(&name, &mut used, true)))
                } else {
                    used.insert(name);
                    None
                }
            }
            _ => None,
        };
        if let Some((expr, name)) = renamed {
            *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) };
        }
    }
}

/// `SELECT DISTINCT a + 1 ... ORDER BY a + 1`: the key is what the list yields, by the name that it got.
pub(crate) fn name_order_keys(query: &mut Query) {
    let SetExpr::Select(select) = &*query.body else { return };
    let Some(order_by) = &mut query.order_by else { return };
    let OrderByKind::Expressions(keys) = &mut order_by.kind else { return };
    if !matches!(select.distinct, Some(Distinct::Distinct)) {
        return;
    }
    for key in keys {
        let named = select.projection.iter().find_map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } if *expr == key.expr && column_name(expr).is_none() => Some(alias),
            _ => None,
        });
        if let Some(alias) = named {
            key.expr = Expr::Identifier(alias.clone());
        }
    }
}

/// The name itself if it is new (and need not differ from a wildcard's), or with a suffix.
fn unique(name: &str, used: &mut HashSet<String>, suffix: bool) -> String {
    let mut candidate = if suffix { format!("{name}{MARK}0") } else { name.to_owned() };
    let mut number = 0usize;
    while !used.insert(candidate.clone()) {
        number += 1;
        candidate = format!("{name}{MARK}{number}");
    }
    candidate
}

/// The name of a plain column.
fn column_name(expr: &Expr) -> Option<String> {
    let ident = match expr {
        Expr::Identifier(ident) => ident,
        Expr::CompoundIdentifier(parts) => parts.last()?,
        _ => return None,
    };
    Some(folded(ident))
}

fn text_name(expr: &Expr) -> String {
    let text = expr.to_string();
    match text.char_indices().nth(MAX_NAME) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
