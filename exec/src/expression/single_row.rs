//! The value of a scalar subquery that was made a join: an error where the join found several rows for one.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType as Arrow, Int64Type};
use arrow::error::ArrowError;
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

/// What plans call it by: `single_row(value, rows)`.
const NAME: &str = "single_row";

/// See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct SingleRow {
    signature: Signature,
}

impl SingleRow {
    pub(super) fn new() -> SingleRow {
        SingleRow { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for SingleRow {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[Arrow]) -> Result<Arrow> {
        Ok(types.first().cloned().unwrap_or(Arrow::Null))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value, rows] = &args.args[..] else { return exec_err!("{NAME} takes a value and a number of rows") };
        let rows = rows.to_array(args.number_rows)?;
        let Some(rows) = rows.as_primitive_opt::<Int64Type>() else { return exec_err!("a number of rows is a BIGINT") };
        if (0..rows.len()).any(|i| rows.is_valid(i) && rows.value(i) > 1) {
            return Err(ArrowError::ComputeError(crate::query::SEVERAL_ROWS.into()).into());
        }
        Ok(value.clone())
    }
}
