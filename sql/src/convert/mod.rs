//! The front end's logical plan into Stoa's plan.
//!
//! The front end finds columns by name within a schema; Stoa by [`ColumnId`]. Every converted node therefore carries one
//! [`Field`] for each position of the front end's schema. Renaming and reordering projections leave no node behind: only the
//! list changes.

mod aggregate;
mod expr;
mod join;
mod literal;
mod scan;
mod simplify;
mod window;

use datafusion_common::DFSchema;
use datafusion_expr::{FetchType, LogicalPlan, SkipType};
use stoa_plan::{ColumnId, DataType, Expr, Field, Node, ParameterId, Plan, Query, SortKey, Subplan, SubplanKind, Value, Values};

use crate::bind::{Repeat, display_name};
use crate::{SqlError, types};

/// How deep the expressions of a plan may nest; AND and OR chains are balanced and do not count much.
const MAX_DEPTH: usize = 400;

/// A whole query; `names` are those of the result's columns.
pub(crate) fn query(plan: &LogicalPlan, names: &[String]) -> Result<Query, SqlError> {
    let mut converter = Converter::default();
    let root = converter.relation(plan)?;
    let mut output = root.columns;
    for (field, name) in output.iter_mut().zip(names) {
        field.name.clone_from(name);
    }
    Ok(Query { subplans: converter.subplans, root: root.plan, output })
}

/// A converted node.
pub(super) struct Relation {
    pub(super) plan: Plan,
    /// One for each position of the front end's schema; a column may be there twice.
    pub(super) columns: Vec<Field>,
}

/// What the parts of one query share.
#[derive(Default)]
pub(super) struct Converter {
    next_column: u32,
    subplans: Vec<Subplan>,
    /// Scalar subqueries seen so far: equal ones run once.
    scalars: Vec<(LogicalPlan, ParameterId, DataType)>,
}

/// Where an expression finds its columns.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) schema: &'a DFSchema,
    pub(super) columns: &'a [Field],
}

impl Converter {
    pub(super) fn new_column(&mut self) -> ColumnId {
        self.next_column += 1;
        ColumnId(self.next_column - 1)
    }

    pub(super) fn field(&mut self, name: &str, ty: DataType, nullable: bool) -> Field {
        Field { id: self.new_column(), name: display_name(name), ty, nullable }
    }

    /// New fields for each column of a schema.
    pub(super) fn fields(&mut self, schema: &DFSchema) -> Result<Vec<Field>, SqlError> {
        let fields = schema.fields().iter();
        fields.map(|f| Ok(self.field(f.name(), types::logical_type(f.data_type())?, f.is_nullable()))).collect()
    }

    pub(super) fn relation(&mut self, plan: &LogicalPlan) -> Result<Relation, SqlError> {
        match plan {
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::Filter(filter) => {
                let input = self.relation(&filter.input)?;
                let predicate = self.expr(&filter.predicate, input.scope(filter.input.schema()))?;
                if is_true(&predicate) {
                    return Ok(input);
                }
                Ok(input.map(|plan| Node::Filter { input: Box::new(plan), predicate }))
            }
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::SubqueryAlias(alias) => self.relation(&alias.input),
            LogicalPlan::Subquery(subquery) => self.relation(&subquery.subquery),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Sort(sort) => {
                let input = self.relation(&sort.input)?;
                let keys = self.sort_keys(&sort.expr, input.scope(sort.input.schema()))?;
                let fetch = sort.fetch.map(|n| n as u64);
                Ok(input.map(|plan| Node::Sort { input: Box::new(plan), keys, fetch, skip: 0 }))
            }
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::EmptyRelation(empty) => {
                let fields = self.fields(&empty.schema)?;
                let row = || fields.iter().map(|f| literal::null(f.ty)).collect();
                let rows = if empty.produce_one_row { vec![row()] } else { vec![] };
                Ok(Relation { plan: Plan::new(Node::Values(Values { fields: fields.clone(), rows })), columns: fields })
            }
            LogicalPlan::Values(values) => self.values(values),
            LogicalPlan::Window(window) => self.window(window),
            LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<Repeat>() {
                Some(repeat) => self.repeat(repeat),
                None => Err(SqlError::unsupported(extension.node.name())),
            },
            LogicalPlan::RecursiveQuery(_) => Err(SqlError::unsupported("WITH RECURSIVE")),
            LogicalPlan::Unnest(_) => Err(SqlError::unsupported("UNNEST")),
            LogicalPlan::Distinct(_) => Err(SqlError::unsupported("this form of DISTINCT")),
            other => Err(SqlError::unsupported(first_word(&other.display().to_string()))),
        }
    }

