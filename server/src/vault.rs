//! The vault: the only place that sees a plaintext secret at rest or opens one.
//!
//! AES-256-GCM with a random nonce and a key id. The row that a secret belongs to (organization, row,
//! field) is authenticated with it, so a ciphertext moved to another row does not open. The key ring
//! has one key that seals and any number that only open, which is how a master key is replaced:
//! put the new key first, run `purser-server reencrypt`, take the old one out.

use std::{fmt, path::Path};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest,
    rand::{SecureRandom, SystemRandom},
};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use zeroize::Zeroizing;

const VERSION: &str = "v1";
const KEY_BYTES: usize = 32;

/// What a secret belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Seat<'a> {
    /// The organization's id; empty for what belongs to the installation.
    pub organization: &'a str,
    /// The row's id.
    pub row: &'a str,
    /// The column.
    pub field: &'static str,
}

impl Seat<'_> {
    fn associated_data(&self) -> Vec<u8> {
        // Lengths first: no two seats give the same bytes.
        let mut data = Vec::new();
        for part in [self.organization, self.row, self.field] {
            data.extend_from_slice(&(part.len() as u64).to_be_bytes());
            data.extend_from_slice(part.as_bytes());
        }
        data
    }
}

/// Why a secret could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// A master key is not 32 bytes in a known spelling. The text is not repeated.
    #[error(
        "a master key is 32 bytes as base64, or as hex after `hex:`; one per line or separated by commas"
    )]
    MalformedKey,
    /// The key file could not be read or made.
    #[error("the master key file {0} could not be used; restore it, or give the key in PURSER_MASTER_KEY")]
    KeyFile(String, #[source] std::io::Error),
    /// The ring has no key with this id.
    #[error("the secret was sealed with master key {0}, which is not in the key ring")]
    UnknownKey(String),
    /// The text is not of the vault's making.
    #[error("a stored secret is damaged")]
    Damaged,
    /// The ciphertext does not belong here, or was changed.
    #[error("a stored secret does not open: it was changed or moved")]
    Refused,
    /// No randomness.
    #[error("the system gives no random bytes")]
    Randomness,
}

struct MasterKey {
    id: String,
    key: LessSafeKey,
}

/// The key ring. The first key seals.
pub struct Vault {
    current: MasterKey,
    older: Vec<MasterKey>,
    random: SystemRandom,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("current", &self.current.id).finish_non_exhaustive()
    }
}

impl Vault {
    /// A vault from its keys as text: base64, or hex after `hex:`; commas or lines between.
    ///
    /// # Errors
    /// [`VaultError::MalformedKey`].
    pub fn from_text(text: &SecretString) -> Result<Self, VaultError> {
        let mut keys = text
            .expose_secret()
            .split([',', '\n'])
            .map(str::trim)
            .filter(|key| !key.is_empty())
            .map(MasterKey::parse)
            .collect::<Result<Vec<_>, _>>()?
            .into_iter();
        let current = keys.next().ok_or(VaultError::MalformedKey)?;
        Ok(Self { current, older: keys.collect(), random: SystemRandom::new() })
    }

