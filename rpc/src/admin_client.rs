//! The administration of a cluster elsewhere.

use stoa_schema::admin_capnp::{admin, listing, said};

use crate::admin::{AdminCommand, AdminReply};
use crate::{Failure, Result};

/// Makes the call of a command.
pub(crate) async fn call(admin: admin::Client, command: AdminCommand) -> Result<AdminReply> {
    macro_rules! say {
        ($request:ident $(, $set:ident ($value:expr))*) => {{
            #[allow(unused_mut, reason = "not every command has something to set")]
            let mut request = admin.$request();
            $(request.get().$set($value);)*
            read_said(request.send().promise.await?.get()?.get_result()?)
        }};
    }
    macro_rules! list {
        ($request:ident $(, $set:ident ($value:expr))*) => {{
            #[allow(unused_mut, reason = "not every command has something to set")]
            let mut request = admin.$request();
            $(request.get().$set($value);)*
            read_listing(request.send().promise.await?.get()?.get_result()?)
        }};
    }
    match command {
        AdminCommand::AddLeaf { address, group } => say!(add_leaf_request, set_address(&address), set_group(group)),
        AdminCommand::RemoveLeaf { address, force } => say!(remove_leaf_request, set_address(&address), set_force(force)),
        AdminCommand::AddCoordinator { address } => say!(add_coordinator_request, set_address(&address)),
        AdminCommand::RemoveCoordinator { address } => say!(remove_coordinator_request, set_address(&address)),
        AdminCommand::CreateDatabase { name, if_not_exists, partitions, redundancy, asynchronous } => say!(
            create_database_request,
            set_name(&name),
            set_if_not_exists(if_not_exists),
            set_partitions(partitions),
            set_redundancy(redundancy),
            set_async(asynchronous)
        ),
        AdminCommand::DropDatabase { name, if_exists } => say!(drop_database_request, set_name(&name), set_if_exists(if_exists)),
        AdminCommand::KillQuery { query } => say!(kill_query_request, set_query(query)),
        AdminCommand::Leaves => list!(leaves_request),
        AdminCommand::Coordinators => list!(coordinators_request),
        AdminCommand::Databases => list!(databases_request),
        AdminCommand::Partitions { database } => list!(partitions_request, set_database(&database)),
        AdminCommand::ClusterStatus => list!(cluster_status_request),
        AdminCommand::ProcessList => list!(process_list_request),
        AdminCommand::DetachLeaf { address, force } => say!(detach_leaf_request, set_address(&address), set_force(force)),
        AdminCommand::AttachLeaf { address } => say!(attach_leaf_request, set_address(&address)),
        AdminCommand::Rebalance { database } => say!(rebalance_request, set_database(&database)),
        AdminCommand::RestoreRedundancy { database } => say!(restore_redundancy_request, set_database(&database)),
        AdminCommand::CancelRebalance { database } => say!(cancel_rebalance_request, set_database(&database)),
        AdminCommand::ClearOrphans => list!(clear_orphans_request),
        AdminCommand::ExplainRebalance { database } => list!(explain_rebalance_request, set_database(&database)),
        AdminCommand::ExplainRestoreRedundancy { database } => {
            list!(explain_restore_redundancy_request, set_database(&database))
        }
        AdminCommand::ExplainClearOrphans => list!(explain_clear_orphans_request),
        AdminCommand::Backup { database, to, incremental } => {
            say!(backup_request, set_database(&database), set_to(&to), set_incremental(incremental))
        }
        AdminCommand::Restore { database, new_name, from } => {
            say!(restore_request, set_database(&database), set_new_name(&new_name), set_from(&from))
        }
        AdminCommand::Recover { leaves } => {
            let mut request = admin.recover_request();
            let mut list = request.get().init_leaves(leaves.len() as u32);
            (0u32..).zip(&leaves).for_each(|(i, leaf)| list.set(i, leaf));
            read_said(request.send().promise.await?.get()?.get_result()?)
        }
        AdminCommand::ExplainRecover { leaves } => {
            let mut request = admin.explain_recover_request();
            let mut list = request.get().init_leaves(leaves.len() as u32);
            (0u32..).zip(&leaves).for_each(|(i, leaf)| list.set(i, leaf));
            read_listing(request.send().promise.await?.get()?.get_result()?)
        }
        AdminCommand::RebalanceStatus { database } => list!(rebalance_status_request, set_database(&database)),
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
