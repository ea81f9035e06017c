//! Everything that can go wrong in the control plane, without a word of transport.
//!
//! `rpc/error.rs` is the only place that maps these to the wire.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use purser_proto_schema::{
    error::{TestDiagnosis, UsedBy},
    ids::JobId,
    permission::Permission,
};

/// How many jobs a message names.
const NAMED_JOBS: usize = 10;

/// The result of anything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure. `Display` says what happened to whoever called; what only the operator may know is in
/// the source chain, and is logged once, where the call ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input is malformed.
    #[error("{}", .0.summary())]
    Invalid(Issues),
    /// No key, or none that is valid.
    #[error("a valid API key is needed: send it as `x-api-key` or as `Authorization: Bearer`")]
    Unauthorized,
    /// A key without the permission.
    #[error("this API key lacks the permission `{}`", .0.as_str())]
    Forbidden(Permission),
    /// A key that would make another with more than it has.
    #[error("an API key grants no more than it has, and this one lacks `{}`", .0.as_str())]
    CannotGrant(Permission),
    /// A key that calls more often than it may.
    #[error("this API key has made all its calls for now: it may call again in {} s", whole_seconds(*.0))]
    TooManyCalls(Duration),
    /// A key that holds as many subscriptions as it may, or an organization or a control plane that does.
    #[error("{holder} holds {most} subscriptions, the most that it may: end one, then repeat the call")]
    TooManySubscriptions {
        /// Who holds them.
        holder: &'static str,
        /// How many.
        most: usize,
    },
    /// An organization whose large inputs wait for one another.
    #[error(
        "this API key or its organization has as many inputs over 64 KiB under way as it may: send fewer of them at \
         once, or smaller ones, and repeat this one"
    )]
    TooManyLargeInputs,
    /// The turn of a large batch's call did not come.
    #[error("other large batches are being answered; make fewer calls at once, or repeat this one")]
    TooManyLargeBatches,
    /// A key or an organization that reads none of its answers.
    #[error(
        "this {of} has not read its answers, {mib} MiB or more by now: read them or close their connections, and \
         repeat this call"
    )]
    TooMuchUnread {
        /// Whose answers they are: the key's, or the organization's.
        of: &'static str,
        /// So much may be unread.
        mib: usize,
    },
    /// No such thing in the caller's organization: missing, malformed and foreign ids alike.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// Something stands in the way that the caller can change.
    #[error("{0}")]
    Conflict(String),
    /// It is not as the caller knew it.
    #[error("the {0} was changed meanwhile; read it again and repeat")]
    Changed(&'static str),
    /// It is not removed while it is used.
    #[error("{} job(s) under way use this {what} ({}): wait for them, cancel them, or pass `force`", .by.total, first(&.by.jobs))]
    InUse {
        /// What.
        what: &'static str,
        /// Who uses it.
        by: UsedBy,
    },
    /// The state of things does not allow it, and the caller must do something else instead.
    #[error("{0}")]
    Precondition(&'static str),
    /// A test failed: the registry or the host said no.
    #[error("{}", .0.diagnosis.message)]
    TestFailed(Box<TestDiagnosis>),
    /// The registry has no such function, or not for these credentials.
    #[error("{message}. {advice}")]
    NotSupported {
        /// What it does not do.
        message: String,
        /// What to do instead.
        advice: String,
    },
    /// The server is not connected.
    #[error("{}", .0.diagnosis.message)]
    ServerOffline(Box<TestDiagnosis>),
    /// It is not done now, and the same call may succeed in a moment without anybody's doing.
    #[error("{0}")]
    Unavailable(&'static str),
    /// The database gave no connection in time, or began nothing on it: surely nothing was done.
    #[error("the database is too busy, or away")]
    NotBegun {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What was asked for is done, and how it stands could not be read.
    #[error("this was accepted, and how {job} stands now could not be read: ask job.one for it")]
    Unread {
        /// The job.
        job: JobId,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// The database was lost in the moment in which a job was stored.
    #[error("nobody knows whether this was accepted: ask job.one for {job} before you repeat it")]
    Unsure {
        /// The job, if there is one.
        job: JobId,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// A fault of ours.
    #[error("{what}")]
    Internal {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// Wraps a failure that no caller can mend. Use as `.map_err(Error::internal("…"))`.
    pub fn internal<E>(what: &'static str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |source| Self::Internal { what, source: source.into() }
    }

    /// Whether it is one that surely changed nothing in the database.
    pub fn is_not_begun(&self) -> bool {
        matches!(self, Self::NotBegun { .. })
    }

    /// The same of a job whose call has been accepted by now: nobody may take it for a refusal.
    #[must_use]
    pub fn unread(self, job: &JobId) -> Self {
        match self {
            Self::NotBegun { .. } | Self::Internal { .. } => {
                Self::Unread { job: job.clone(), source: Box::new(self) }
            }
            other => other,
        }
    }

    /// A failure to store a job, by which nobody knows whether it is.
    #[must_use]
    pub fn unsure(self, job: &JobId) -> Self {
        match self {
            Self::Internal { .. } => Self::Unsure { job: job.clone(), source: Box::new(self) },
            other => other,
        }
    }

    /// An input with one bad field.
    pub fn field(field: &'static str, rule: impl Into<Cow<'static, str>>) -> Self {
        let mut issues = Issues::default();
        issues.add(field, rule);
        Self::Invalid(issues)
    }

    /// An input that is wrong as a whole.
    pub fn form(rule: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid(Issues { form: vec![rule.into()], ..Issues::default() })
    }
}

/// What is wrong with an input: rules by field name. Never a received value.
#[derive(Debug, Default)]
pub struct Issues {
    /// About the input as a whole.
    pub form: Vec<Cow<'static, str>>,
    /// By field, in wire spelling.
    pub fields: BTreeMap<Cow<'static, str>, Vec<Cow<'static, str>>>,
}

impl Issues {
    /// Notes that a field breaks a rule.
    pub fn add(&mut self, field: impl Into<Cow<'static, str>>, rule: impl Into<Cow<'static, str>>) {
        self.fields.entry(field.into()).or_default().push(rule.into());
    }

    /// `value` if nothing was noted, else the error.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything that was noted.
    pub fn into_result<T>(self, value: T) -> Result<T> {
        if self.form.is_empty() && self.fields.is_empty() { Ok(value) } else { Err(Error::Invalid(self)) }
    }

    /// What was noted of the fields, without their names.
    pub fn rules(&self) -> String {
        self.fields.values().flatten().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
    }

    fn summary(&self) -> String {
        let mut parts: Vec<String> = self.form.iter().map(ToString::to_string).collect();
        for (field, rules) in &self.fields {
            // A rule about what is in the field says where by itself.
            let is_inside = |rule: &Cow<'_, str>| {
                rule.strip_prefix(field.as_ref()).is_some_and(|rest| rest.starts_with(['.', '[']))
            };
            let (inside, own): (Vec<_>, Vec<_>) = rules.iter().cloned().partition(is_inside);
            if !own.is_empty() {
                parts.push(format!("{field}: {}", own.join(", ")));
            }
            parts.extend(inside.into_iter().map(Cow::into_owned));
        }
        parts.join("; ")
    }
}

/// A wait as callers are told it: rounded up, so that whoever keeps to it is let in.
pub fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

fn first(jobs: &[JobId]) -> String {
    let named = jobs.iter().take(NAMED_JOBS).map(JobId::as_str).collect::<Vec<_>>().join(", ");
    if jobs.len() > NAMED_JOBS { format!("{named}, …") } else { named }
}

/// An error and everything below it, for the log.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(source) = below {
        text.push_str(": ");
        text.push_str(&source.to_string());
        below = source.source();
    }
    text
}
