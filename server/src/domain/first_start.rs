//! What the first start makes: the organization `default`, an instance-admin key, and the key of the
//! agent channel.

use std::path::{Path, PathBuf};

use purser_proto_schema::{agent::noise::StaticKey, ids::OrganizationId};
use secrecy::{ExposeSecret, SecretString};

use super::caller::{generate_key, public_prefix};
use crate::{
    error::{Error, Result},
    secret_hash,
    store::{AdminKey, Store},
    vault::{Seat, Vault},
};

/// What the organization of the first start is called.
pub const DEFAULT_ORGANIZATION: &str = "default";
const CHANNEL_KEY: Seat<'static> = Seat { organization: "", row: "installation", field: "channel_key" };
const FROM_ENVIRONMENT: &str = "PURSER_ADMIN_API_KEY";
const GENERATED: &str = "admin-api-key";
/// Under which name the last run from this folder held sessions.
const REPLICA: &str = "replica";

/// The installation's first organization; made, as `default`, if there is none.
///
/// # Errors
/// [`Error::NotBegun`] or [`Error::Internal`] when the database is away.
pub async fn organization(store: &Store) -> Result<OrganizationId> {
    store.organization_first(DEFAULT_ORGANIZATION).await
}

/// Makes sure that an instance-admin key exists: the environment's, or one that is generated once
/// into `<data-dir>/admin-api-key`. Gives the file's path if one was generated now.
///
/// A key of the environment takes the place of an earlier one, and stays valid when the environment names
/// none any more, until it is removed. While it names one, each start makes that valid again.
///
/// # Errors
/// [`Error::Internal`] when the database or the file fails.
pub async fn admin_key(
    store: &Store,
    organization_id: OrganizationId,
    chosen: Option<&SecretString>,
    data_dir: &Path,
) -> Result<Option<PathBuf>> {
    if let Some(key) = chosen {
        store.api_key_keep_admin(row(organization_id, FROM_ENVIRONMENT, key)).await?;
        return Ok(None);
    }
    let path = data_dir.join(GENERATED);
    if store.api_key_has_admin().await? {
        return Ok(None);
    }
    let key = generate_key()?;
    // The file first: a crash between leaves a key that is not valid yet, and the next start makes
    // another, instead of a valid key that nobody has.
    let text = format!("{}\n", key.expose_secret());
    crate::private_file::write(&path, text.as_bytes())
        .map_err(Error::internal("writing the admin key file"))?;
    if store.api_key_first_admin(row(organization_id, GENERATED, &key)).await? {
        return Ok(Some(path));
    }
    // Another replica was quicker, and this key was never valid.
    std::fs::remove_file(&path).map_err(Error::internal("removing an admin key file that is not needed"))?;
    Ok(None)
}

fn row(organization_id: OrganizationId, name: &'static str, key: &SecretString) -> AdminKey {
    let prefix = public_prefix(key.expose_secret());
    let hash = secret_hash::of_key(&prefix, key.expose_secret());
    AdminKey { organization_id, name, prefix, hash }
}

/// The static key of the agent channel: one per installation, sealed in the database, the same for
/// every replica.
///
/// # Errors
/// [`Error::NotBegun`] or [`Error::Internal`] when the database is away, or the master key is not the one it was sealed with.
pub async fn channel_key(store: &Store, vault: &Vault) -> Result<StaticKey> {
    let sealed = match store.channel_key().await? {
        Some(sealed) => sealed,
        None => {
            let key =
                StaticKey::generate().map_err(Error::internal("making the key of the agent channel"))?;
            let sealed = vault
                .seal(CHANNEL_KEY, key.to_bytes().expose_secret())
                .map_err(Error::internal("sealing the key of the agent channel"))?;
            store.channel_key_keep(sealed).await?
        }
    };
    let bytes = vault.open(CHANNEL_KEY, &sealed).map_err(Error::internal(
        "opening the key of the agent channel (is this the master key that the database was made with?)",
    ))?;
    StaticKey::from_bytes(bytes.expose_secret())
        .ok_or("not 64 bytes")
        .map_err(Error::internal("reading the key of the agent channel"))
}

/// Under which name the run before this one held sessions, if there was one in this folder. It is over:
/// the folder is this process's own.
///
/// # Errors
/// [`Error::Internal`] when the file cannot be read.
pub fn replica_before(data_dir: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(data_dir.join(REPLICA)) {
        Ok(name) => Ok(Some(name.trim().to_owned()).filter(|name| !name.is_empty())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::internal("reading which run was before this one")(error)),
    }
}

/// Keeps the name of this run for the one after it.
///
/// # Errors
/// [`Error::Internal`] when the file cannot be written.
pub fn keep_replica(data_dir: &Path, name: &str) -> Result<()> {
    crate::private_file::write(&data_dir.join(REPLICA), name.as_bytes())
        .map_err(Error::internal("writing which run this is"))
}

/// Seals the key of the agent channel anew under the current master key.
///
/// # Errors
/// As [`channel_key`].
pub async fn reseal_channel_key(store: &Store, vault: &Vault) -> Result<bool> {
    let Some(sealed) = store.channel_key().await? else { return Ok(false) };
    let renewed =
        vault.renew(CHANNEL_KEY, &sealed).map_err(Error::internal("sealing the channel key anew"))?;
    match renewed {
        Some(renewed) => store.channel_key_reseal(renewed).await.map(|()| true),
        None => Ok(false),
    }
}