    /// A vault whose keys are in a file.
    ///
    /// # Errors
    /// [`VaultError::KeyFile`], [`VaultError::MalformedKey`].
    pub fn from_file(path: &Path) -> Result<Self, VaultError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| VaultError::KeyFile(path.display().to_string(), source))?;
        Self::from_text(&SecretString::from(text))
    }

    /// As [`Self::from_file`]; the file is made with a fresh key (mode 0600) if it is absent.
    ///
    /// # Errors
    /// As there.
    pub fn from_new_file(path: &Path) -> Result<Self, VaultError> {
        let failed = |source| VaultError::KeyFile(path.display().to_string(), source);
        if !path.try_exists().map_err(failed)? {
            let mut key = Zeroizing::new([0; KEY_BYTES]);
            SystemRandom::new().fill(&mut *key).map_err(|_| VaultError::Randomness)?;
            let text = Zeroizing::new(format!("{}\n", URL_SAFE_NO_PAD.encode(*key)));
            crate::private_file::write(path, text.as_bytes()).map_err(failed)?;
        }
        Self::from_file(path)
    }

    /// Seals a secret into its seat: `v1.<key id>.<base64url of nonce and ciphertext>`.
    ///
    /// # Errors
    /// [`VaultError::Randomness`].
    pub fn seal(&self, seat: Seat<'_>, secret: &[u8]) -> Result<String, VaultError> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| VaultError::Randomness)?;
        let mut sealed = secret.to_vec();
        self.current
            .key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(seat.associated_data()),
                &mut sealed,
            )
            .map_err(|_| VaultError::Refused)?;
        let mut bytes = nonce.to_vec();
        bytes.append(&mut sealed);
        Ok(format!("{VERSION}.{}.{}", self.current.id, URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Opens what was sealed into this seat.
    ///
    /// # Errors
    /// Any [`VaultError`] but those of key files; what is in the text is not repeated.
    pub fn open(&self, seat: Seat<'_>, sealed: &str) -> Result<SecretSlice<u8>, VaultError> {
        let mut parts = sealed.splitn(3, '.');
        let (Some(VERSION), Some(key_id), Some(bytes)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(VaultError::Damaged);
        };
        let key =
            self.key(key_id).ok_or_else(|| VaultError::UnknownKey(key_id.chars().take(16).collect()))?;
        let mut bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(bytes).map_err(|_| VaultError::Damaged)?);
        let (nonce, ciphertext) = bytes.split_first_chunk_mut::<NONCE_LEN>().ok_or(VaultError::Damaged)?;
        let plain = key
            .key
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(seat.associated_data()),
                ciphertext,
            )
            .map_err(|_| VaultError::Refused)?;
        Ok(SecretSlice::from(plain.to_vec()))
    }

    /// Opens what was sealed into this seat as text.
    ///
    /// # Errors
    /// As [`Self::open`]; [`VaultError::Damaged`] where it is not text.
    pub fn open_text(&self, seat: Seat<'_>, sealed: &str) -> Result<SecretString, VaultError> {
        let bytes = self.open(seat, sealed)?;
        let text = std::str::from_utf8(bytes.expose_secret()).map_err(|_| VaultError::Damaged)?;
        Ok(SecretString::from(text))
    }

    /// The same secret under the current key, or `None` where it already is.
    ///
    /// # Errors
    /// As [`Self::open`] and [`Self::seal`].
    pub fn renew(&self, seat: Seat<'_>, sealed: &str) -> Result<Option<String>, VaultError> {
        if sealed.split('.').nth(1) == Some(self.current.id.as_str()) {
            return Ok(None);
        }
        let secret = self.open(seat, sealed)?;
        self.seal(seat, secret.expose_secret()).map(Some)
    }

    fn key(&self, id: &str) -> Option<&MasterKey> {
        std::iter::once(&self.current).chain(&self.older).find(|key| key.id == id)
    }
}

impl MasterKey {
    fn parse(text: &str) -> Result<Self, VaultError> {
        let bytes = Zeroizing::new(match text.strip_prefix("hex:") {
            Some(hex) => from_hex(hex).ok_or(VaultError::MalformedKey)?,
            None => {
                let text = text.strip_prefix("base64:").unwrap_or(text).trim_end_matches('=');
                let text = text.replace('+', "-").replace('/', "_");
                URL_SAFE_NO_PAD.decode(text).map_err(|_| VaultError::MalformedKey)?
            }
        });
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| VaultError::MalformedKey)?;
        let hash = digest::digest(&digest::SHA256, &bytes);
        let id = hash.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { id, key: LessSafeKey::new(key) })
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAT: Seat<'static> = Seat { organization: "org_1", row: "reg_1", field: "password" };

    fn vault(keys: &[u8]) -> Vault {
        let text: Vec<String> = keys.iter().map(|byte| URL_SAFE_NO_PAD.encode([*byte; KEY_BYTES])).collect();
        Vault::from_text(&SecretString::from(text.join(","))).unwrap()
    }

    #[test]
    fn a_secret_comes_back_byte_for_byte() {
        let vault = vault(&[1]);
        let sealed = vault.seal(SEAT, "~>?+/=\"'\\$% ünï".as_bytes()).unwrap();
        assert_eq!(vault.open_text(SEAT, &sealed).unwrap().expose_secret(), "~>?+/=\"'\\$% ünï");
    }

    #[test]
    fn a_secret_moved_to_another_seat_does_not_open() {
        let vault = vault(&[1]);
        let sealed = vault.seal(SEAT, b"secret").unwrap();
        for other in [
            Seat { organization: "org_2", ..SEAT },
            Seat { row: "reg_2", ..SEAT },
            Seat { field: "other", ..SEAT },
            Seat { organization: "org_1r", row: "eg_1", ..SEAT },
        ] {
            assert!(matches!(vault.open(other, &sealed), Err(VaultError::Refused)));
        }
    }

    #[test]
    fn an_older_key_opens_and_renewing_moves_to_the_current_one() {
        let sealed = vault(&[1]).seal(SEAT, b"secret").unwrap();
        let ring = vault(&[2, 1]);
        let renewed = ring.renew(SEAT, &sealed).unwrap().unwrap();
        assert!(ring.renew(SEAT, &renewed).unwrap().is_none());
        let only_new = vault(&[2]);
        assert_eq!(only_new.open_text(SEAT, &renewed).unwrap().expose_secret(), "secret");
        assert!(matches!(only_new.open(SEAT, &sealed), Err(VaultError::UnknownKey(_))));
    }

    #[test]
    fn two_seals_of_one_secret_differ() {
        let vault = vault(&[1]);
        assert_ne!(vault.seal(SEAT, b"s").unwrap(), vault.seal(SEAT, b"s").unwrap());
    }
}