    fn repeat(&mut self, repeat: &Repeat) -> Result<Relation, SqlError> {
        let input = self.relation(&repeat.input)?;
        let times = self.expr(&repeat.times, input.scope(repeat.input.schema()))?;
        let times = expr::cast(times, DataType::Int64);
        Ok(input.map(|plan| Node::Repeat { input: Box::new(plan), times }))
    }

    fn projection(&mut self, projection: &datafusion_expr::Projection) -> Result<Relation, SqlError> {
        let input = self.relation(&projection.input)?;
        let scope = input.scope(projection.input.schema());
        let mut columns = Vec::with_capacity(projection.expr.len());
        let mut exprs: Vec<(Field, Expr)> = Vec::new();
        let mut computed = false;
        for (expr, field) in projection.expr.iter().zip(projection.schema.fields()) {
            let converted = self.expr(expr, scope)?;
            let kept = match &converted {
                Expr::Column(id, _) => input.columns.iter().find(|c| c.id == *id).cloned(),
                _ => None,
            };
            let kept = kept.map(|mut own| {
                own.name.clone_from(field.name());
                own
            });
            computed |= kept.is_none();
            let output = kept.unwrap_or_else(|| self.field(field.name(), converted.data_type(), field.is_nullable()));
            if exprs.iter().all(|(known, _)| known.id != output.id) {
                exprs.push((output.clone(), converted));
            }
            columns.push(output);
        }
        let plan = if computed { Plan::new(Node::Project { input: Box::new(input.plan), exprs }) } else { input.plan };
        Ok(Relation { plan, columns })
    }

    pub(super) fn sort_keys(&mut self, keys: &[datafusion_expr::SortExpr], scope: Scope<'_>) -> Result<Vec<SortKey>, SqlError> {
        let keys = keys.iter();
        keys.map(|key| Ok(SortKey { expr: self.expr(&key.expr, scope)?, descending: !key.asc, nulls_first: key.nulls_first }))
            .collect()
    }

    fn limit(&mut self, limit: &datafusion_expr::Limit) -> Result<Relation, SqlError> {
        let whole = |_| SqlError::new("LIMIT and OFFSET take whole numbers that are not negative");
        let SkipType::Literal(skip) = limit.get_skip_type().map_err(whole)? else { return Err(whole_number()) };
        let FetchType::Literal(fetch) = limit.get_fetch_type().map_err(whole)? else { return Err(whole_number()) };
        let (skip, fetch) = (skip as u64, fetch.map(|n| n as u64));
        let input = self.relation(&limit.input)?;
        let Relation { plan, columns } = input;
        let node = match plan.node {
            Node::Sort { input, keys, fetch: inner, skip: 0 } => {
                // The inner count is before the skip.
                let fetch = match (fetch, inner.map(|n| n.saturating_sub(skip))) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
                Node::Sort { input, keys, fetch, skip }
            }
            node => Node::Limit { input: Box::new(Plan::new(node)), fetch, skip },
        };
        Ok(Relation { plan: Plan::new(node), columns })
    }

