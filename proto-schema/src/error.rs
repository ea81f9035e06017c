//! Public errors: one code table for every door.
//!
//! Source of names, numbers and statuses: tRPC's own table, of which JSON-RPC takes the numbers.

use std::{borrow::Cow, collections::BTreeMap};

use purser_registry_client::{Diagnosis, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::JobId;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $number:literal, $status:literal;)*) => {
        /// A public error code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub enum Code {
            $($(#[doc = $doc])+ #[serde(rename = $text)] $name,)*
        }

        impl Code {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// What it means, for people.
            #[must_use]
            pub fn description(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii()),* }
            }

            /// The name, such as `BAD_REQUEST`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// The JSON-RPC number. Several codes of the 5xx family share -32603, as in tRPC.
            #[must_use]
            pub fn number(self) -> i32 {
                match self { $(Self::$name => $number),* }
            }

            /// The HTTP status.
            #[must_use]
            pub fn http_status(self) -> u16 {
                match self { $(Self::$name => $status),* }
            }
        }
    };
}

codes! {
    /// The bytes are not JSON.
    ParseError = "PARSE_ERROR", -32700, 400;
    /// The input is wrong, or what it asks for failed for a reason that the caller can mend.
    BadRequest = "BAD_REQUEST", -32600, 400;
    /// A fault of the server. The message says nothing of the inside; the log does.
    InternalServerError = "INTERNAL_SERVER_ERROR", -32603, 500;
    /// The registry or engine has no such function.
    NotImplemented = "NOT_IMPLEMENTED", -32603, 501;
    /// The server is stopping, its database is away, or it has too much to do. It may pass by itself.
    ServiceUnavailable = "SERVICE_UNAVAILABLE", -32603, 503;
    /// No key, or not a valid one.
    Unauthorized = "UNAUTHORIZED", -32001, 401;
    /// A valid key without the permission.
    Forbidden = "FORBIDDEN", -32003, 403;
    /// No such id in the caller's organization, or no such procedure.
    NotFound = "NOT_FOUND", -32004, 404;
    /// The wrong HTTP method for the procedure.
    MethodNotSupported = "METHOD_NOT_SUPPORTED", -32005, 405;
    /// Took longer than it may.
    Timeout = "TIMEOUT", -32008, 408;
    /// Something else uses it, or changed it meanwhile.
    Conflict = "CONFLICT", -32009, 409;
    /// The state of the world does not allow it now, such as a host that is not connected.
    PreconditionFailed = "PRECONDITION_FAILED", -32012, 412;
    /// The body is over the limit.
    PayloadTooLarge = "PAYLOAD_TOO_LARGE", -32013, 413;
    /// The body is not `application/json`.
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE", -32015, 415;
    /// Over a rate limit.
    TooManyRequests = "TOO_MANY_REQUESTS", -32029, 429;
}

/// JSON-RPC's own number for parameters that do not fit the method: what `/rpc` answers where the
/// other doors say BAD_REQUEST for malformed input. `data.code` is `BAD_REQUEST` in both.
pub const INVALID_PARAMS: i32 = -32602;

/// What is wrong with an input, in the form that zod's `flatten()` gives.
///
/// Messages name rules and field names, never a received value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ZodError {
    /// What is wrong with the input as a whole.
    pub form_errors: Vec<Cow<'static, str>>,
    /// What is wrong with each field, by its name on the wire.
    pub field_errors: BTreeMap<Cow<'static, str>, Vec<Cow<'static, str>>>,
}

/// Why a test or an operation at a registry failed: `data.diagnosis`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TestDiagnosis {
    /// Code, advice and the engine's own words.
    #[serde(flatten)]
    pub diagnosis: Diagnosis,
    /// What was tried, in order; the last one failed.
    pub steps: Vec<Step>,
}

/// What stands in the way of removing something: `data.usedBy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsedBy {
    /// Jobs that have not ended, oldest first; at most 100 of them.
    pub jobs: Vec<JobId>,
    /// How many there are.
    pub total: usize,
}

/// `error.data` of tRPC and of JSON-RPC alike.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorData {
    /// The code's name.
    pub code: Code,
    /// The code's HTTP status.
    pub http_status: u16,
    /// The procedure called, where the call got as far as one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
    /// Present for malformed input only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub zod_error: Option<ZodError>,
    /// Present where a registry or an engine refused.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub diagnosis: Option<TestDiagnosis>,
    /// Present where something is still used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub used_by: Option<UsedBy>,
    /// Present where the same call may succeed later without anybody's doing: in how many seconds to try again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after: Option<u64>,
}

/// A failure as the plain door answers it, with the code's HTTP status.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Error")]
pub struct PlainError {
    /// For people: what happened and what to do next.
    pub message: String,
    /// The code's name.
    pub code: Code,
    /// For programs.
    pub data: ErrorData,
}

impl From<PublicError> for PlainError {
    fn from(error: PublicError) -> Self {
        Self { message: error.message, code: error.data.code, data: error.data }
    }
}

/// A public error: what every door shows of a failure, in its own envelope.
#[derive(Clone, Debug)]
pub struct PublicError {
    /// For people: what happened and what to do next.
    pub message: String,
    /// For programs.
    pub data: ErrorData,
}

impl PublicError {
    /// An error of a code, with a message for people.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            data: ErrorData {
                code,
                http_status: code.http_status(),
                path: None,
                zod_error: None,
                diagnosis: None,
                used_by: None,
                retry_after: None,
            },
        }
    }

    /// The same error, naming the procedure.
    #[must_use]
    pub fn at(mut self, path: &str) -> Self {
        self.data.path = Some(path.to_owned());
        self
    }
}
