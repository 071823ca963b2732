//! `cargo run -p xtask -- generate [--check]`.

use std::process::ExitCode;

const USAGE: &str = "usage: cargo run -p xtask -- generate [--check]
  generate           writes schema/src/generated/ from schema/capnp/
  generate --check   fails if what is committed there differs";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        ["generate"] => xtask::generate::write(&xtask::repository()),
        ["generate", "--check"] => xtask::generate::check(&xtask::repository()),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(message) => {
            println!("{message}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
