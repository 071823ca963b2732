//! Constants of definitions.

use datafusion_sql::sqlparser::ast::{Expr as SqlExpr, Ident, SelectItem, Statement as Ast};
use stoa_plan::{DataType, Expr, Node, Plan, Value};

use super::{Provider, change, finish, insert, logical_plan, rewrite};
use crate::{Catalog, QueryText, SqlError, TableInfo, types};

/// The value of an expression without columns, as one of the type.
pub(crate) fn constant(expr: SqlExpr, ty: DataType) -> Result<Value, SqlError> {
    let item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', "value") };
    let mut ast = Ast::Query(Box::new(change::select(vec![item], None, None)?));
    rewrite::statement(&mut ast, &NoTables)?;
    let provider = Provider::new(&NoTables);
    let plan = logical_plan(ast, &provider).and_then(|plan| {
        if !provider.timeless() {
            return Err(not_constant().into());
        }
        let value = insert::cast_column(&plan, 0, &types::front_end_type(ty))?;
        datafusion_expr::LogicalPlanBuilder::from(plan).project([value])?.build()
    });
    let plan = plan.map_err(|error| SqlError::from_front_end(&error))?;
    let query = finish(plan, &QueryText::new(vec![], ""), &provider)?;
    match only_row(&query.root) {
        Some(Expr::Literal(literal)) => Ok(literal.value.clone()),
        _ => Err(not_constant()),
    }
}

fn not_constant() -> SqlError {
    SqlError::new("expected a constant")
}

/// The only expression of a plan of one row and one column.
fn only_row(plan: &Plan) -> Option<&Expr> {
    match &plan.node {
        Node::Project { exprs, .. } => match &exprs[..] {
            [(_, expr)] => Some(expr),
            _ => None,
        },
        Node::Values(values) => match &values.rows[..] {
            [row] => row.first().filter(|_| row.len() == 1),
            _ => None,
        },
        _ => None,
    }
}

/// A constant reads no tables.
struct NoTables;

impl Catalog for NoTables {
    fn table(&self, _name: &str) -> Option<TableInfo> {
        None
    }

    fn view(&self, _name: &str) -> Option<String> {
        None
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}