    fn union(&mut self, union: &datafusion_expr::Union) -> Result<Relation, SqlError> {
        let mut fields = self.fields(&union.schema)?;
        let mut inputs = Vec::with_capacity(union.inputs.len());
        for input in &union.inputs {
            let input = self.relation(input)?.cast_to(&fields, self);
            for (field, column) in fields.iter_mut().zip(&input.columns) {
                field.nullable |= column.nullable;
            }
            inputs.push((input.plan, input.columns.iter().map(|c| c.id).collect()));
        }
        Ok(Relation { plan: Plan::new(Node::Union { inputs, fields: fields.clone() }), columns: fields })
    }

    fn values(&mut self, values: &datafusion_expr::Values) -> Result<Relation, SqlError> {
        let fields = self.fields(&values.schema)?;
        let empty = DFSchema::empty();
        let scope = Scope { schema: &empty, columns: &[] };
        let mut rows = Vec::with_capacity(values.values.len());
        for row in &values.values {
            let mut converted = Vec::with_capacity(row.len());
            for (expr, field) in row.iter().zip(&fields) {
                converted.push(expr::cast(self.expr(expr, scope)?, field.ty));
            }
            rows.push(converted);
        }
        Ok(Relation { plan: Plan::new(Node::Values(Values { fields: fields.clone(), rows })), columns: fields })
    }

    /// The parameter that holds the value of an uncorrelated scalar subquery.
    pub(super) fn scalar_subquery(&mut self, plan: &LogicalPlan) -> Result<Expr, SqlError> {
        if let Some((_, id, ty)) = self.scalars.iter().find(|(known, ..)| known == plan) {
            return Ok(Expr::Parameter(*id, *ty));
        }
        let relation = self.relation(plan)?;
        let [column] = &relation.columns[..] else {
            return Err(SqlError::new("a subquery that is used as a value must have one column"));
        };
        let ty = column.ty;
        // The subplan's rows are its only column, whatever else its node would hand on.
        let plan_out = match relation.plan.fields().len() {
            1 => relation.plan,
            _ => Plan::new(Node::Project {
                exprs: vec![(column.clone(), Expr::Column(column.id, ty))],
                input: Box::new(relation.plan),
            }),
        };
        let id = ParameterId(u32::try_from(self.scalars.len()).unwrap_or(u32::MAX));
        self.subplans.push(Subplan { kind: SubplanKind::Scalar(id), plan: plan_out });
        self.scalars.push((plan.clone(), id, ty));
        Ok(Expr::Parameter(id, ty))
    }
}

impl Relation {
    pub(super) fn scope<'a>(&'a self, schema: &'a DFSchema) -> Scope<'a> {
        Scope { schema, columns: &self.columns }
    }

    fn map(self, node: impl FnOnce(Plan) -> Node) -> Relation {
        Relation { plan: Plan::new(node(self.plan)), columns: self.columns }
    }

    /// The same rows with the types of `fields`.
    fn cast_to(self, fields: &[Field], converter: &mut Converter) -> Relation {
        if self.columns.iter().zip(fields).all(|(a, b)| a.ty == b.ty) {
            return self;
        }
        let exprs: Vec<(Field, Expr)> = self
            .columns
            .iter()
            .zip(fields)
            .map(|(column, wanted)| {
                let output = converter.field(&column.name, wanted.ty, column.nullable);
                (output, expr::cast(Expr::Column(column.id, column.ty), wanted.ty))
            })
            .collect();
        let columns = exprs.iter().map(|(f, _)| f.clone()).collect();
        Relation { plan: Plan::new(Node::Project { input: Box::new(self.plan), exprs }), columns }
    }
}

fn whole_number() -> SqlError {
    SqlError::new("LIMIT and OFFSET take constant whole numbers")
}

fn first_word(text: &str) -> String {
    text.split([' ', ':']).next().unwrap_or_default().to_owned()
}

/// Whether a literal is `TRUE`.
pub(super) fn is_true(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(l) if l.value == Value::Bool(true))
}
