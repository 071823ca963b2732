//! Window functions.

use datafusion_expr::{Expr as Source, Window};
use stoa_plan::{Node, Plan, WindowCall};

use super::{Converter, Relation};
use crate::{SqlError, types};

impl Converter {
    pub(super) fn window(&mut self, window: &Window) -> Result<Relation, SqlError> {
        let input = self.relation(&window.input)?;
        let scope = input.scope(window.input.schema());
        let outputs = window.schema.fields().iter().skip(input.columns.len());
        let mut calls = Vec::with_capacity(window.window_expr.len());
        for (expr, output) in window.window_expr.iter().zip(outputs) {
            let Source::WindowFunction(call) = expr.clone().unalias_nested().data else {
                return Err(SqlError::unsupported("this window expression"));
            };
            let params = &call.params;
            if params.filter.is_some() || params.distinct || params.null_treatment.is_some() {
                return Err(SqlError::unsupported("FILTER, DISTINCT or IGNORE NULLS in a window function"));
            }
            let ty = types::logical_type(output.data_type())?;
            calls.push(WindowCall {
                field: self.field(output.name(), ty, output.is_nullable()),
                function: call.fun.name().to_lowercase(),
                args: params.args.iter().map(|a| self.expr(a, scope)).collect::<Result<_, _>>()?,
                partition_by: params.partition_by.iter().map(|a| self.expr(a, scope)).collect::<Result<_, _>>()?,
                order_by: self.sort_keys(&params.order_by, scope)?,
                frame: params.window_frame.to_string(),
            });
        }
        let mut columns = input.columns.clone();
        columns.extend(calls.iter().map(|c| c.field.clone()));
        Ok(Relation { plan: Plan::new(Node::Window { input: Box::new(input.plan), calls }), columns })
    }
}
