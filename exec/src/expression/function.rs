//! Calls of the function library.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType as Arrow, Field, FieldRef};
use datafusion_common::ScalarValue;
use datafusion_common::config::ConfigOptions;
use datafusion_expr::type_coercion::functions::fields_with_udf;
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, Volatility};
use hashbrown::HashMap;
use stoa_plan::DataType;

use super::cast::cast_array;
use super::node::Compiled;
use super::single_row::SingleRow;
use super::value::Evaluated;
use crate::{Batch, Error, Result};

static LIBRARY: LazyLock<HashMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let mut library = HashMap::new();
    let own = Arc::new(ScalarUDF::from(SingleRow::new()));
    for function in datafusion_functions::all_default_functions().into_iter().chain([own]) {
        for alias in function.aliases() {
            library.insert(alias.to_lowercase(), function.clone());
        }
        library.insert(function.name().to_lowercase(), function);
    }
    library
});

static OPTIONS: LazyLock<Arc<ConfigOptions>> = LazyLock::new(|| Arc::new(ConfigOptions::default()));

/// A call of a library function.
#[derive(Debug)]
pub(crate) struct Call {
    function: Arc<ScalarUDF>,
    args: Vec<Compiled>,
    arg_fields: Vec<FieldRef>,
    return_field: FieldRef,
    ty: DataType,
}

impl Call {
    /// Resolves the function and the types that it takes. Also says whether the function is volatile.
    pub(crate) fn compile(name: &str, args: Vec<Compiled>, ty: DataType) -> Result<(Call, bool)> {
        let function = LIBRARY.get(name).cloned().ok_or_else(|| Error::Unsupported(format!("the function {name}")))?;
        let fields: Vec<FieldRef> = args.iter().map(|a| Arc::new(Field::new("argument", library_type(a.ty), true))).collect();
        let arg_fields = guarded(name, || Ok(fields_with_udf(&fields, function.as_ref())?))?;
        let mut constants = Vec::with_capacity(args.len());
        for (arg, field) in args.iter().zip(&arg_fields) {
            constants.push(match arg.constant() {
                Some(array) => {
                    let array = cast_array(&crate::batch::canonical(array, arg.ty)?, field.data_type(), false)?;
                    Some(ScalarValue::try_from_array(&array, 0)?)
                }
                None => None,
            });
        }
        let scalars: Vec<Option<&ScalarValue>> = constants.iter().map(Option::as_ref).collect();
        let return_field = guarded(name, || {
            Ok(function.return_field_from_args(ReturnFieldArgs { arg_fields: &arg_fields, scalar_arguments: &scalars })?)
        })?;
        let volatile = function.signature().volatility == Volatility::Volatile;
        Ok((Call { function, args, arg_fields, return_field, ty }, volatile))
    }

    pub(crate) fn args_mut(&mut self) -> &mut Vec<Compiled> {
        &mut self.args
    }

    pub(crate) fn evaluate(&self, batch: &Batch) -> Result<Evaluated> {
        let mut args = Vec::with_capacity(self.args.len());
        for (arg, field) in self.args.iter().zip(&self.arg_fields) {
            let value = arg.canonical(batch)?;
            let array = cast_array(value.array(), field.data_type(), false)?;
            args.push(match value {
                Evaluated::Scalar(_) => ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?),
                Evaluated::Array(_) => ColumnarValue::Array(array),
            });
        }
        let call = ScalarFunctionArgs {
            args,
            arg_fields: self.arg_fields.clone(),
            number_rows: batch.rows,
            return_field: self.return_field.clone(),
            config_options: OPTIONS.clone(),
        };
        let result = guarded(self.function.name(), || Ok(self.function.invoke_with_args(call)?))?;
        Ok(match result {
            ColumnarValue::Array(array) => {
                if array.len() != batch.rows {
                    return Err(Error::Internal(format!("{} gave {} rows of {}", self.function.name(), array.len(), batch.rows)));
                }
                Evaluated::Array(self.result(&array)?)
            }
            ColumnarValue::Scalar(scalar) => Evaluated::Scalar(self.result(&scalar.to_array_of_size(1)?)?),
        })
    }

    fn result(&self, array: &ArrayRef) -> Result<ArrayRef> {
        cast_array(array, &self.ty.to_arrow(), false)
    }
}

/// The form in which the library knows a type: it has no decimals of 64 bits.
fn library_type(ty: DataType) -> Arrow {
    match ty.to_arrow() {
        Arrow::Decimal64(precision, scale) => Arrow::Decimal128(precision, scale),
        other => other,
    }
}

/// Runs library code; a panic in it becomes an error.
fn guarded<T>(name: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(Error::Internal(format!("the function {name} failed badly"))))
}
