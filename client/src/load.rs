//! Rows on their way into a table.

use std::sync::Arc;

use arrow::array::RecordBatch;
use stoa_rpc::ipc::write_chunks;
use stoa_rpc::session::{SessionService, StatementOutcome, TableLoad, random_number};
use stoa_rpc::{Failure, FailureKind, Result, RowOrigin, SessionClient};

use crate::Cancelled;
use crate::sessions::{Sessions, Since, broke, not_known};

/// Rows on their way into a table. Dropped before [`Loader::finish`], nothing of them stays.
pub struct Loader {
    sessions: Arc<Sessions>,
    session: Arc<SessionClient>,
    load: Box<dyn TableLoad>,
    /// Of its transaction; 0: the coordinator is of a version that cannot be asked for it.
    number: u64,
    rows: u64,
    /// Where the next rows come from, if the coordinator was not told yet.
    origin: Option<RowOrigin>,
}

impl Loader {
    pub(crate) fn new(sessions: &Arc<Sessions>, table: &str) -> Result<Loader> {
        let (session, number, load) = sessions.ask(|session| {
            let number = if session.finds_out() { random_number() } else { 0 };
            Ok((session.clone(), number, session.load(table, number)?))
        })?;
        Ok(Loader { sessions: sessions.clone(), session, load, number, rows: 0, origin: None })
    }

    /// Errors number the rows pushed from now on anew: the next one is `first`, of a file if its name is not empty, and is called a line
    /// or a row. Without it rows are counted from 1.
    pub fn number_rows(&mut self, file: &str, lines: bool, first: u64) {
        self.origin = Some(RowOrigin { file: file.to_owned(), lines, first, numbers: vec![] });
    }

    /// Adds rows; columns are matched by position and cast to the table's types. They are on their way when this returns.
    ///
    /// # Errors
    /// If a row does not fit, of this batch or of one before; nothing of the load stays then.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        write_chunks(std::slice::from_ref(batch), &mut |chunk| self.load.write(chunk, self.origin.take()))
    }

    /// Makes all rows visible; how many they are. If the coordinator is lost meanwhile, another one is asked what came of it.
    ///
    /// # Errors
    /// If they cannot be stored; none is visible then.
    pub fn finish(mut self) -> Result<u64> {
        // Up to here nothing can have been committed.
        self.load.flush()?;
        let failure = match self.load.finish() {
            Err(failure) if broke(&self.session, &failure) => failure,
            done => return done,
        };
        if self.number == 0 {
            return Err(not_known("", &failure));
        }
        let (since, never) = (Since::now(), Cancelled::default());
        match self.sessions.find_out("", &[self.number], &self.session, &since, &never) {
            StatementOutcome::Committed => Ok(self.rows),
            StatementOutcome::Never => {
                let what = "the coordinator was lost before the load was committed: none of its rows is there, load them again";
                Err(Failure::new(FailureKind::Retryable, what))
            }
            StatementOutcome::Unknown(why) => Err(not_known(&why, &failure)),
        }
    }
}
