//! The administration of a cluster for those on the other side of a connection.

use std::sync::Arc;

use capnp::capability::Rc;
use stoa_schema::admin_capnp::{admin, listing, said};

use crate::admin::{AdminCommand, AdminReply};
use crate::io::blocking;
use crate::peer_server::Guard;
use crate::session::{Cancelled, SessionService};
use crate::{Failure, FailureKind, Result};

pub(crate) struct AdminServer(pub Arc<dyn SessionService>);

impl AdminServer {
    /// Runs a command; if the caller goes away, it is cancelled.
    async fn run(&self, command: AdminCommand) -> Result<AdminReply> {
        let (session, cancelled) = (self.0.clone(), Cancelled::default());
        let _guard = Guard(cancelled.clone());
        blocking(move || session.admin(&command, &cancelled)).await
    }

    async fn say(&self, command: AdminCommand, to: said::Builder<'_>) {
        let mut to = to;
        match self.run(command).await {
            Ok(AdminReply::Said(text)) => to.set_text(&text),
            Ok(AdminReply::Listing(_)) => misplaced().write(to.init_failure()),
            Err(failure) => failure.write(to.init_failure()),
        }
    }

    async fn list(&self, command: AdminCommand, to: listing::Builder<'_>) {
        let mut to = to;
        match self.run(command).await {
            Ok(AdminReply::Listing(rows)) => to.set_rows(&rows),
            Ok(AdminReply::Said(_)) => misplaced().write(to.init_failure()),
            Err(failure) => failure.write(to.init_failure()),
        }
    }
}

fn misplaced() -> Failure {
    Failure::new(FailureKind::Fatal, "the command answered with something else")
}

impl admin::Server for AdminServer {
    async fn add_leaf(self: Rc<Self>, params: admin::AddLeafParams, mut results: admin::AddLeafResults) -> capnp::Result<()> {
        let from = params.get()?;
        let command = AdminCommand::AddLeaf { address: from.get_address()?.to_string()?, group: from.get_group() };
        self.say(command, results.get().init_result()).await;
        Ok(())
    }

    async fn remove_leaf(
        self: Rc<Self>,
        params: admin::RemoveLeafParams,
        mut results: admin::RemoveLeafResults,
    ) -> capnp::Result<()> {
        let from = params.get()?;
        let command = AdminCommand::RemoveLeaf { address: from.get_address()?.to_string()?, force: from.get_force() };
        self.say(command, results.get().init_result()).await;
        Ok(())
    }

    async fn add_coordinator(
        self: Rc<Self>,
        params: admin::AddCoordinatorParams,
        mut results: admin::AddCoordinatorResults,
    ) -> capnp::Result<()> {
        let from = params.get()?;
        let command = AdminCommand::AddCoordinator { address: from.get_address()?.to_string()? };
        self.say(command, results.get().init_result()).await;
        Ok(())
    }

    async fn remove_coordinator(
        self: Rc<Self>,
        params: admin::RemoveCoordinatorParams,
        mut results: admin::RemoveCoordinatorResults,
    ) -> capnp::Result<()> {
        let from = params.get()?;
        let command = AdminCommand::RemoveCoordinator { address: from.get_address()?.to_string()? };
        self.say(command, results.get().init_result()).await;
        Ok(())
    }

    async fn create_database(
        self: Rc<Self>,
        params: admin::CreateDatabaseParams,
        mut results: admin::CreateDatabaseResults,
    ) -> capnp::Result<()> {
        let from = params.get()?;
        let command = AdminCommand::CreateDatabase {
            name: from.get_name()?.to_string()?,
            if_not_exists: from.get_if_not_exists(),
            partitions: from.get_partitions(),
            redundancy: from.get_redundancy(),
        };
        self.say(command, results.get().init_result()).await;
        Ok(())
    }

    async fn drop_database(
        self: Rc<Self>,
        params: admin::DropDatabaseParams,
        mut results: admin::DropDatabaseResults,
    ) -> capnp::Result<()> {
        let from = params.get()?;
        let command = AdminCommand::DropDatabase { name: from.get_name()?.to_string()?, if_exists: from.get_if_exists() };
        self.say(command, results.get().init_result()).await;
        Ok(())
    }

    async fn kill_query(
        self: Rc<Self>,
        params: admin::KillQueryParams,
        mut results: admin::KillQueryResults,
    ) -> capnp::Result<()> {
        let from = params.get()?;
        let command = AdminCommand::KillQuery { query: from.get_query() };
        self.say(command, results.get().init_result()).await;
        Ok(())
    }

    async fn leaves(self: Rc<Self>, _: admin::LeavesParams, mut results: admin::LeavesResults) -> capnp::Result<()> {
        let command = AdminCommand::Leaves;
        self.list(command, results.get().init_result()).await;
        Ok(())
    }

    async fn coordinators(
        self: Rc<Self>,
        _: admin::CoordinatorsParams,
        mut results: admin::CoordinatorsResults,
    ) -> capnp::Result<()> {
        let command = AdminCommand::Coordinators;
        self.list(command, results.get().init_result()).await;
        Ok(())
    }

    async fn databases(self: Rc<Self>, _: admin::DatabasesParams, mut results: admin::DatabasesResults) -> capnp::Result<()> {
        let command = AdminCommand::Databases;
        self.list(command, results.get().init_result()).await;
        Ok(())
    }

    async fn partitions(
        self: Rc<Self>,
        params: admin::PartitionsParams,
        mut results: admin::PartitionsResults,
    ) -> capnp::Result<()> {
        let from = params.get()?;
        let command = AdminCommand::Partitions { database: from.get_database()?.to_string()? };
        self.list(command, results.get().init_result()).await;
        Ok(())
    }

    async fn cluster_status(
        self: Rc<Self>,
        _: admin::ClusterStatusParams,
        mut results: admin::ClusterStatusResults,
    ) -> capnp::Result<()> {
        let command = AdminCommand::ClusterStatus;
        self.list(command, results.get().init_result()).await;
        Ok(())
    }

    async fn process_list(
        self: Rc<Self>,
        _: admin::ProcessListParams,
        mut results: admin::ProcessListResults,
    ) -> capnp::Result<()> {
        let command = AdminCommand::ProcessList;
        self.list(command, results.get().init_result()).await;
        Ok(())
    }
}
