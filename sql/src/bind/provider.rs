//! The front end's view of the catalog and of the function library.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arrow_schema::{DataType as Arrow, Field, FieldRef, Schema, SchemaRef};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DataFusionError, Result, ScalarValue, TableReference};
use datafusion_expr::planner::{ContextProvider, ExprPlanner, TypePlanner};
use datafusion_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableProviderFilterPushDown, TableSource, TableType, Volatility,
    WindowUDF,
};
use datafusion_sql::sqlparser::ast::{DataType as SqlType, Statement as Ast};

use super::average::Average;
use crate::error::nearest;
use crate::{Catalog, SqlError, TableColumn, TableInfo, token, types};

/// Views may name views, so deep.
const MAX_VIEW_DEPTH: u32 = 32;

/// A table, as scans carry it.
pub(crate) struct Table {
    pub(crate) info: TableInfo,
    /// Whether its last column is the address of the row.
    pub(crate) addressed: bool,
    schema: SchemaRef,
    /// By column.
    defaults: Vec<Option<Expr>>,
}

impl TableSource for Table {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.defaults.get(self.schema.index_of(column).ok()?)?.as_ref()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(filters
            .iter()
            .map(|f| match f.is_volatile() {
                true => TableProviderFilterPushDown::Unsupported,
                false => TableProviderFilterPushDown::Exact,
            })
            .collect())
    }
}

/// A view: its plan takes the place of the scan.
struct View {
    plan: LogicalPlan,
    schema: SchemaRef,
}

impl TableSource for View {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }
}

/// The catalog and the functions of one statement.
pub(crate) struct Provider<'a> {
    catalog: &'a dyn Catalog,
    options: Arc<ConfigOptions>,
    view_depth: Cell<u32>,
    timeless: Cell<bool>,
    tables: RefCell<HashMap<String, Arc<dyn TableSource>>>,
    /// The table that is not the catalog's.
    own: Option<String>,
    /// The next table that is asked for is one that rows are put into: nobody reads it.
    fills: Cell<bool>,
}

impl<'a> Provider<'a> {
    pub(crate) fn new(catalog: &'a dyn Catalog) -> Self {
        let mut options = ConfigOptions::default();
        options.optimizer.max_passes = 3;
        options.optimizer.skip_failed_rules = false;
        options.optimizer.filter_null_join_keys = false;
        options.execution.time_zone = None;
        Provider {
            catalog,
            options: Arc::new(options),
            view_depth: Cell::new(0),
            timeless: Cell::new(true),
            tables: RefCell::default(),
            own: None,
            fills: Cell::new(false),
        }
    }

    /// One that knows a table more, under a name that no table has.
    pub(super) fn with_table(catalog: &'a dyn Catalog, name: &str, info: TableInfo, addressed: bool) -> Self {
        let provider = Provider::new(catalog);
        let table: Arc<dyn TableSource> = Arc::new(Table { addressed, ..scan_source(info) });
        provider.tables.borrow_mut().insert(name.to_owned(), table);
        Provider { own: Some(name.to_owned()), ..provider }
    }

    /// The next table that is asked for is one that rows are put into.
    pub(super) fn fill_next(&self) {
        self.fills.set(true);
    }

    /// Whether an expression calls an aggregate of that name.
    pub(super) fn is_aggregate(&self, name: &str) -> bool {
        self.get_aggregate_meta(name).is_some()
    }

    pub(super) fn catalog(&self) -> &dyn Catalog {
        self.catalog
    }

    pub(crate) fn config(&self) -> &Arc<ConfigOptions> {
        &self.options
    }

    /// Whether the statement means the same whenever it is run, as far as it has been bound.
    pub(crate) fn timeless(&self) -> bool {
        self.timeless.get()
    }

    fn plan_view(&self, name: &str, sql: &str) -> Result<View> {
        if self.view_depth.get() >= MAX_VIEW_DEPTH {
            return Err(SqlError::new(format!("view '{name}' names itself, or views are nested too deeply")).into());
        }
        self.view_depth.set(self.view_depth.get() + 1);
        let planned = token::tokenize(sql).and_then(|tokens| token::parse_query(&tokens)).map_err(DataFusionError::from);
        let planned = planned.and_then(|query| {
            let mut ast = Ast::Query(Box::new(query));
            super::rewrite::statement(&mut ast, self.catalog)?;
            super::logical_plan(ast, self)
        });
        self.view_depth.set(self.view_depth.get() - 1);
        let plan = planned.map_err(|error| {
            let inner = SqlError::from_front_end(&error);
            DataFusionError::from(SqlError::new(format!("in view '{name}': {inner}")))
        })?;
        let schema = Arc::new(plan.schema().as_arrow().clone());
        Ok(View { plan, schema })
    }

    /// A table or view, whatever is to be done with it.
    pub(crate) fn source(&self, name: &str) -> Result<Arc<dyn TableSource>> {
        if let Some(known) = self.tables.borrow().get(name) {
            return Ok(Arc::clone(known));
        }
        let source: Arc<dyn TableSource> = if let Some(info) = self.catalog.table(name) {
            Arc::new(scan_source(info))
        } else if let Some(sql) = self.catalog.view(name) {
            Arc::new(self.plan_view(name, &sql)?)
        } else {
            return Err(self.missing(name));
        };
        self.tables.borrow_mut().insert(name.to_owned(), Arc::clone(&source));
        Ok(source)
    }

