//! The configuration file: defaults for the options of the command line.
//!
//! A key is the long name of an option. At the top it is for every command that has such an option, in a table `[leaf]` or
//! `[coordinator]` for that one. What stands on the command line or in the environment comes first.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Command};
use toml::{Table, Value};

use crate::{Error, Result};

/// The option that names the file; `STOA_CONFIG` does too.
const OPTION: &str = "--config";

/// The file that the arguments or the environment name.
#[must_use]
pub fn named(arguments: &[OsString]) -> Option<PathBuf> {
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy();
        if text == OPTION {
            return rest.next().map(PathBuf::from);
        }
        if let Some(path) = text.strip_prefix("--config=") {
            return Some(path.into());
        }
    }
    std::env::var_os("STOA_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The command line with the defaults of a file.
///
/// # Errors
/// If the file cannot be read, is no TOML, or has a key that is no option, with its line and the nearest option.
pub fn apply(command: Command, path: &Path) -> Result<Command> {
    let text = std::fs::read_to_string(path).map_err(Error::file(path))?;
    let table: Table = text.parse().map_err(|e: toml::de::Error| invalid(path, e.to_string().trim_end()))?;
    let mut command = command;
    for (key, value) in &table {
        let place = |key: &str| match text.lines().position(|line| line.trim_start_matches(['[', ' ', '"']).starts_with(key)) {
            Some(line) => format!("line {}", line + 1),
            None => "somewhere".to_owned(),
        };
        if let Value::Table(options) = value {
            let Some(one) = command.find_subcommand(key).cloned() else {
                let commands: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
                let known = commands.join(", ");
                return Err(invalid(path, format!("{}: there is no command '{key}': there are {known}", place(key))));
            };
            let mut changed = one;
            for (key, value) in options {
                let (with, found) = set(changed, key, value).map_err(|why| invalid(path, format!("{}: {why}", place(key))))?;
                if !found {
                    return Err(invalid(path, format!("{}: {}", place(key), unknown(&with, key))));
                }
                changed = with;
            }
            command = command.mut_subcommand(key, |_| changed);
            continue;
        }
        let (with, found) = set(command, key, value).map_err(|why| invalid(path, format!("{}: {why}", place(key))))?;
        if !found {
            return Err(invalid(path, format!("{}: {}", place(key), unknown(&with, key))));
        }
        command = with;
    }
    Ok(command)
}

fn invalid(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::Invalid(format!("{}: {why}", path.display()))
}

/// Sets the default of an option in a command and in all below it; whether any has it.
fn set(command: Command, key: &str, value: &Value) -> std::result::Result<(Command, bool), String> {
    let values = texts(value).ok_or_else(|| format!("'{key}' takes a text, a number, true or false, or a list of those"))?;
    let id = command.get_arguments().find(|arg| arg.get_long() == Some(key)).map(|arg| arg.get_id().clone());
    let mut found = id.is_some();
    let mut command = command;
    if let Some(id) = id {
        command = command.mut_arg(id, |arg| {
            // What stands in the file need not be said.
            let arg = arg.required(false);
            match arg.get_action() {
                ArgAction::SetTrue if values == ["false"] => arg,
                _ => arg.default_values(values.iter().map(|text| &*text.clone().leak()).collect::<Vec<&'static str>>()),
            }
        });
    }
    let below: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    for name in below {
        let Some(one) = command.find_subcommand(&name).cloned() else { continue };
        let (with, there) = set(one, key, value)?;
        found |= there;
        command = command.mut_subcommand(name, |_| with);
    }
    Ok((command, found))
}

/// The value as the command line would have it.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Integer(number) => Some(vec![number.to_string()]),
        Value::Float(number) => Some(vec![number.to_string()]),
        Value::Boolean(set) => Some(vec![set.to_string()]),
        Value::Array(values) => values.iter().map(|v| texts(v).filter(|t| t.len() == 1).map(|mut t| t.remove(0))).collect(),
        Value::Datetime(_) | Value::Table(_) => None,
    }
}

fn unknown(command: &Command, key: &str) -> String {
    fn options(command: &Command, all: &mut Vec<String>) {
        all.extend(command.get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned));
        command.get_subcommands().for_each(|below| options(below, all));
    }
    let mut all = Vec::new();
    options(command, &mut all);
    let near = all.iter().max_by(|a, b| strsim::jaro(a, key).total_cmp(&strsim::jaro(b, key)));
    match near {
        Some(near) if strsim::jaro(near, key) > 0.75 => format!("there is no option '{key}': did you mean '{near}'?"),
        _ => format!("there is no option '{key}': --help lists them"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::args::{Cli, Command as Chosen};

    fn parse(file: &str, arguments: &[&str]) -> Result<Cli> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("stoa.toml");
        std::fs::write(&path, file)?;
        let arguments = arguments.iter().map(OsString::from).collect();
        Cli::read(apply(Cli::command(), &path)?, arguments).map_err(|e| Error::Invalid(e.to_string()))
    }

    #[test]
    fn a_file_gives_what_nobody_said() {
        let file = "connect = [\"a:1\", \"b:2\"]\nuser = \"ada\"\nqueries = 7\n[leaf]\ndata = \"/d\"\nmemory-limit = \"2GiB\"\ninsecure = true\n";
        let Chosen::Sql(sql) = parse(file, &["stoa", "sql", "--user", "bob"]).unwrap().command else { panic!() };
        assert_eq!((sql.engine.connect, sql.engine.user.as_str()), (vec!["a:1".to_owned(), "b:2".to_owned()], "bob"));
        let Chosen::Leaf(leaf) = parse(file, &["stoa", "leaf", "--queries", "9"]).unwrap().command else { panic!() };
        assert_eq!((leaf.node.queries, leaf.node.memory_limit, leaf.node.insecure), (9, Some(2 << 30), true));
        assert_eq!(leaf.node.data, Path::new("/d"));
        let Chosen::Coordinator(coordinator) = parse(file, &["stoa", "coordinator", "--data", "x"]).unwrap().command else {
            panic!()
        };
        assert_eq!((coordinator.node.queries, coordinator.node.insecure), (7, false));
    }

    #[test]
    fn a_wrong_file_says_where() {
        for (file, what) in [
            ("user = \"a\"\nmemry-limit = 1\n", "line 2: there is no option 'memry-limit': did you mean 'memory-limit'?"),
            ("[leef]\nqueries = 1\n", "line 1: there is no command 'leef'"),
            ("[leaf]\nbootstrap = true\n", "line 2: there is no option 'bootstrap'"),
            ("queries = 1979-05-27\n", "line 1: 'queries' takes a text"),
            ("queries = \n", "stoa.toml"),
        ] {
            let error = parse(file, &["stoa", "leaf", "--data", "x"]).unwrap_err().to_string();
            assert!(error.contains(what), "{file}: {error}");
        }
        assert!(parse("queries = \"many\"\n", &["stoa", "leaf", "--data", "x"]).unwrap_err().to_string().contains("many"));
    }

    #[test]
    fn the_file_is_named_by_an_option() {
        let arguments = |all: &[&str]| all.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(named(&arguments(&["stoa", "sql", "--config", "a"])), Some("a".into()));
        assert_eq!(named(&arguments(&["stoa", "--config=b", "sql"])), Some("b".into()));
    }
}
