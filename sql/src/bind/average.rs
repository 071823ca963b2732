//! AVG, typed as Stoa computes it: the sum is exact, and one division at the end makes a DOUBLE of it, for DECIMALs too.

use arrow_schema::DataType as Arrow;
use datafusion_common::{Result, not_impl_err, plan_err};
use datafusion_expr::function::AccumulatorArgs;
use datafusion_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

/// The function for the front end, which types it and never runs it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Average {
    signature: Signature,
    aliases: [String; 1],
}

impl Average {
    pub(super) fn new() -> Average {
        Average { signature: Signature::user_defined(Volatility::Immutable), aliases: ["mean".to_owned()] }
    }
}

impl AggregateUDFImpl for Average {
    fn name(&self) -> &'static str {
        "avg"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[Arrow]) -> Result<Arrow> {
        Ok(Arrow::Float64)
    }

    /// Numbers are taken as they are; a string is read as a DOUBLE.
    fn coerce_types(&self, arguments: &[Arrow]) -> Result<Vec<Arrow>> {
        match arguments {
            [ty] if ty.is_numeric() => Ok(vec![ty.clone()]),
            [Arrow::Null | Arrow::Utf8 | Arrow::Utf8View | Arrow::LargeUtf8] => Ok(vec![Arrow::Float64]),
            [ty] => plan_err!("avg takes a number, not a {ty}"),
            _ => plan_err!("avg takes one argument"),
        }
    }

    fn accumulator(&self, _arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        not_impl_err!("avg is computed by the executor")
    }
}
