//! Small disks, to be filled: a file system in memory that only those see who enter its mount namespace, and that ends with the test.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::nodes::not_tested;

/// A disk of a few MiB.
pub struct SmallDisk {
    /// Holds the namespace until its input ends.
    holder: Child,
    /// Where it is, for those who see it.
    path: PathBuf,
}

impl SmallDisk {
    /// A disk on a folder, which is made. `None` where file systems cannot be mounted.
    pub fn new(path: &Path, megabytes: u32) -> Option<SmallDisk> {
        fs::create_dir(path).unwrap();
        let script = format!("mount -t tmpfs -o size={megabytes}m tmpfs '{}' && echo mounted && exec cat", path.display());
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let missing = |why: &str| not_tested(&format!("a file system of its own needs root and unshare(1) here: {why}"));
        let mut holder = match command.spawn() {
            Ok(holder) => holder,
            Err(why) => return missing(&why.to_string()),
        };
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let disk = SmallDisk { holder, path: path.to_owned() };
        if said == "mounted\n" { Some(disk) } else { missing("mount") }
    }

    /// Where it is, for those who see it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What a command begins with to see it.
    pub fn enter(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), "--mount".to_owned(), format!("--target={}", self.holder.id())]
    }

    fn ballast(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.path.strip_prefix("/").unwrap()).join("ballast")
    }

    /// Leaves no room.
    pub fn fill(&self) {
        let mut file = File::create(self.ballast()).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    pub fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
