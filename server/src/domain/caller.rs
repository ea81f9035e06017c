//! Who calls: API keys, what they may do, and the call that they make.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use moka::sync::Cache;
use purser_proto_schema::{
    api_key::RateLimit,
    ids::{ApiKeyId, JobId, OrganizationId, RegistryId, ServerId},
    permission::{Permission, Role},
};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::{
    held_open::{HeldOpen, Open},
    large_inputs::Place,
    last_use::{Noted, Uses},
    rate_limit::{Bucket, Buckets},
};
use crate::{
    error::{Error, Result},
    refusals::{Refusal, Refusals},
    request::{self, RequestId},
    secret_hash,
    store::{ApiKeyRow, AuditEntry, Store},
};

/// How long a key that was just valid is not looked up again. A key that another replica removes
/// works for at most this long.
const REMEMBERED: Duration = Duration::from_secs(10);
/// How long a key that was removed here is known to be: longer than any look-up takes that began before.
const REMOVED: Duration = Duration::from_secs(60);
/// How many keys are remembered.
const REMEMBERED_KEYS: u64 = 10_000;
/// The audit's words for a key that was refused, and for one that nobody has.
const REFUSED: &str = "key.refused";
const UNKNOWN: &str = "unknown_key";
const REVOKED: &str = "revoked";
const EXPIRED: &str = "expired";
/// The longest key that is looked at.
const MAX_KEY_BYTES: usize = 512;
const KEY_PREFIX: &str = "purser_";
const PREFIX_HEX: usize = 16;
/// What the prefix of a key begins with that an operator chose, and all of it that is shown.
const CHOSEN: &str = "chosen";

/// An authenticated caller: a key of one organization.
#[derive(Debug)]
pub struct Caller {
    /// The key.
    pub api_key_id: ApiKeyId,
    /// The organization that it acts in, and no other.
    pub organization_id: OrganizationId,
    grants: Grants,
    rate_limit: Option<RateLimit>,
    bucket: Option<Arc<Bucket>>,
    expires_at: Option<DateTime<Utc>>,
    noted: Noted,
}

#[derive(Debug)]
enum Grants {
    Everything,
    Role(Role),
    Permissions(Vec<Permission>),
}

impl Caller {
    /// Whether the key has the permission.
    pub fn has(&self, permission: Permission) -> bool {
        match &self.grants {
            Grants::Everything => true,
            Grants::Role(role) => role.allows(permission),
            Grants::Permissions(list) => list.contains(&permission),
        }
    }

    /// Lets only a key through that has the permission.
    ///
    /// # Errors
    /// [`Error::Forbidden`] naming the permission.
    pub fn require(&self, permission: Permission) -> Result<()> {
        if self.has(permission) { Ok(()) } else { Err(Error::Forbidden(permission)) }
    }

    /// Counts a call against the key's limit, where it has one.
    ///
    /// # Errors
    /// [`Error::TooManyCalls`].
    pub fn count_call(&self) -> Result<()> {
        self.bucket.as_ref().map_or(Ok(()), |bucket| bucket.take())
    }

    /// How often the key may call; `None` for any number.
    pub fn rate_limit(&self) -> Option<RateLimit> {
        self.rate_limit
    }

    /// When the key stops working; `None` for never.
    pub fn expires_at(&self) -> Option<DateTime<Utc>> {
        self.expires_at
    }

    /// A key that has nothing but its names.
    #[cfg(test)]
    pub fn of_a_test(api_key_id: ApiKeyId, organization_id: OrganizationId) -> Self {
        Self {
            api_key_id,
            organization_id,
            grants: Grants::Permissions(Vec::new()),
            rate_limit: None,
            bucket: None,
            expires_at: None,
            noted: Noted::at(None),
        }
    }

    fn from_row(row: ApiKeyRow, buckets: &Buckets) -> Result<Self> {
        let grants = match (row.instance_admin, row.role()?, row.permissions()?) {
            (true, ..) => Grants::Everything,
            (false, Some(role), _) => Grants::Role(role),
            (false, None, list) => Grants::Permissions(list.unwrap_or_default()),
        };
        let rate_limit = row.rate_limit();
        Ok(Self {
            bucket: rate_limit.and_then(|limit| buckets.of(&row.api_key_id, limit)),
            rate_limit,
            noted: Noted::at(row.last_used_at),
            api_key_id: ApiKeyId::from_stored(row.api_key_id),
            organization_id: OrganizationId::from_stored(row.organization_id),
            grants,
            expires_at: row.expires_at,
        })
    }
}