    pub(super) fn missing(&self, name: &str) -> DataFusionError {
        let names = self.catalog.names();
        let mut message = format!("there is no table '{name}'");
        if let Some(near) = nearest(name, names.iter().map(String::as_str)) {
            message.push_str(&format!("; did you mean '{near}'?"));
        }
        SqlError::new(message).into()
    }
}

fn scan_source(info: TableInfo) -> Table {
    let fields: Vec<Field> = info.columns.iter().map(|c| Field::new(&c.name, types::front_end_type(c.ty), c.nullable)).collect();
    let default = |c: &TableColumn| Some(Expr::Literal(ScalarValue::try_from_array(c.default.as_ref()?, 0).ok()?, None));
    let defaults = info.columns.iter().map(default).collect();
    Table { info, addressed: false, schema: Arc::new(Schema::new(fields)), defaults }
}

impl ContextProvider for Provider<'_> {
    fn get_table_source(&self, reference: TableReference) -> Result<Arc<dyn TableSource>> {
        let name = reference.table();
        if reference.schema().is_some() || reference.catalog().is_some() {
            return Err(SqlError::new(format!("there is no table '{reference}': tables have no schema prefix")).into());
        }
        let source = self.source(name)?;
        let read = !self.fills.replace(false);
        if read && self.view_depth.get() == 0 && self.own.as_deref() != Some(name) {
            self.catalog.may_read(name)?;
        }
        Ok(source)
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &functions().planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let function = functions().scalar.get(name).cloned().or_else(|| super::markers::function(name));
        if function.as_ref().is_some_and(|function| function.signature().volatility != Volatility::Immutable) {
            self.timeless.set(false);
        }
        function
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        functions().aggregate.get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        functions().window.get(name).cloned()
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<Arrow> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        functions().scalar.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        functions().aggregate.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        functions().window.keys().cloned().collect()
    }
}

/// Types in casts mean what they mean in CREATE TABLE.
#[derive(Debug)]
struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, ty: &SqlType) -> Result<Option<FieldRef>> {
        let logical = types::from_sql(ty)?;
        Ok(Some(Arc::new(Field::new("", types::front_end_type(logical), true))))
    }
}

/// The function library by name, aliases included.
struct Functions {
    scalar: HashMap<String, Arc<ScalarUDF>>,
    aggregate: HashMap<String, Arc<AggregateUDF>>,
    window: HashMap<String, Arc<WindowUDF>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

/// Further names of aggregates.
const AGGREGATE_ALIASES: [(&str, &str); 7] = [
    ("variance", "var_samp"),
    ("var", "var_samp"),
    ("variance_pop", "var_pop"),
    ("std", "stddev_pop"),
    ("every", "bool_and"),
    ("approx_count_distinct", "approx_distinct"),
    ("listagg", "string_agg"),
];

/// Functions of the library that speak of its own types, or of itself.
const HIDDEN: [&str; 12] = [
    "arrow_cast",
    "arrow_try_cast",
    "arrow_typeof",
    "arrow_metadata",
    "arrow_field",
    "with_metadata",
    "cast_to_type",
    "try_cast_to_type",
    "union_extract",
    "union_tag",
    "version",
    "get_field_path",
];

/// Further names of scalar functions.
const SCALAR_ALIASES: [(&str, &str); 9] = [
    ("sign", "signum"),
    ("truncate", "trunc"),
    ("mid", "substr"),
    ("ucase", "upper"),
    ("lcase", "lower"),
    ("ifnull", "nvl"),
    ("ceiling", "ceil"),
    ("current_timestamp", "now"),
    ("len", "character_length"),
];

fn functions() -> &'static Functions {
    static FUNCTIONS: OnceLock<Functions> = OnceLock::new();
    FUNCTIONS.get_or_init(|| {
        let mut scalar = HashMap::new();
        for udf in datafusion_functions::all_default_functions() {
            for alias in udf.aliases() {
                scalar.insert(alias.clone(), Arc::clone(&udf));
            }
            scalar.insert(udf.name().to_owned(), udf);
        }
        scalar.retain(|name, _| !HIDDEN.contains(&name.as_str()));
        let mut aggregate = HashMap::new();
        let average = Arc::new(AggregateUDF::from(Average::new()));
        for udf in datafusion_functions_aggregate::all_default_aggregate_functions().into_iter().chain([average]) {
            for alias in udf.aliases() {
                aggregate.insert(alias.clone(), Arc::clone(&udf));
            }
            aggregate.insert(udf.name().to_owned(), udf);
        }
        let mut window = HashMap::new();
        for udf in datafusion_functions_window::all_default_window_functions() {
            for alias in udf.aliases() {
                window.insert(alias.clone(), Arc::clone(&udf));
            }
            window.insert(udf.name().to_owned(), udf);
        }
        add_aliases(&mut scalar, &SCALAR_ALIASES);
        add_aliases(&mut aggregate, &AGGREGATE_ALIASES);
        Functions { scalar, aggregate, window, planners: planners() }
    })
}

fn add_aliases<T: Clone>(functions: &mut HashMap<String, T>, aliases: &[(&str, &str)]) {
    for (alias, name) in aliases {
        if !functions.contains_key(*alias)
            && let Some(found) = functions.get(*name).cloned()
        {
            functions.insert((*alias).to_owned(), found);
        }
    }
}

fn planners() -> Vec<Arc<dyn ExprPlanner>> {
    vec![
        Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
        Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
        Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
        Arc::new(datafusion_functions_aggregate::planner::AggregateFunctionPlanner),
        Arc::new(datafusion_functions_window::planner::WindowFunctionPlanner),
    ]
}
