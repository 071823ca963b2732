//! Table scans.

use datafusion_expr::TableScan;
use datafusion_expr::utils::split_conjunction;
use stoa_plan::{ColumnId, Node, Plan, ROW_ADDRESS, Scan, ScanColumn};

use super::{Converter, Relation, Scope, is_true};
use crate::SqlError;
use crate::bind::Table;

impl Converter {
    pub(super) fn scan(&mut self, scan: &TableScan) -> Result<Relation, SqlError> {
        let Some(table) = scan.source.downcast_ref::<Table>() else {
            return Err(SqlError::new(format!("there is no table '{}'", scan.table_name)));
        };
        let info = &table.info;
        let all: Vec<_> = info.columns.iter().map(|c| self.field(&c.name, c.ty, c.nullable)).collect();
        let whole = scan.source.schema();
        let schema = datafusion_common::DFSchema::try_from_qualified_schema(scan.table_name.clone(), &whole)
            .map_err(|e| SqlError::from_front_end(&e))?;
        let scope = Scope { schema: &schema, columns: &all };
        let mut filters = Vec::new();
        for filter in scan.filters.iter().flat_map(|f| split_conjunction(f)) {
            let filter = self.expr(filter, scope)?;
            if !is_true(&filter) {
                filters.push(filter);
            }
        }
        let chosen: Vec<usize> = match &scan.projection {
            Some(projection) => projection.clone(),
            None => (0..all.len()).collect(),
        };
        let read: Vec<ColumnId> = filters.iter().flat_map(stoa_plan::Expr::columns).collect();
        let address = table.addressed.then(|| all.len().saturating_sub(1));
        let ordinal = |at: usize| if Some(at) == address { ROW_ADDRESS } else { at as u32 };
        let column = |at: usize| ScanColumn { ordinal: ordinal(at), field: all[at].clone() };
        let columns: Vec<ScanColumn> = chosen.iter().map(|&i| column(i)).collect();
        let filter_columns = (0..all.len()).filter(|i| !chosen.contains(i) && read.contains(&all[*i].id)).map(column).collect();
        let fields = columns.iter().map(|c| c.field.clone()).collect();
        let node = Node::Scan(Scan {
            table: info.name.clone(),
            columns,
            filters,
            filter_columns,
            runtime_filters: vec![],
            reference: info.reference,
            shard_key: info.shard_key.clone(),
            revision: info.revision,
        });
        Ok(Relation { plan: Plan::new(node), columns: fields })
    }
}