/// One call: who makes it, and what it turned out to be about, for the audit.
#[derive(Debug)]
pub struct Call {
    /// Who.
    pub caller: Arc<Caller>,
    /// The procedure called.
    pub action: &'static str,
    /// The registry entry that it is about.
    pub registry: OnceLock<RegistryId>,
    /// The server that it is about.
    pub server: OnceLock<ServerId>,
    /// The job that it is about.
    pub job: OnceLock<JobId>,
    /// The key that it makes or removes.
    pub api_key: OnceLock<ApiKeyId>,
    /// The organization that it makes or changes.
    pub changed_organization: OnceLock<OrganizationId>,
    /// Cancelled when the caller hung up: nobody waits for the answer any more.
    pub gone: CancellationToken,
    /// The request that it came by.
    pub request_id: Option<RequestId>,
    audited: AtomicBool,
    audited_in: OnceLock<Option<OrganizationId>>,
    place: Mutex<Option<Arc<Place>>>,
}

impl Call {
    /// A call of `caller`, by the request that this task works for, with the place of its input where that came in a
    /// large one.
    pub fn new(
        caller: Arc<Caller>,
        action: &'static str,
        gone: CancellationToken,
        place: Option<Arc<Place>>,
    ) -> Self {
        Self {
            caller,
            action,
            registry: OnceLock::new(),
            server: OnceLock::new(),
            job: OnceLock::new(),
            api_key: OnceLock::new(),
            changed_organization: OnceLock::new(),
            gone,
            request_id: request::current().map(|request| request.id),
            audited: AtomicBool::new(false),
            audited_in: OnceLock::new(),
            place: Mutex::new(place),
        }
    }

