//! What runs on all coordinators, and an end to it.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use stoa_rpc::peer::{ListedProcess, PeerService};

use super::Control;
use super::show::parts;
use crate::access::Asker;
use crate::catalog::{NodeId, Privilege, Scope};
use crate::processes::{Process, node_of};
use crate::session::text_table;
use crate::{Error, Outcome, Result};

/// How long another coordinator may take to say what runs on it.
const PATIENCE: Duration = Duration::from_secs(2);

const SILENT: &str = "(this coordinator does not answer: what runs on it is not known)";

/// Whether a user may see and end what runs.
fn may(asker: &Asker<'_>, process: &Process) -> bool {
    process.user == asker.user || asker.may(Privilege::Cluster, &Scope::Everywhere)
}

impl Control {
    /// What runs on this coordinator, as far as a user may see that.
    pub(crate) fn own_processes(&self, asker: &Asker<'_>) -> Vec<ListedProcess> {
        let listed = |(number, process): (u64, Process)| {
            let time = process.time();
            ListedProcess { number, user: process.user, database: process.database, text: process.text, time }
        };
        self.processes.list().into_iter().filter(|(_, process)| may(asker, process)).map(listed).collect()
    }

    /// Ends what has this number on this coordinator; false if nothing has that the user may end.
    pub(crate) fn kill_own(&self, number: u64, asker: &Asker<'_>) -> bool {
        self.processes.kill(number, |process| may(asker, process))
    }

    /// SHOW PROCESSLIST.
    pub(super) fn show_processlist(&self, asker: &Asker<'_>) -> Result<Outcome> {
        let (catalog, own) = (self.catalog(), NodeId(self.node()));
        let others = catalog.coordinators.iter().filter(|(id, _)| **id != own);
        let user = asker.user.to_owned();
        let asked = self.ask_peers(others.map(|(_, other)| other.address.clone()), PATIENCE, move |peer| peer.processes(&user));
        let here = (self.membership.address().to_owned(), Some(self.own_processes(asker)));
        let mut rows = Vec::new();
        for (address, processes) in std::iter::once(here).chain(asked) {
            let (host, port) = parts(&address);
            let row = |process: ListedProcess| {
                let time = format!("{:.3}", process.time.as_secs_f64());
                let ListedProcess { number, user, database, text, .. } = process;
                [number.to_string(), user, host.clone(), port.clone(), database, time, text]
            };
            match processes {
                Some(processes) => rows.extend(processes.into_iter().map(row)),
                None => {
                    let [id, user, database, time] = [const { String::new() }; 4];
                    rows.push([id, user, host, port, database, time, SILENT.to_owned()]);
                }
            }
        }
        text_table(&["Id", "User", "Host", "Port", "Database", "Time", "Info"], &rows)
    }

    /// KILL QUERY.
    pub(super) fn kill(&self, number: u64, asker: &Asker<'_>) -> Result<String> {
        let done = || Ok(format!("query {number} is being stopped"));
        if self.kill_own(number, asker) {
            return done();
        }
        let nothing = || Err(Error::Invalid(format!("no query {number} runs: SHOW PROCESSLIST lists those that do")));
        let (catalog, user) = (self.catalog(), asker.user.to_owned());
        let owner = node_of(number).filter(|node| *node != self.node());
        let Some(owner) = owner.and_then(|node| catalog.coordinators.get(&NodeId(node))) else { return nothing() };
        match self.ask_peers([owner.address.clone()], PATIENCE, move |peer| peer.kill(&user, number)).pop() {
            Some((_, Some(true))) => done(),
            Some((_, Some(false))) => nothing(),
            _ => {
                let what = format!("the coordinator {}, on which query {number} would run, does not answer", owner.address);
                Err(Error::retryable(format!("{what}: whether it ends is not known")))
            }
        }
    }

    /// Asks other coordinators all at once, and waits for so long: what each says, by its address. One that does not know the question
    /// says nothing.
    pub(super) fn ask_peers<T: Send + 'static>(
        &self,
        addresses: impl IntoIterator<Item = String>,
        limit: Duration,
        question: impl Fn(&dyn PeerService) -> stoa_rpc::Result<T> + Clone + Send + 'static,
    ) -> Vec<(String, Option<T>)> {
        let until = Instant::now() + limit;
        let asked: Vec<_> = addresses
            .into_iter()
            .map(|address| {
                let (membership, question, to) = (self.membership.clone(), question.clone(), address.clone());
                let (answers, answer) = mpsc::channel();
                // To connect to one that hangs takes longer than anybody waits here. Without a thread nobody answers.
                let ask = move || drop(answers.send(membership.peers().peer(&to).and_then(|peer| question(&*peer))));
                let _ = std::thread::Builder::new().name("stoa-ask".to_owned()).spawn(ask);
                (address, answer)
            })
            .collect();
        let wait = |answer: mpsc::Receiver<stoa_rpc::Result<T>>| {
            answer.recv_timeout(until.saturating_duration_since(Instant::now())).ok()?.ok()
        };
        asked.into_iter().map(|(address, answer)| (address, wait(answer))).collect()
    }
}
