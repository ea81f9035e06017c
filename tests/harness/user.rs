//! The registry users: one per way in which a password breaks a careless road.

use serde::{Deserialize, Serialize};

use crate::wait::random_hex;

/// What is nasty about a user's password; every kind exists once per testbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Letters and digits.
    Plain,
    /// `~ > ? + / = " ' \ $ %` with spaces inside.
    Symbols,
    /// Umlauts, Chinese, an emoji.
    NonAscii,
    /// Gives `+` and `/` in standard base64 at every alignment, alone and inside JSON.
    Base64,
    /// 70 bytes; bcrypt looks at 72.
    Seventy,
    /// 4 KiB. Too long for bcrypt: see [`Kind::is_long`].
    FourKib,
    /// A whole JSON key file with newlines, user `_json_key`. Too long for bcrypt, too.
    JsonKey,
    /// A plain password; the token registry grants this user `pull` only.
    Reader,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Plain,
        Self::Symbols,
        Self::NonAscii,
        Self::Base64,
        Self::Seventy,
        Self::FourKib,
        Self::JsonKey,
        Self::Reader,
    ];

    /// bcrypt compares only the first 72 bytes, so an htpasswd registry would accept a damaged
    /// longer password: users of these kinds are known to the auth proxy and the token server,
    /// which compare every byte, and not to the htpasswd files.
    pub fn is_long(self) -> bool {
        matches!(self, Self::FourKib | Self::JsonKey)
    }
}

/// Someone whom the testbed's registries with authentication know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct User {
    /// What the password is made of.
    pub kind: Kind,
    /// The name.
    pub username: String,
    /// The password; random in part, so that finding it anywhere proves a leak of this run.
    pub password: String,
}

impl User {
    /// One user of each kind, with passwords of this run.
    pub fn one_of_each_kind() -> Vec<Self> {
        Kind::ALL.into_iter().map(Self::new).collect()
    }

    fn new(kind: Kind) -> Self {
        let salt = random_hex(6);
        let (username, password) = match kind {
            Kind::Plain => ("plain", format!("Plain{salt}")),
            Kind::Symbols => ("symbols", format!(r#"{salt}~>?+/="'\$% $HOME %41 \n a" b'"#)),
            Kind::NonAscii => ("non.ascii", format!("pässwörd-密码-🔑-ÿ-{salt}")),
            Kind::Base64 => ("base64", format!("{salt}??????>>>>>>~~~~~~")),
            Kind::Seventy => ("seventy", format!("{salt}{}", random_hex(29))),
            Kind::FourKib => ("four-kib", format!("{salt}{}", random_hex(2042))),
            Kind::JsonKey => ("_json_key", json_key(&salt)),
            Kind::Reader => ("reader", format!("Reader{salt}")),
        };
        Self { kind, username: username.into(), password }
    }

    /// The value of an `Authorization` header with these credentials.
    pub fn basic(&self) -> String {
        basic(&self.username, &self.password)
    }
}

/// The value of an `Authorization: Basic` header.
pub fn basic(username: &str, password: &str) -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}")))
}

/// Credentials out of an `Authorization: Basic` header value.
pub fn from_basic(header: &str) -> Option<(String, String)> {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let raw = BASE64_STANDARD.decode(header.strip_prefix("Basic ")?).ok()?;
    let text = String::from_utf8(raw).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

/// The shape of a Google service-account key, pretty-printed as `gcloud` writes it.
fn json_key(salt: &str) -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let body = BASE64_STANDARD.encode(crate::wait::random_bytes(1200));
    let lines: Vec<_> = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    let key = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
    let file = serde_json::json!({
        "type": "service_account",
        "project_id": format!("purser-{salt}"),
        "private_key_id": random_hex(20),
        "private_key": key,
        "client_email": format!("robot-{salt}@purser.iam.gserviceaccount.com"),
        "token_uri": "https://oauth2.googleapis.com/token",
    });
    serde_json::to_string_pretty(&file).expect("a JSON value can be written")
}
