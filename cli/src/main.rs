//! Entry point: parses the command line, runs the command, turns its outcome into an exit code.

use std::process::ExitCode;

use clap::CommandFactory;
use stoa::args::{Cli, Command};
use stoa::{commands, config, environment};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// 0: done; 1: failed, the reason is on standard error; 2: wrong usage (by clap).
fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let command = || match config::named(&arguments) {
        Some(path) => config::apply(Cli::command(), &path),
        None => Ok(Cli::command()),
    };
    let command = match environment::check(|name| std::env::var_os(name)).and_then(|()| command()) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let cli = Cli::read(command, arguments).unwrap_or_else(|error| error.exit());
    let outcome = match &cli.command {
        Command::Sql(args) => commands::sql::run(args),
        Command::Load(args) => commands::load::run(args),
        Command::Tpch(args) => commands::tpch::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Check(args) => commands::check::run(args),
        Command::Leaf(args) => commands::node::leaf(args),
        Command::Coordinator(args) => commands::node::coordinator(args),
        Command::Admin(args) => commands::admin::run(args),
        Command::Cluster(command) => commands::cluster::run(command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(stoa::Error::Output(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
