//! `stoa admin`: the administration of a cluster from the command line.

use std::io::IsTerminal;

use stoa_client::{AdminCommand as Call, Grant, Password, UserCommand};
use stoa_coordinator::Outcome;

use crate::args::{AdminArgs, AdminCommand, Scope};
use crate::connection::Connection;
use crate::{Error, Result, output, progress};

/// Runs the command.
///
/// # Errors
/// If no cluster is named or can be reached, or the command fails.
pub fn run(args: &AdminArgs) -> Result<()> {
    let nowhere = || Error::Invalid("which cluster? Say --connect HOST:PORT".into());
    if args.engine.connect.is_empty() {
        return Err(nowhere());
    }
    let Connection::Cluster(cluster) = Connection::open(&args.engine)? else { return Err(nowhere()) };
    if let AdminCommand::Recover { leaves, explain: false, yes } = &args.command {
        let planned = cluster.admin(&Call::ExplainRecover { leaves: leaves.clone() })?;
        print(args, &planned)?;
        if !yes && !agrees()? {
            return Err(Error::Invalid("nothing was done".into()));
        }
    }
    let outcome = progress::watch(|_| cluster.admin(&call(&args.command)))?;
    if let Outcome::Done(done) = &outcome {
        // Not among rows, which a program may read.
        eprintln!("{done}");
    }
    print(args, &outcome)
}

fn print(args: &AdminArgs, outcome: &Outcome) -> Result<()> {
    let (mut out, mut printer) = (std::io::stdout(), output::Printer::new(args.format));
    printer.outcome(&mut out, outcome)?;
    Ok(printer.finish(&mut out)?)
}

/// Whether somebody at a terminal wants it done.
fn agrees() -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::Invalid("nothing was done: say --yes if that is to be done".into()));
    }
    eprint!("Make this the catalog of the cluster? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn granted(privileges: &[String], on: &Scope, user: &str) -> Grant {
    let all = matches!(privileges, [all] if all.eq_ignore_ascii_case("ALL"));
    let (Scope { database, table }, user) = (on.clone(), user.to_owned());
    Grant { privileges: if all { vec![] } else { privileges.to_vec() }, database, table, user }
}

fn call(command: &AdminCommand) -> Call {
    match command {
        AdminCommand::CreateUser { name, identified_by, if_not_exists } => Call::User(UserCommand::Create {
            name: name.clone(),
            password: Password(identified_by.clone()),
            if_not_exists: *if_not_exists,
        }),
        AdminCommand::DropUser { name, if_exists } => Call::User(UserCommand::Drop { name: name.clone(), if_exists: *if_exists }),
        AdminCommand::SetPassword { name, identified_by } => {
            Call::User(UserCommand::SetPassword { name: name.clone(), password: Password(identified_by.clone()) })
        }
        AdminCommand::Grant { privileges, on, to } => Call::User(UserCommand::Grant(granted(privileges, on, to))),
        AdminCommand::Revoke { privileges, on, from } => Call::User(UserCommand::Revoke(granted(privileges, on, from))),
        AdminCommand::Users => Call::User(UserCommand::List),
        AdminCommand::Grants { of } => Call::User(UserCommand::Grants { user: of.clone().unwrap_or_default() }),
        AdminCommand::AddLeaf { address, group } => Call::AddLeaf { address: address.clone(), group: group.unwrap_or(0) },
        AdminCommand::RemoveLeaf { address, force } => Call::RemoveLeaf { address: address.clone(), force: *force },
        AdminCommand::AddCoordinator { address } => Call::AddCoordinator { address: address.clone() },
        AdminCommand::RemoveCoordinator { address } => Call::RemoveCoordinator { address: address.clone() },
        AdminCommand::CreateDatabase { name, if_not_exists, partitions, redundancy, asynchronous } => Call::CreateDatabase {
            name: name.clone(),
            if_not_exists: *if_not_exists,
            partitions: partitions.unwrap_or(0),
            redundancy: redundancy.unwrap_or(0),
            asynchronous: *asynchronous,
        },
        AdminCommand::DropDatabase { name, if_exists } => Call::DropDatabase { name: name.clone(), if_exists: *if_exists },
        AdminCommand::Kill { query } => Call::KillQuery { query: *query },
        AdminCommand::Leaves => Call::Leaves,
        AdminCommand::Coordinators => Call::Coordinators,
        AdminCommand::Databases => Call::Databases,
        AdminCommand::Partitions { of } => Call::Partitions { database: of.clone().unwrap_or_default() },
        AdminCommand::Status => Call::ClusterStatus,
        AdminCommand::Processes => Call::ProcessList,
        AdminCommand::DetachLeaf { address, force } => Call::DetachLeaf { address: address.clone(), force: *force },
        AdminCommand::AttachLeaf { address } => Call::AttachLeaf { address: address.clone().unwrap_or_default() },
        AdminCommand::Rebalance { of, full, explain: false } => {
            Call::Rebalance { database: of.clone().unwrap_or_default(), full: *full }
        }
        AdminCommand::Rebalance { of, full, explain: true } => {
            Call::ExplainRebalance { database: of.clone().unwrap_or_default(), full: *full }
        }
        AdminCommand::RestoreRedundancy { of, explain: false } => Call::RestoreRedundancy { database: of.clone() },
        AdminCommand::RestoreRedundancy { of, explain: true } => Call::ExplainRestoreRedundancy { database: of.clone() },
        AdminCommand::RebalanceStatus { of } => Call::RebalanceStatus { database: of.clone().unwrap_or_default() },
        AdminCommand::CancelRebalance { of } => Call::CancelRebalance { database: of.clone().unwrap_or_default() },
        AdminCommand::Backup { of, to, incremental } => {
            Call::Backup { database: of.clone(), to: to.clone(), incremental: *incremental }
        }
        AdminCommand::Restore { of, from, new_name } => {
            Call::Restore { database: of.clone(), new_name: new_name.clone().unwrap_or_default(), from: from.clone() }
        }
        AdminCommand::Recover { leaves, explain: false, .. } => Call::Recover { leaves: leaves.clone() },
        AdminCommand::Recover { leaves, explain: true, .. } => Call::ExplainRecover { leaves: leaves.clone() },
        AdminCommand::ClearOrphans { explain: false } => Call::ClearOrphans,
        AdminCommand::ClearOrphans { explain: true } => Call::ExplainClearOrphans,
    }
}
