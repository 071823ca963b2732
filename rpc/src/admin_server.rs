//! The administration of a cluster for those on the other side of a connection.

use std::sync::Arc;

use capnp::capability::Rc;
use stoa_schema::admin_capnp::{admin, listing, said};

use crate::admin::{AdminCommand, AdminReply, Grant, Password, UserCommand};
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

fn texts(from: capnp::text_list::Reader<'_>) -> capnp::Result<Vec<String>> {
    from.iter().map(|text| Ok(text?.to_string()?)).collect()
}

/// What a user gets or loses, of the parameters of either.
macro_rules! granted {
    ($from:ident) => {
        Grant {
            privileges: texts($from.get_privileges()?)?,
            database: $from.get_database()?.to_string()?,
            table: $from.get_table()?.to_string()?,
            user: $from.get_user()?.to_string()?,
        }
    };
}

/// A method of the interface: how it answers, and the command of its parameters.
macro_rules! method {
    ($how:ident $name:ident($from:ident: $Params:ident, $Results:ident) $command:expr) => {
        async fn $name(self: Rc<Self>, params: admin::$Params, mut results: admin::$Results) -> capnp::Result<()> {
            let $from = params.get()?;
            let command = $command;
            self.$how(command, results.get().init_result()).await;
            Ok(())
        }
    };
    ($how:ident $name:ident($Params:ident, $Results:ident) $command:expr) => {
        async fn $name(self: Rc<Self>, _: admin::$Params, mut results: admin::$Results) -> capnp::Result<()> {
            self.$how($command, results.get().init_result()).await;
            Ok(())
        }
    };
}

impl admin::Server for AdminServer {
    method!(say add_leaf(from: AddLeafParams, AddLeafResults)
        AdminCommand::AddLeaf { address: from.get_address()?.to_string()?, group: from.get_group() });
    method!(say remove_leaf(from: RemoveLeafParams, RemoveLeafResults)
        AdminCommand::RemoveLeaf { address: from.get_address()?.to_string()?, force: from.get_force() });
    method!(say add_coordinator(from: AddCoordinatorParams, AddCoordinatorResults)
        AdminCommand::AddCoordinator { address: from.get_address()?.to_string()? });
    method!(say remove_coordinator(from: RemoveCoordinatorParams, RemoveCoordinatorResults)
        AdminCommand::RemoveCoordinator { address: from.get_address()?.to_string()? });
    method!(say create_database(from: CreateDatabaseParams, CreateDatabaseResults) AdminCommand::CreateDatabase {
        name: from.get_name()?.to_string()?,
        if_not_exists: from.get_if_not_exists(),
        partitions: from.get_partitions(),
        redundancy: from.get_redundancy(),
        asynchronous: from.get_async(),
    });
    method!(say drop_database(from: DropDatabaseParams, DropDatabaseResults)
        AdminCommand::DropDatabase { name: from.get_name()?.to_string()?, if_exists: from.get_if_exists() });
    method!(say kill_query(from: KillQueryParams, KillQueryResults) AdminCommand::KillQuery { query: from.get_query() });
    method!(list leaves(LeavesParams, LeavesResults) AdminCommand::Leaves);
    method!(list coordinators(CoordinatorsParams, CoordinatorsResults) AdminCommand::Coordinators);
    method!(list databases(DatabasesParams, DatabasesResults) AdminCommand::Databases);
    method!(list partitions(from: PartitionsParams, PartitionsResults)
        AdminCommand::Partitions { database: from.get_database()?.to_string()? });
    method!(list cluster_status(ClusterStatusParams, ClusterStatusResults) AdminCommand::ClusterStatus);
    method!(list process_list(ProcessListParams, ProcessListResults) AdminCommand::ProcessList);
    method!(say detach_leaf(from: DetachLeafParams, DetachLeafResults)
        AdminCommand::DetachLeaf { address: from.get_address()?.to_string()?, force: from.get_force() });
    method!(say attach_leaf(from: AttachLeafParams, AttachLeafResults)
        AdminCommand::AttachLeaf { address: from.get_address()?.to_string()? });
    method!(say rebalance(from: RebalanceParams, RebalanceResults)
        AdminCommand::Rebalance { database: from.get_database()?.to_string()?, full: from.get_full() });
    method!(say restore_redundancy(from: RestoreRedundancyParams, RestoreRedundancyResults)
        AdminCommand::RestoreRedundancy { database: from.get_database()?.to_string()? });
    method!(say cancel_rebalance(from: CancelRebalanceParams, CancelRebalanceResults)
        AdminCommand::CancelRebalance { database: from.get_database()?.to_string()? });
    method!(list clear_orphans(ClearOrphansParams, ClearOrphansResults) AdminCommand::ClearOrphans);
    method!(list explain_rebalance(from: ExplainRebalanceParams, ExplainRebalanceResults)
        AdminCommand::ExplainRebalance { database: from.get_database()?.to_string()?, full: from.get_full() });
    method!(list explain_restore_redundancy(from: ExplainRestoreRedundancyParams, ExplainRestoreRedundancyResults)
        AdminCommand::ExplainRestoreRedundancy { database: from.get_database()?.to_string()? });
    method!(list explain_clear_orphans(ExplainClearOrphansParams, ExplainClearOrphansResults) AdminCommand::ExplainClearOrphans);
    method!(say backup(from: BackupParams, BackupResults) AdminCommand::Backup {
        database: from.get_database()?.to_string()?,
        to: from.get_to()?.to_string()?,
        incremental: from.get_incremental(),
    });
    method!(say restore(from: RestoreParams, RestoreResults) AdminCommand::Restore {
        database: from.get_database()?.to_string()?,
        new_name: from.get_new_name()?.to_string()?,
        from: from.get_from()?.to_string()?,
    });
    method!(say recover(from: RecoverParams, RecoverResults) AdminCommand::Recover { leaves: texts(from.get_leaves()?)? });
    method!(list explain_recover(from: ExplainRecoverParams, ExplainRecoverResults)
        AdminCommand::ExplainRecover { leaves: texts(from.get_leaves()?)? });
    method!(say create_user(from: CreateUserParams, CreateUserResults) AdminCommand::User(UserCommand::Create {
        name: from.get_name()?.to_string()?,
        password: Password(from.get_password()?.to_string()?),
        if_not_exists: from.get_if_not_exists(),
    }));
    method!(say drop_user(from: DropUserParams, DropUserResults)
        AdminCommand::User(UserCommand::Drop { name: from.get_name()?.to_string()?, if_exists: from.get_if_exists() }));
    method!(say set_password(from: SetPasswordParams, SetPasswordResults) AdminCommand::User(UserCommand::SetPassword {
        name: from.get_name()?.to_string()?,
        password: Password(from.get_password()?.to_string()?),
    }));
    method!(say grant(from: GrantParams, GrantResults) AdminCommand::User(UserCommand::Grant(granted!(from))));
    method!(say revoke(from: RevokeParams, RevokeResults) AdminCommand::User(UserCommand::Revoke(granted!(from))));
    method!(list users(UsersParams, UsersResults) AdminCommand::User(UserCommand::List));
    method!(list grants(from: GrantsParams, GrantsResults) AdminCommand::User(UserCommand::Grants { user: from.get_user()?.to_string()? }));
    method!(list rebalance_status(from: RebalanceStatusParams, RebalanceStatusResults)
        AdminCommand::RebalanceStatus { database: from.get_database()?.to_string()? });
}
