//! `purser-server reencrypt`: seals every stored secret anew under the first key of the ring.

use super::first_start;
use crate::{
    dispatch::plan,
    error::{Error, Result},
    store::Store,
    vault::{Seat, Vault},
};

/// Seals everything anew that is not under the current key. Safe to repeat, and while servers run.
/// Gives how many secrets changed.
///
/// # Errors
/// [`Error::Internal`] at the first secret that no key of the ring opens; what came before stays done.
pub async fn everything(store: &Store, vault: &Vault) -> Result<usize> {
    let mut changed = usize::from(first_start::reseal_channel_key(store, vault).await?);
    for row in store.registry_sealed().await? {
        let seat = Seat { organization: &row.organization_id, row: &row.registry_id, field: plan::PASSWORD };
        if let Some(renewed) = renew(vault, seat, row.sealed_password.as_deref())? {
            store.registry_reseal(&row, renewed).await?;
            changed += 1;
        }
    }
    for row in store.targets_sealed().await? {
        let seat = Seat { organization: &row.organization_id, row: &row.target_id, field: plan::ONE_TIME };
        if let Some(renewed) = renew(vault, seat, row.sealed_auth.as_deref())? {
            store.target_reseal(&row, renewed).await?;
            changed += 1;
        }
    }
    Ok(changed)
}

fn renew(vault: &Vault, seat: Seat<'_>, sealed: Option<&str>) -> Result<Option<String>> {
    let Some(sealed) = sealed else { return Ok(None) };
    vault.renew(seat, sealed).map_err(Error::internal("sealing a stored secret anew"))
}