    /// Gives back the place of the call's input, of which nothing is left. Else the call's end does.
    pub fn is_done_with_its_input(&self) {
        drop(self.place.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// The call as an audit event.
    pub fn audit_entry<'a>(&'a self, outcome: &'a str) -> AuditEntry<'a> {
        AuditEntry {
            organization_id: match self.audited_in.get() {
                Some(elsewhere) => elsewhere.as_ref(),
                None => Some(self.organization()),
            },
            api_key_id: Some(&self.caller.api_key_id),
            action: self.action,
            registry_id: self.registry.get().cloned(),
            server_id: self.server.get().cloned(),
            job_id: self.job.get().cloned(),
            subject_api_key_id: self.api_key.get().cloned(),
            subject_organization_id: self.changed_organization.get().cloned(),
            outcome,
            request_id: self.request_id.as_ref(),
            source: None,
            count: 1,
        }
    }

    /// Notes that the call's audit event is stored.
    pub fn mark_audited(&self) {
        self.audited.store(true, Ordering::Relaxed);
    }

    /// Whether the call's audit event is stored.
    pub fn is_audited(&self) -> bool {
        self.audited.load(Ordering::Relaxed)
    }

    /// The organization that the call acts in.
    pub fn organization(&self) -> &OrganizationId {
        &self.caller.organization_id
    }

    /// Notes what came of a change whose audit event was to be stored with it. One that was refused for how things
    /// stand is named all the same; what was not found is not, nor what was not looked for.
    pub fn changed<T>(&self, event: &AuditEntry<'_>, outcome: Result<T>) -> Result<T> {
        match &outcome {
            Ok(_) => self.mark_audited(),
            Err(Error::NotFound(_) | Error::Internal { .. } | Error::NotBegun { .. }) => {}
            Err(_) => {
                self.about(event);
                // Where it belongs, and nobody else reads what it is about.
                if let Some(organization) = event.organization_id {
                    self.audit_in(Some(organization));
                }
            }
        }
        outcome
    }

    /// Notes for the audit what another event of the call is about.
    fn about(&self, event: &AuditEntry<'_>) {
        event.registry_id.iter().for_each(|id| self.about_registry(id));
        event.server_id.iter().for_each(|id| self.about_server(id));
        event.job_id.iter().for_each(|id| self.about_job(id));
        event.subject_api_key_id.iter().for_each(|id| self.about_api_key(id));
        event.subject_organization_id.iter().for_each(|id| self.about_organization(id));
    }

    /// Notes a registry entry for the audit. The first one stays.
    pub fn about_registry(&self, id: &RegistryId) {
        let _ = self.registry.set(id.clone());
    }

    /// Notes a server for the audit. The first one stays.
    pub fn about_server(&self, id: &ServerId) {
        let _ = self.server.set(id.clone());
    }

    /// Notes a key for the audit that is made or removed. The first one stays.
    pub fn about_api_key(&self, id: &ApiKeyId) {
        let _ = self.api_key.set(id.clone());
    }

    /// Notes an organization for the audit that is made or changed. The first one stays.
    pub fn about_organization(&self, id: &OrganizationId) {
        let _ = self.changed_organization.set(id.clone());
    }

    /// Puts the call's audit event into the organization that was changed and is not the caller's own; `None` for what
    /// belongs to none.
    pub fn audit_in(&self, organization: Option<&OrganizationId>) {
        let _ = self.audited_in.set(organization.cloned());
    }

    /// Notes a job for the audit. The first one stays.
    pub fn about_job(&self, id: &JobId) {
        let _ = self.job.set(id.clone());
    }
}

/// Keys that were valid a moment ago, by a keyed hash that lives as long as the process, so neither
/// memory nor the time of a look-up tells anything of a key.
pub struct KnownKeys {
    callers: Cache<[u8; 32], Arc<Caller>>,
    hasher: hmac::Key,
    buckets: Buckets,
    removed: Cache<ApiKeyId, ()>,
    uses: Uses,
    held_open: HeldOpen,
}

impl KnownKeys {
    /// An empty memory, which tells of uses.
    ///
    /// # Errors
    /// [`Error::Internal`] where the system gives no random bytes.
    pub fn new(uses: Uses) -> Result<Self> {
        let hasher = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| "no random bytes")
            .map_err(Error::internal("starting the key memory"))?;
        let callers = Cache::builder().max_capacity(REMEMBERED_KEYS).time_to_live(REMEMBERED).build();
        let removed = Cache::builder().max_capacity(REMEMBERED_KEYS).time_to_live(REMOVED).build();
        let held_open = HeldOpen::default();
        Ok(Self { callers, hasher, buckets: Buckets::new(), removed, uses, held_open })
    }

    /// Ends a key that was removed: from now on it is refused here, and what it holds open ends.
    pub fn end(&self, key: &ApiKeyId) {
        self.removed.insert(key.clone(), ());
        self.held_open.end(key);
    }

    /// Notes that a caller holds something open, which is to end with the key.
    pub fn hold_open(&self, by: &Arc<Caller>) -> Open {
        let open = self.held_open.open(by);
        // It may have been removed since it was authenticated.
        if self.removed.contains_key(&by.api_key_id) {
            self.held_open.end(&by.api_key_id);
        }
        open
    }

    /// What keys hold open, for those that other control planes remove.
    pub fn held_open(&self) -> HeldOpen {
        self.held_open.clone()
    }

    /// Why a caller that was known a moment ago is none any more.
    fn over(&self, caller: &Caller) -> Option<&'static str> {
        if self.removed.contains_key(&caller.api_key_id) {
            return Some(REVOKED);
        }
        caller.expires_at.is_some_and(|expiry| expiry <= Utc::now()).then_some(EXPIRED)
    }

    fn slot(&self, key: &str) -> [u8; 32] {
        let mut slot = [0; 32];
        slot.copy_from_slice(hmac::sign(&self.hasher, key.as_bytes()).as_ref());
        slot
    }
}

