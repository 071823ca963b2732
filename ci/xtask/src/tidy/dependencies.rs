//! Who may use whom: the layers of the workspace, checked in the crates' manifests.

use super::{Finding, Source};

/// A crate's folder and the crates of the workspace that it may use, without `stoa-`. ARCHITECTURE.md says what each is for.
const LAYERS: [(&str, &[&str]); 15] = [
    ("kernels", &[]),
    ("schema", &[]),
    ("columnstore", &["kernels", "schema"]),
    ("plan", &["schema"]),
    ("sql", &["plan"]),
    ("exec", &["kernels", "columnstore", "plan"]),
    ("rpc", &["schema"]),
    ("client", &["rpc"]),
    ("backup", &["columnstore"]),
    ("leaf", &["kernels", "schema", "columnstore", "plan", "exec", "rpc", "backup"]),
    ("coordinator", &["kernels", "schema", "columnstore", "plan", "sql", "exec", "rpc", "backup"]),
    ("datasets", &[]),
    ("cli", &["kernels", "schema", "columnstore", "plan", "sql", "exec", "rpc", "client", "leaf", "coordinator", "datasets"]),
    (
        "benches",
        &["kernels", "schema", "columnstore", "plan", "sql", "exec", "rpc", "client", "leaf", "coordinator", "datasets", "cli"],
    ),
    ("ci/xtask", &[]),
];

/// Crates of others that only some folders may use, by prefix of the name.
const RESERVED: [(&str, &[&str]); 6] = [
    ("tokio", &["rpc", "coordinator", "backup"]),
    ("capnp-rpc", &["rpc"]),
    ("datafusion-sql", &["sql"]),
    ("datafusion-optimizer", &["sql"]),
    ("rayon", &["columnstore", "exec", "leaf", "coordinator", "cli", "datasets", "benches"]),
    ("async-", &[]),
];

/// A manifest keeps to the table.
#[must_use]
pub fn table(source: Source<'_>) -> Vec<Finding> {
    let folder = source.path.trim_end_matches("Cargo.toml").trim_end_matches('/');
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == folder) else {
        let known = folder.is_empty();
        return if known { vec![] } else { vec![source.finding(0, "this crate has no row in the table of layers")] };
    };
    let mut findings = Vec::new();
    let mut section = "";
    for (number, line) in source.text.lines().enumerate() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
            continue;
        }
        let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
        if !section.ends_with("dependencies") || name.is_empty() || name.starts_with('#') {
            continue;
        }
        if let Some(problem) = forbidden(folder, allowed, name, section != "dev-dependencies") {
            findings.push(source.finding(number, problem));
        }
    }
    findings
}

/// Why a crate may not use another. Tests may use other crates of the workspace, so only `run_time` looks at those.
fn forbidden(folder: &str, allowed: &[&str], name: &str, run_time: bool) -> Option<String> {
    let own = if name == "stoa" { Some("cli") } else { name.strip_prefix("stoa-") };
    if let Some(own) = own {
        return (run_time && !allowed.contains(&own)).then(|| format!("{folder} may not use {name}"));
    }
    if folder == "kernels" && run_time {
        return Some(format!("kernels uses no other crate, not {name}"));
    }
    let reserved = RESERVED.iter().find(|(prefix, _)| name.starts_with(prefix));
    let (prefix, users) = reserved?;
    (!users.contains(&folder)).then(|| format!("{folder} may not use {name}: {prefix} is for {users:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> Vec<String> {
        table(Source { path, text }).into_iter().map(|finding| finding.problem).collect()
    }

    #[test]
    fn a_crate_may_use_what_is_below_it() {
        assert!(problems("exec/Cargo.toml", "[dependencies]\nstoa-plan = { workspace = true }\n").is_empty());
        assert_eq!(problems("plan/Cargo.toml", "[dependencies]\nstoa-sql.workspace = true\n"), ["plan may not use stoa-sql"]);
        assert_eq!(problems("exec/Cargo.toml", "[dependencies]\nstoa = { path = \"../cli\" }\n").len(), 1);
        assert!(problems("plan/Cargo.toml", "[dev-dependencies]\nstoa-sql = { workspace = true }\n").is_empty());
    }

    #[test]
    fn reserved_crates_stay_where_they_belong() {
        assert_eq!(problems("exec/Cargo.toml", "[dependencies]\ntokio = \"1\"\n").len(), 1);
        assert_eq!(problems("exec/Cargo.toml", "[dev-dependencies]\ntokio-util = \"1\"\n").len(), 1);
        assert_eq!(problems("exec/Cargo.toml", "[dependencies]\ndatafusion-sql = \"55\"\n").len(), 1);
        assert!(problems("sql/Cargo.toml", "[dependencies]\ndatafusion-sql = \"55\"\n").is_empty());
        assert_eq!(problems("kernels/Cargo.toml", "[dependencies]\nlibc = \"1\"\n").len(), 1);
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        assert_eq!(problems("helpful/Cargo.toml", "").len(), 1);
        assert!(problems("Cargo.toml", "[workspace.dependencies]\ntokio = \"1\"\n").is_empty());
    }
}
