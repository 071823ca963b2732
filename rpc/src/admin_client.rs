//! The administration of a cluster elsewhere.

use stoa_schema::admin_capnp::{admin, listing, said};

use crate::admin::{AdminCommand, AdminReply, UserCommand};
use crate::{Failure, Result};

/// The answer to a call: its method, its parameters, and one that is a list. `read` reads it.
macro_rules! answer {
    ($read:ident, $admin:ident, $request:ident $(, $set:ident ($value:expr))* $(; $fill:ident ($list:expr))?) => {{
        #[allow(unused_mut, reason = "not every command has something to set")]
        let mut request = $admin.$request();
        $(request.get().$set($value);)*
        $(request.get().$fill($list)?;)?
        $read(request.send().promise.await?.get()?.get_result()?)
    }};
}
macro_rules! say {
    ($($call:tt)*) => { answer!(read_said, $($call)*) };
}
macro_rules! list {
    ($($call:tt)*) => { answer!(read_listing, $($call)*) };
}

/// Makes the call of a command.
pub(crate) async fn call(admin: admin::Client, command: AdminCommand) -> Result<AdminReply> {
    match command {
        AdminCommand::AddLeaf { address, group } => say!(admin, add_leaf_request, set_address(&address), set_group(group)),
        AdminCommand::RemoveLeaf { address, force } => say!(admin, remove_leaf_request, set_address(&address), set_force(force)),
        AdminCommand::AddCoordinator { address } => say!(admin, add_coordinator_request, set_address(&address)),
        AdminCommand::RemoveCoordinator { address } => say!(admin, remove_coordinator_request, set_address(&address)),
        AdminCommand::CreateDatabase { name, if_not_exists, partitions, redundancy, asynchronous } => say!(
            admin,
            create_database_request,
            set_name(&name),
            set_if_not_exists(if_not_exists),
            set_partitions(partitions),
            set_redundancy(redundancy),
            set_async(asynchronous)
        ),
        AdminCommand::DropDatabase { name, if_exists } => {
            say!(admin, drop_database_request, set_name(&name), set_if_exists(if_exists))
        }
        AdminCommand::KillQuery { query } => say!(admin, kill_query_request, set_query(query)),
        AdminCommand::Leaves => list!(admin, leaves_request),
        AdminCommand::Coordinators => list!(admin, coordinators_request),
        AdminCommand::Databases => list!(admin, databases_request),
        AdminCommand::Partitions { database } => list!(admin, partitions_request, set_database(&database)),
        AdminCommand::ClusterStatus => list!(admin, cluster_status_request),
        AdminCommand::ProcessList => list!(admin, process_list_request),
        AdminCommand::DetachLeaf { address, force } => say!(admin, detach_leaf_request, set_address(&address), set_force(force)),
        AdminCommand::AttachLeaf { address } => say!(admin, attach_leaf_request, set_address(&address)),
        AdminCommand::Rebalance { database, full } => say!(admin, rebalance_request, set_database(&database), set_full(full)),
        AdminCommand::RestoreRedundancy { database } => say!(admin, restore_redundancy_request, set_database(&database)),
        AdminCommand::CancelRebalance { database } => say!(admin, cancel_rebalance_request, set_database(&database)),
        AdminCommand::ClearOrphans => list!(admin, clear_orphans_request),
        AdminCommand::ExplainRebalance { database, full } => {
            list!(admin, explain_rebalance_request, set_database(&database), set_full(full))
        }
        AdminCommand::ExplainRestoreRedundancy { database } => {
            list!(admin, explain_restore_redundancy_request, set_database(&database))
        }
        AdminCommand::ExplainClearOrphans => list!(admin, explain_clear_orphans_request),
        AdminCommand::Backup { database, to, incremental } => {
            say!(admin, backup_request, set_database(&database), set_to(&to), set_incremental(incremental))
        }
        AdminCommand::Restore { database, new_name, from } => {
            say!(admin, restore_request, set_database(&database), set_new_name(&new_name), set_from(&from))
        }
        AdminCommand::Recover { leaves } => say!(admin, recover_request; set_leaves(&leaves[..])),
        AdminCommand::ExplainRecover { leaves } => list!(admin, explain_recover_request; set_leaves(&leaves[..])),
        AdminCommand::User(command) => user_call(admin, command).await,
        AdminCommand::RebalanceStatus { database } => list!(admin, rebalance_status_request, set_database(&database)),
    }
}

async fn user_call(admin: admin::Client, command: UserCommand) -> Result<AdminReply> {
    match command {
        UserCommand::Create { name, password, if_not_exists } => {
            say!(admin, create_user_request, set_name(&name), set_password(&password.0), set_if_not_exists(if_not_exists))
        }
        UserCommand::Drop { name, if_exists } => say!(admin, drop_user_request, set_name(&name), set_if_exists(if_exists)),
        UserCommand::SetPassword { name, password } => {
            say!(admin, set_password_request, set_name(&name), set_password(&password.0))
        }
        UserCommand::Grant(grant) => say!(
            admin,
            grant_request,
            set_database(&grant.database),
            set_table(&grant.table),
            set_user(&grant.user);
            set_privileges(&grant.privileges[..])
        ),
        UserCommand::Revoke(grant) => say!(
            admin,
            revoke_request,
            set_database(&grant.database),
            set_table(&grant.table),
            set_user(&grant.user);
            set_privileges(&grant.privileges[..])
        ),
        UserCommand::List => list!(admin, users_request),
        UserCommand::Grants { user } => list!(admin, grants_request, set_user(&user)),
    }
}

fn read_said(from: said::Reader<'_>) -> Result<AdminReply> {
    match from.which().map_err(capnp::Error::from)? {
        said::Text(text) => Ok(AdminReply::Said(text?.to_string().map_err(capnp::Error::from)?)),
        said::Failure(failure) => Err(Failure::read(failure?)?),
    }
}

fn read_listing(from: listing::Reader<'_>) -> Result<AdminReply> {
    match from.which().map_err(capnp::Error::from)? {
        listing::Rows(rows) => Ok(AdminReply::Listing(rows?.to_vec())),
        listing::Failure(failure) => Err(Failure::read(failure?)?),
    }
}
