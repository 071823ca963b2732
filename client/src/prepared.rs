//! Prepared statements.

use std::sync::Arc;

use parking_lot::Mutex;
use stoa_rpc::session::{PreparedService, SessionService};
use stoa_rpc::{Result, SessionClient};

use crate::answer::Outputs;
use crate::sessions::Sessions;
use crate::{Cancelled, Output, Parameter, Rows, rows_of};

/// A prepared statement. When the client has to enter another coordinator it is prepared there anew.
pub struct Prepared {
    sessions: Arc<Sessions>,
    sql: String,
    parameters: u32,
    /// As it is in a session.
    there: Mutex<(Arc<SessionClient>, Arc<dyn PreparedService>)>,
}

impl Prepared {
    pub(crate) fn new(sessions: &Arc<Sessions>, sql: &str) -> Result<Prepared> {
        let there = sessions.ask(|session| Ok((session.clone(), session.prepare(sql)?)))?;
        let (sessions, sql, parameters) = (sessions.clone(), sql.to_owned(), there.1.parameters());
        Ok(Prepared { sessions, sql, parameters, there: Mutex::new(there) })
    }

    /// How many values it takes.
    #[must_use]
    pub fn parameters(&self) -> u32 {
        self.parameters
    }

    /// Runs it with a value for each parameter, in their order, and hands what it gave to `each`; ends soon after `cancelled` is set.
    ///
    /// # Errors
    /// Those of the statement or of `each`; if the values are too many or too few.
    pub fn execute(&self, values: &[Parameter], cancelled: &Cancelled, each: &mut dyn FnMut(Output) -> Result<()>) -> Result<()> {
        let mut outputs = Outputs::new(each);
        self.sessions.run(Some(&self.sql), &mut outputs, cancelled, &|session, answer| {
            self.within(session)?.execute(values, answer, cancelled)
        })?;
        outputs.flush()
    }

    /// Runs it, if it is a query.
    ///
    /// # Errors
    /// If the statement gives no rows, or as [`Prepared::execute`].
    pub fn query(&self, values: &[Parameter]) -> Result<Rows> {
        rows_of("statement", |each| self.execute(values, &Cancelled::default(), each))
    }

    /// The statement as it is in a session.
    fn within(&self, session: &Arc<SessionClient>) -> Result<Arc<dyn PreparedService>> {
        let mut there = self.there.lock();
        if !Arc::ptr_eq(&there.0, session) {
            *there = (session.clone(), session.prepare(&self.sql)?);
        }
        Ok(there.1.clone())
    }
}
