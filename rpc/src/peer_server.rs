//! A [`PeerService`] for those on the other side of a connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use capnp::capability::Rc;
use stoa_schema::coordinator_capnp::peer;

use crate::client::LONG;
use crate::done;
use crate::io::{blocking, urgent};
use crate::peer::{Decided, ForLeader, PeerService};
use crate::session::Cancelled;

pub(crate) struct PeerServer(pub Arc<dyn PeerService>);

/// Tells the statement that nobody waits for it any more.
pub(crate) struct Guard(pub Cancelled);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl peer::Server for PeerServer {
    async fn consensus(self: Rc<Self>, params: peer::ConsensusParams, mut results: peer::ConsensusResults) -> capnp::Result<()> {
        let message = params.get()?.get_message()?.to_vec();
        let service = self.0.clone();
        let answer = urgent(move || service.consensus(message, LONG)).await?;
        results.get().set_result(&answer);
        Ok(())
    }

    async fn decide(self: Rc<Self>, params: peer::DecideParams, mut results: peer::DecideResults) -> capnp::Result<()> {
        let params = params.get()?;
        let statement = ForLeader {
            user: params.get_user()?.to_string()?,
            database: params.get_database()?.to_string()?,
            sql: params.get_sql()?.to_string()?,
        };
        let (service, cancelled) = (self.0.clone(), Cancelled::default());
        let _guard = Guard(cancelled.clone());
        let decided = blocking(move || service.decide(&statement, &cancelled)).await;
        let mut result = results.get().init_result();
        match decided {
            Ok(Decided::Done { text, rows, version }) => {
                let mut done = result.init_done();
                done.set_text(&text);
                done.set_rows(&rows);
                done.set_version(version);
            }
            Ok(Decided::NotLeader) => result.set_not_leader(()),
            Err(failure) => failure.write(result.init_failure()),
        }
        Ok(())
    }

    async fn adopt(self: Rc<Self>, params: peer::AdoptParams, mut results: peer::AdoptResults) -> capnp::Result<()> {
        let (service, node) = (self.0.clone(), params.get()?.get_node());
        done::write(urgent(move || service.adopt(node)).await, results.get().init_result());
        Ok(())
    }

    async fn status(self: Rc<Self>, _: peer::StatusParams, mut results: peer::StatusResults) -> capnp::Result<()> {
        let service = self.0.clone();
        let status = urgent(move || service.status()).await?;
        let mut to = results.get().init_status();
        to.set_node(status.node);
        to.set_leader(&status.leader);
        to.set_version(status.version);
        Ok(())
    }

    async fn processes(self: Rc<Self>, params: peer::ProcessesParams, mut results: peer::ProcessesResults) -> capnp::Result<()> {
        let (service, user) = (self.0.clone(), params.get()?.get_user()?.to_string()?);
        let processes = blocking(move || service.processes(&user)).await?;
        let mut list = results.get().init_processes(processes.len() as u32);
        for (i, process) in (0u32..).zip(&processes) {
            let mut to = list.reborrow().get(i);
            to.set_number(process.number);
            to.set_user(&process.user);
            to.set_database(&process.database);
            to.set_text(&process.text);
            to.set_micros(process.time.as_micros() as u64);
        }
        Ok(())
    }

    async fn kill(self: Rc<Self>, params: peer::KillParams, mut results: peer::KillResults) -> capnp::Result<()> {
        let params = params.get()?;
        let (service, user, number) = (self.0.clone(), params.get_user()?.to_string()?, params.get_number());
        results.get().set_found(blocking(move || service.kill(&user, number)).await?);
        Ok(())
    }
}
