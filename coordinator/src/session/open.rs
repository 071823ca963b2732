//! The transaction of a session, between BEGIN and COMMIT or ROLLBACK.

use stoa_exec::CancelToken;
use stoa_sql::Statement;

use super::Session;
use crate::retry::is_loss;
use crate::{Error, Result, Store, Transaction};

/// A transaction that BEGIN opened.
pub(super) enum Open {
    /// It goes on.
    Going {
        transaction: Box<dyn Transaction>,
        /// A statement has seen or changed something: only the client can run the whole of it again.
        used: bool,
    },
    /// Nothing of it is there any more, and why.
    Lost(&'static str),
}

const NODE: &str = "a node failed";
const ALTERED: &str = "a table was altered";

/// BEGIN, COMMIT, ROLLBACK.
pub(super) fn statement(session: &Session, statement: &Statement, cancel: &CancelToken) -> Result<String> {
    let mut open = session.open.lock();
    match (statement, open.take()) {
        (Statement::Begin, None) => {
            *open = Some(Open::Going { transaction: session.store.begin()?, used: false });
            Ok("transaction begun".into())
        }
        (Statement::Begin, Some(other)) => {
            *open = Some(other);
            Err(Error::Invalid("a transaction is open already: COMMIT or ROLLBACK first".into()))
        }
        (Statement::Commit, Some(Open::Going { transaction, .. })) => {
            let run_again = |error| if is_loss(&error) { rolled_back(NODE, Some(error)) } else { error };
            transaction.commit(cancel).map_err(run_again)?;
            Ok("transaction committed".into())
        }
        (Statement::Commit, Some(Open::Lost(why))) => Err(rolled_back(why, None)),
        (Statement::Commit, None) => Ok("no transaction is open".into()),
        (_, Some(_)) => Ok("transaction rolled back".into()),
        (_, None) => Ok("no transaction is open".into()),
    }
}

impl Open {
    /// Runs a statement in the transaction. The first one that asks for something is run again when a node fails under it; from then on
    /// the transaction is lost with its node.
    pub fn run<T>(
        &mut self,
        store: &dyn Store,
        cancel: &CancelToken,
        work: &mut dyn FnMut(&mut dyn Transaction) -> Result<T>,
    ) -> Result<T> {
        let mut tries = store.retry_limit().tries();
        loop {
            let (transaction, used) = match self {
                Open::Going { transaction, used } => (transaction, used),
                Open::Lost(why) => return Err(rolled_back(why, None)),
            };
            let looked = if *used { Ok(()) } else { transaction.look() };
            match looked.and_then(|()| work(&mut **transaction)) {
                Err(error) if error.is_altered() => {
                    if *used {
                        *self = Open::Lost(ALTERED);
                        return Err(rolled_back(ALTERED, Some(error)));
                    }
                    // The statement is planned anew for one that sees the table as it is now.
                    *transaction = store.begin()?;
                    return Err(error);
                }
                Err(error) if is_loss(&error) && cancel.check().is_ok() => {
                    if *used {
                        *self = Open::Lost(NODE);
                        return Err(rolled_back(NODE, Some(error)));
                    }
                    tries.after(error, cancel)?;
                    *transaction = store.begin()?;
                }
                done => {
                    *used = true;
                    return done;
                }
            }
        }
    }
}

fn rolled_back(what: &str, why: Option<Error>) -> Error {
    let why = why.map(|error| format!(" ({error})")).unwrap_or_default();
    Error::retryable(format!("{what}, and the transaction was rolled back: run the transaction again{why}"))
}
