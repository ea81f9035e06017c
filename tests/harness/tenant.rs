//! Further organizations, and keys of every kind in them, also such as no procedure makes: expired ones.
//!
//! The statements are the ones that the server's own migrations and key scheme imply; a change of
//! either breaks these tests loudly.

use std::{path::Path, process::Command};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::hmac;

use crate::{Client, Purser, wait::random_hex};

const LONG_AGO: &str = "2026-01-01 00:00:00+00:00";
/// The first organization is the oldest one.
const LATER: &str = "2099-01-01 00:00:00+00:00";

/// What a key made by [`Purser::key_in`] may do, and whether it still may.
#[derive(Clone, Copy, Debug)]
pub enum Grant<'a> {
    /// A role: `admin`, `deployer`, `viewer`.
    Role(&'a str),
    /// Exactly these permissions.
    Permissions(&'a [&'a str]),
    /// An admin key whose time is over.
    Expired,
    /// An admin key that was taken back.
    Revoked,
}

impl Purser {
    /// Runs SQL in the control plane's database beside it, and gives the rows: one a line, columns
    /// parted by `|`.
    ///
    /// # Panics
    /// The database refused.
    pub fn sql(&self, statements: &str) -> String {
        match self.database() {
            Some(database) => run(Command::new("psql").args([
                "--no-psqlrc",
                "--quiet",
                "--no-align",
                "--tuples-only",
                "--set=ON_ERROR_STOP=1",
                database.url(),
                "--command",
                statements,
            ])),
            None => sqlite(&self.data_dir().join("purser.db"), statements),
        }
    }

    /// The id of the organization that the first start made.
    ///
    /// # Panics
    /// The database refused.
    pub fn default_organization(&self) -> String {
        self.sql("SELECT organization_id FROM organization WHERE name = 'default'")
    }

    /// A further organization; its id.
    ///
    /// # Panics
    /// The database refused.
    pub fn organization(&self, name: &str) -> String {
        let id = format!("org_{}", random_hex(16));
        self.sql(&format!(
            "INSERT INTO organization (organization_id, name, created_at, updated_at) \
             VALUES ('{id}', '{name}', '{LATER}', '{LATER}')"
        ));
        id
    }

    /// A client with a fresh key of an organization.
    ///
    /// # Panics
    /// The database refused.
    pub fn key_in(&self, organization: &str, grant: Grant<'_>) -> Client {
        let prefix = format!("purser_{}", random_hex(8));
        let key = format!("{prefix}_{}", BASE64_URL_SAFE_NO_PAD.encode(random_hex(16)));
        let hash = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, prefix.as_bytes()), key.as_bytes());
        let hash = BASE64_URL_SAFE_NO_PAD.encode(hash);
        let null = || "NULL".to_owned();
        let (role, permissions) = match grant {
            Grant::Role(role) => (format!("'{role}'"), null()),
            Grant::Permissions(list) => (null(), format!("'{}'", serde_json::json!(list))),
            Grant::Expired | Grant::Revoked => ("'admin'".to_owned(), null()),
        };
        let since = |ended: bool| if ended { format!("'{LONG_AGO}'") } else { null() };
        let (expires, revoked) =
            (since(matches!(grant, Grant::Expired)), since(matches!(grant, Grant::Revoked)));
        self.sql(&format!(
            "INSERT INTO api_key (api_key_id, organization_id, name, prefix, hash, role, permissions, \
             instance_admin, expires_at, revoked_at, created_at) VALUES ('key_{}', '{organization}', 'test', \
             '{prefix}', '{hash}', {role}, {permissions}, FALSE, {expires}, {revoked}, '{LONG_AGO}')",
            random_hex(16)
        ));
        self.anonymous().with_key(&key)
    }
}

/// SQL in a SQLite file, also while a server has it open.
///
/// # Panics
/// `sqlite3` refused.
pub fn sqlite(file: &Path, statements: &str) -> String {
    run(Command::new("sqlite3").args(["-batch", "-bail", "-cmd", ".timeout 10000"]).arg(file).arg(statements))
}

fn run(command: &mut Command) -> String {
    let ran = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).trim_end().to_owned()
}

/// SHA-256 of bytes, as hex: to see whether a file changed.
pub fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
