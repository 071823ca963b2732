//! Generates `schema/src/generated/*_capnp.rs` from `schema/capnp/*.capnp`.
//!
//! The plugin that writes Rust is a library of the lock file, so its version is that of the repository; only the `capnp` program
//! comes from the machine (Debian: `apt-get install capnproto`). What it writes is committed: users need no `capnp`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// The version of `capnp` that wrote the committed files.
pub const COMPILER: &str = "0.9.2";

/// Generates into the source tree; says what it wrote.
///
/// # Errors
/// When `capnp` is missing or refuses a schema, or a file cannot be written.
pub fn write(root: &Path) -> Result<String, String> {
    let target = generated(root);
    let files = compile(root, &target)?;
    Ok(format!("wrote {} files in {}", files.len(), target.display()))
}

/// Generates into a scratch folder and compares with what is committed.
///
/// # Errors
/// When `capnp` is missing or refuses a schema, or when a committed file is not what its schema gives.
pub fn check(root: &Path) -> Result<String, String> {
    let scratch = env::temp_dir().join(format!("stoa-generated-{}", std::process::id()));
    let result = compile(root, &scratch).and_then(|files| compare(root, &scratch, &files));
    let _ = fs::remove_dir_all(&scratch);
    result
}

fn compare(root: &Path, scratch: &Path, files: &[String]) -> Result<String, String> {
    let version = compiler_version()?;
    let exact = version == COMPILER;
    let mut stale = Vec::new();
    for name in files {
        let fresh = read(&scratch.join(name))?;
        let committed = fs::read_to_string(generated(root).join(name)).unwrap_or_default();
        if if exact { fresh != committed } else { without_schema_words(&fresh) != without_schema_words(&committed) } {
            stale.push(name.as_str());
        }
    }
    let leftover = listing(&generated(root), "rs")?.into_iter().find(|name| !files.contains(name));
    if let Some(name) = leftover {
        return Err(format!("schema/src/generated/{name} has no schema in schema/capnp"));
    }
    if stale.is_empty() {
        Ok(format!("generated code is that of the schemas ({} files, capnp {version})", files.len()))
    } else {
        Err(format!("not what the schemas give: {}; run ci/generate.sh and commit schema/src/generated", stale.join(", ")))
    }
}

/// The generated code without the copy of the schema that `capnp` embeds: another version of `capnp` may lay that copy out anew.
fn without_schema_words(code: &str) -> String {
    code.lines()
        .filter(|line| !line.contains("::capnp::word(") && !line.contains("[::capnp::Word;"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn generated(root: &Path) -> PathBuf {
    root.join("schema/src/generated")
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn listing(folder: &Path, extension: &str) -> Result<Vec<String>, String> {
    let names = fs::read_dir(folder)
        .and_then(|entries| {
            entries.map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned())).collect::<io::Result<Vec<_>>>()
        })
        .map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut names: Vec<String> = names.into_iter().filter(|n| Path::new(n).extension().is_some_and(|e| e == extension)).collect();
    names.sort();
    Ok(names)
}

fn compiler_version() -> Result<String, String> {
    let output = Command::new("capnp")
        .arg("--version")
        .output()
        .map_err(|e| format!("the program capnp does not run ({e}); on Debian: apt-get install capnproto"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().last().unwrap_or("unknown").to_owned())
}

/// Compiles every schema into `target`; returns the names of the files there.
fn compile(root: &Path, target: &Path) -> Result<Vec<String>, String> {
    compiler_version()?;
    fs::create_dir_all(target).map_err(|e| format!("{}: {e}", target.display()))?;
    let folder = root.join("schema/capnp");
    let schemas = listing(&folder, "capnp")?;
    let mut command = capnpc::CompilerCommand::new();
    command.src_prefix(&folder).import_path(&folder).output_path(target);
    for name in &schemas {
        command.file(folder.join(name));
    }
    command.run().map_err(|e| format!("capnp: {e}"))?;
    Ok(schemas.iter().map(|name| name.replace(".capnp", "_capnp.rs")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_copy_of_another_compiler_is_no_difference() {
        let one = "fn a() {}\n  static X: [::capnp::Word; 2] = [\n    ::capnp::word(1, 2),\nfn b() {}";
        let two = "fn a() {}\n  static X: [::capnp::Word; 3] = [\n    ::capnp::word(3, 4),\n    ::capnp::word(3, 4),\nfn b() {}";
        assert_eq!(without_schema_words(one), without_schema_words(two));
        assert_ne!(without_schema_words(one), without_schema_words("fn a() {}\nfn c() {}"));
    }

    #[test]
    fn leftovers_and_stale_files_are_found() {
        let root = tempfile::tempdir().unwrap();
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir_all(generated(root.path())).unwrap();
        fs::write(scratch.path().join("a_capnp.rs"), "fresh").unwrap();
        fs::write(generated(root.path()).join("a_capnp.rs"), "stale").unwrap();
        if compiler_version().is_err() {
            return; // nothing to compare with on this machine
        }
        assert!(compare(root.path(), scratch.path(), &["a_capnp.rs".into()]).unwrap_err().contains("a_capnp.rs"));
        fs::write(generated(root.path()).join("a_capnp.rs"), "fresh").unwrap();
        assert!(compare(root.path(), scratch.path(), &["a_capnp.rs".into()]).is_ok());
        assert!(compare(root.path(), scratch.path(), &[]).unwrap_err().contains("no schema"));
    }
}
