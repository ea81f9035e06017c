//! How much an input may hold: what the schemas say and the domain checks.
//!
//! Lengths of text are in characters, as JSON Schema counts, white space around included. A few large texts are bounded
//! in bytes beside their types: what they may hold in all is what matters there.

/// The longest name for people, of anything.
pub const NAME_CHARS: usize = 255;
/// The longest description.
pub const DESCRIPTION_CHARS: usize = 1_024;
/// The longest registry address.
pub const ADDRESS_CHARS: usize = 1_024;
/// The longest user name of a stored entry.
pub const USERNAME_CHARS: usize = 255;
/// The longest user name of a one-time credential.
pub const ONE_TIME_USERNAME_CHARS: usize = 1_024;
/// The longest CA certificates, as PEM.
pub const CERTIFICATE_CHARS: usize = 64 * 1024;
/// The most hosts in `realmAllow`.
pub const REALM_HOSTS: usize = 32;
/// The most labels of a server.
pub const LABELS: usize = 64;
/// The longest key of a label.
pub const LABEL_KEY_CHARS: usize = 63;
/// The longest value of a label.
pub const LABEL_VALUE_CHARS: usize = 255;
/// The longest query of a search.
pub const QUERY_CHARS: usize = 256;
/// The most items of a page.
pub const PAGE: u32 = 100;
/// The most targets of a job, and so its servers: they are stored in one transaction, and told whole.
pub const TARGETS: usize = 10_000;
/// The most profiles of a call.
pub const PROFILES: usize = 100;
/// The most calls of a key at once.
pub const RATE_REQUESTS: u32 = 1_000_000;
/// The longest window of a key's rate limit, in seconds: a day.
pub const RATE_WINDOW_SECONDS: u32 = 24 * 60 * 60;
/// The longest wait in the queue, in seconds: a week.
pub const QUEUE_SECONDS: u32 = 7 * 24 * 60 * 60;
/// The longest work on a host, in seconds: a day.
pub const RUN_SECONDS: u32 = 24 * 60 * 60;

/// Text without control characters, as a regular expression.
pub const NO_CONTROL_CHARACTERS: &str = r"^[^\x00-\x1f\x7f-\x9f]*$";
/// Text with something in it besides white space.
pub const NOT_BLANK: &str = r"\S";
/// A name: something, and within white space no control characters.
pub const NAME: &str = r"^\s*[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?\s*$";
/// The user name of an entry: a name without colon, which ends it in Basic authentication.
pub const USERNAME: &str =
    r"^\s*[^\s:\x00-\x1f\x7f-\x9f]([^:\x00-\x1f\x7f-\x9f]*[^\s:\x00-\x1f\x7f-\x9f])?\s*$";
/// The user name of a one-time credential: taken as it is.
pub const ONE_TIME_USERNAME: &str =
    r"^[^:\x00-\x1f\x7f-\x9f]*[^\s:\x00-\x1f\x7f-\x9f][^:\x00-\x1f\x7f-\x9f]*$";
/// A description: no control characters other than line breaks and tabs.
pub const DESCRIPTION: &str = r"^\s*[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*\s*$";
/// `os/architecture`, or with a variant.
pub const PLATFORM: &str = r"^[a-z0-9]{1,32}(/[a-z0-9]{1,32}){1,2}$";
/// A tag, as Docker has it.
pub const TAG: &str = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$";
/// A word of the audit.
pub const WORD: &str = r"^[\x21-\x7e]{1,64}$";
/// A profile of a Compose file, or `*` for all.
pub const PROFILE: &str = r"^(\*|[A-Za-z0-9._-]{1,255})$";
