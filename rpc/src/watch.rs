//! Leaves that do something for long, and those that do nothing any more.

use std::future::Future;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use stoa_schema::leaf_capnp::leaf;

use crate::client::Line;
use crate::io::gone;
use crate::running::Heard;
use crate::{Failure, Result};

/// How often a leaf is asked how far a query is.
const HOW_FAR: Duration = Duration::from_secs(1);
/// How long a call may take to learn that its connection has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A leaf beside a call that may take long: it is asked for its status again and again. One that says nothing for so long counts as hung,
/// and its connection is given up: whoever needs it next makes a new one.
#[derive(Clone)]
pub(crate) struct Watch {
    leaf: leaf::Client,
    line: Arc<Line>,
    silence: Duration,
}

impl Watch {
    /// Call it on the I/O thread.
    pub fn new(leaf: leaf::Client, line: Arc<Line>, silence: Duration) -> Watch {
        Watch { leaf, line, silence }
    }

    /// What a call gives, unless the leaf says nothing meanwhile; `does` is what it does.
    pub async fn unless_silent<T>(&self, does: &str, call: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            result = call => result.map_err(|failure| self.explain(does, failure)),
            () = self.silent() => Err(self.hung(does)),
        }
    }

    /// As [`Watch::unless_silent`] of a call that runs a part of a query; it is heard meanwhile how far that is.
    pub async fn unless_silent_about<T>(&self, query: u64, heard: &Heard, call: impl Future<Output = Result<T>>) -> Result<T> {
        let does = "it runs a part of the query";
        tokio::select! {
            result = call => result.map_err(|failure| self.explain(does, failure)),
            () = self.silent_about(query, heard) => Err(self.hung(does)),
        }
    }

    fn hung(&self, does: &str) -> Failure {
        self.line.unanswered(self.silence);
        self.explain(does, gone())
    }

    fn explain(&self, does: &str, failure: Failure) -> Failure {
        self.line.explain(&format!("{does} and"), failure)
    }

    /// Ends when the leaf has not answered for so long.
    async fn silent(&self) {
        loop {
            tokio::time::sleep(self.silence / 4).await;
            if self.answered(self.leaf.status_request().send().promise).await.is_break() {
                return;
            }
        }
    }

    async fn silent_about(&self, query: u64, heard: &Heard) {
        loop {
            tokio::time::sleep(HOW_FAR.min(self.silence / 4)).await;
            let mut request = self.leaf.progress_request();
            request.get().set_query(query);
            match self.answered(request.send().promise).await {
                ControlFlow::Continue(Some(answer)) => {
                    if let Ok(progress) = answer.get() {
                        heard.tell(progress.get_done(), progress.get_total());
                    }
                }
                ControlFlow::Continue(None) => {}
                ControlFlow::Break(()) => return,
            }
        }
    }

    /// What the leaf answers in time to what it can tell at once; nothing, if it does not know the question.
    async fn answered<T>(&self, answer: impl Future<Output = capnp::Result<T>>) -> ControlFlow<(), Option<T>> {
        match tokio::time::timeout(self.silence, answer).await {
            Ok(Ok(answer)) => ControlFlow::Continue(Some(answer)),
            Ok(Err(error)) if error.kind == capnp::ErrorKind::Unimplemented => ControlFlow::Continue(None),
            // The connection has ended: the call that runs learns it too, and says why; one that began after the end does not.
            Ok(Err(_)) => {
                tokio::time::sleep(LAST_WORDS).await;
                ControlFlow::Break(())
            }
            Err(_) => ControlFlow::Break(()),
        }
    }
}
