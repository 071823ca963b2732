//! Joins.

use datafusion_common::{DFSchema, NullEquality};
use datafusion_expr::{Join as Source, JoinType};
use stoa_plan::{DataType, Expr, Field, Join, JoinKind, Node, Plan, Side};

use super::{Converter, Relation, Scope, expr, is_true};
use crate::{SqlError, types};

impl Converter {
    pub(super) fn join(&mut self, join: &Source) -> Result<Relation, SqlError> {
        if join.null_aware {
            return Err(SqlError::unsupported("NOT IN in this place"));
        }
        let mut left = self.relation(&join.left)?;
        let mut right = self.relation(&join.right)?;
        let mut on = Vec::with_capacity(join.on.len());
        for (a, b) in &join.on {
            let a = self.expr(a, left.scope(join.left.schema()))?;
            let b = self.expr(b, right.scope(join.right.schema()))?;
            on.push(same_type(a, b)?);
        }
        let residual = match &join.filter {
            Some(filter) => Some(self.residual(filter, join, &left, &right)?).filter(|e| !is_true(e)),
            None => None,
        };
        let kind = match join.join_type {
            JoinType::Inner => JoinKind::Inner,
            JoinType::Left => JoinKind::Left,
            JoinType::Right => JoinKind::Right,
            JoinType::Full => JoinKind::Full,
            JoinType::LeftSemi => JoinKind::LeftSemi,
            JoinType::LeftAnti => JoinKind::LeftAnti,
            JoinType::RightSemi => JoinKind::RightSemi,
            JoinType::RightAnti => JoinKind::RightAnti,
            JoinType::LeftMark | JoinType::RightMark => JoinKind::LeftMark(self.field("mark", DataType::Bool, false)),
        };
        if join.join_type == JoinType::RightMark {
            std::mem::swap(&mut left, &mut right);
            on.iter_mut().for_each(|(a, b)| std::mem::swap(a, b));
        }
        let columns = output(&kind, &left.columns, &right.columns);
        let node = Node::Join(Box::new(Join {
            kind,
            left: left.plan,
            right: right.plan,
            on,
            null_equals_null: join.null_equality == NullEquality::NullEqualsNull,
            residual,
            build: Side::Right,
            publishes: vec![],
        }));
        Ok(Relation { plan: Plan::new(node), columns })
    }

    /// The residual sees both sides, whatever the join hands on.
    fn residual(
        &mut self,
        filter: &datafusion_expr::Expr,
        join: &Source,
        left: &Relation,
        right: &Relation,
    ) -> Result<Expr, SqlError> {
        let schema: DFSchema = join.left.schema().join(join.right.schema()).map_err(|e| SqlError::from_front_end(&e))?;
        let columns: Vec<Field> = left.columns.iter().chain(&right.columns).cloned().collect();
        self.expr(filter, Scope { schema: &schema, columns: &columns })
    }
}

/// One field for each position of the front end's schema of the join.
fn output(kind: &JoinKind, left: &[Field], right: &[Field]) -> Vec<Field> {
    let side = |fields: &[Field], nullable: bool| -> Vec<Field> {
        fields.iter().map(|f| Field { nullable: f.nullable || nullable, ..f.clone() }).collect()
    };
    match kind {
        JoinKind::LeftSemi | JoinKind::LeftAnti => side(left, false),
        JoinKind::RightSemi | JoinKind::RightAnti => side(right, false),
        JoinKind::LeftMark(mark) => left.iter().chain([mark]).cloned().collect(),
        JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full => {
            let mut fields = side(left, matches!(kind, JoinKind::Right | JoinKind::Full));
            fields.extend(side(right, matches!(kind, JoinKind::Left | JoinKind::Full)));
            fields
        }
    }
}

/// Casts one side or both so that they have one type.
fn same_type(a: Expr, b: Expr) -> Result<(Expr, Expr), SqlError> {
    let (ta, tb) = (a.data_type(), b.data_type());
    if ta == tb {
        return Ok((a, b));
    }
    let common =
        datafusion_expr::type_coercion::binary::comparison_coercion(&types::front_end_type(ta), &types::front_end_type(tb));
    let common = common.ok_or_else(|| SqlError::new(format!("a join compares {ta:?} with {tb:?}")))?;
    let common = types::logical_type(&common)?;
    Ok((expr::cast(a, common), expr::cast(b, common)))
}
