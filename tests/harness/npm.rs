//! The npm packages of `tests/clients`: the published tRPC clients and the TypeScript compiler.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
};

use crate::{source, tenant::digest};

/// Where the packages and the scripts that use them are.
pub fn folder() -> PathBuf {
    source::workspace().join("tests/clients")
}

/// Installs the packages that the lock file names, unless they are there; one test does it, the others wait.
///
/// # Panics
/// npm is missing, or cannot install them.
pub fn install() {
    let folder = folder();
    let lock_file = folder.join("package-lock.json");
    let turn = File::open(&lock_file).expect("there is a lock file");
    turn.lock().expect("the lock file can be locked");
    let wanted = digest(&fs::read(&lock_file).expect("the lock file can be read"));
    let stamp = folder.join("node_modules/.installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"]).current_dir(&folder);
    let npm = npm.output().expect("npm can be started");
    assert!(npm.status.success(), "npm ci: {}", String::from_utf8_lossy(&npm.stderr));
    fs::write(stamp, wanted).expect("node_modules can be written to");
}