/// The caller of a presented key. Reads the database at most once per key and [`REMEMBERED`]; that the key
/// was used is written by others, later, and of one that is refused the audit hears, within its bounds.
///
/// # Errors
/// [`Error::Unauthorized`] for an unknown, revoked or expired key, all alike.
pub async fn authenticate(
    store: &Store,
    known: &KnownKeys,
    refusals: &Refusals,
    presented: &str,
) -> Result<Arc<Caller>> {
    if presented.is_empty() || presented.len() > MAX_KEY_BYTES {
        return Err(refused(refusals, None, UNKNOWN));
    }
    let slot = known.slot(presented);
    let caller = match known.callers.get(&slot) {
        Some(caller) => caller,
        None => {
            let row = look_up(store, refusals, presented).await?;
            let caller = Arc::new(Caller::from_row(row, &known.buckets)?);
            known.callers.insert(slot, Arc::clone(&caller));
            caller
        }
    };
    if let Some(why) = known.over(&caller) {
        return Err(refused(refusals, Some((&caller.organization_id, &caller.api_key_id)), why));
    }
    known.uses.tell(&caller.api_key_id, &caller.noted);
    Ok(caller)
}

async fn look_up(store: &Store, refusals: &Refusals, presented: &str) -> Result<ApiKeyRow> {
    let prefix = public_prefix(presented);
    let Some(row) = store.api_key_by_prefix(&prefix).await? else {
        return Err(refused(refusals, None, UNKNOWN));
    };
    let why = match (secret_hash::key_matches(&prefix, presented, &row.hash), row.revoked_at) {
        (true, None) => return Ok(row),
        (true, Some(_)) => REVOKED,
        (false, _) => "wrong_secret",
    };
    let organization = OrganizationId::from_stored(row.organization_id);
    Err(refused(refusals, Some((&organization, &ApiKeyId::from_stored(row.api_key_id))), why))
}

/// Lets the audit hear of a key that was refused: in the organization of the key that it names, if it names one.
fn refused(refusals: &Refusals, named: Option<(&OrganizationId, &ApiKeyId)>, why: &'static str) -> Error {
    refusals.note(Refusal {
        organization_id: named.map(|(organization, _)| organization.clone()),
        api_key_id: named.map(|(_, key)| key.clone()),
        server_id: None,
        action: REFUSED,
        outcome: why,
    });
    Error::Unauthorized
}

/// The public part of a key, by which it is found. A key that an operator chose has none of its own
/// and is found by part of its hash.
pub fn public_prefix(key: &str) -> String {
    let own = key.strip_prefix(KEY_PREFIX).and_then(|rest| rest.split_at_checked(PREFIX_HEX)).filter(
        |(prefix, secret)| prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) && secret.starts_with('_'),
    );
    match own {
        Some((prefix, _)) => format!("{KEY_PREFIX}{prefix}"),
        None => format!("{CHOSEN}_{}", &secret_hash::of_random(key)[..PREFIX_HEX]),
    }
}

/// A key's prefix as callers see it. What a chosen key is found by is not among it: with part of the hash of a key that
/// people can remember, who reads it could find out the key without ever asking here.
pub fn shown_prefix(prefix: String) -> String {
    if prefix.starts_with(CHOSEN) { CHOSEN.to_owned() } else { prefix }
}

/// A new key: a public prefix and 256 random bits.
///
/// # Errors
/// [`Error::Internal`] where the system gives no random bytes.
pub fn generate_key() -> Result<SecretString> {
    let mut prefix = [0; PREFIX_HEX / 2];
    let mut secret = [0; 32];
    let random = SystemRandom::new();
    random
        .fill(&mut prefix)
        .and_then(|()| random.fill(&mut secret))
        .map_err(|_| "no random bytes")
        .map_err(Error::internal("making an API key"))?;
    let prefix: String = prefix.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(SecretString::from(format!("{KEY_PREFIX}{prefix}_{}", URL_SAFE_NO_PAD.encode(secret))))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_key_is_found_by_its_public_part_only() {
        let key = generate_key().unwrap();
        let prefix = public_prefix(key.expose_secret());
        assert!(key.expose_secret().starts_with(&prefix));
        assert!(prefix.len() < key.expose_secret().len() - 40);
    }

    #[test]
    fn a_chosen_key_does_not_show_in_its_prefix() {
        let prefix = public_prefix("correct-horse-battery-staple-42");
        assert!(prefix.starts_with("chosen_") && !prefix.contains("horse"));
        assert_eq!(shown_prefix(prefix), "chosen");
        let own = public_prefix(generate_key().unwrap().expose_secret());
        assert_eq!(shown_prefix(own.clone()), own);
    }
}
