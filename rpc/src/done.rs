//! Outcomes of calls that only do something.

use stoa_schema::common_capnp::done;

use crate::{Failure, Result};

/// Writes an outcome.
pub(crate) fn write(outcome: Result<()>, mut to: done::Builder<'_>) {
    match outcome {
        Ok(()) => to.set_done(()),
        Err(failure) => failure.write(to.init_failure()),
    }
}

/// Reads an outcome.
pub(crate) fn read(from: done::Reader<'_>) -> Result<()> {
    match from.which().map_err(capnp::Error::from)? {
        done::Done(()) => Ok(()),
        done::Failure(failure) => Err(Failure::read(failure?)?),
    }
}
