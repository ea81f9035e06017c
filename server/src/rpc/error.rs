//! The one mapping of errors to the wire.

use jsonrpsee::types::ErrorObjectOwned;
use purser_proto_schema::error::{Code, INVALID_PARAMS, PublicError, ZodError};

use crate::error::{Error, chain, whole_seconds};

/// After how long to repeat a call that was not served: by then each that stood in its way has ended.
const A_MOMENT_SECONDS: u64 = 15;

/// An error as callers see it.
pub fn public(error: &Error) -> PublicError {
    let code = code(error);
    let mut public = PublicError::new(code, message(error));
    match error {
        Error::Invalid(issues) => {
            public.data.zod_error =
                Some(ZodError { form_errors: issues.form.clone(), field_errors: issues.fields.clone() });
        }
        Error::TestFailed(diagnosis) | Error::ServerOffline(diagnosis) => {
            public.data.diagnosis = Some(diagnosis.as_ref().clone());
        }
        Error::InUse { by, .. } => public.data.used_by = Some(by.clone()),
        Error::TooManyCalls(wait) => public.data.retry_after = Some(whole_seconds(*wait)),
        Error::Unavailable(_)
        | Error::NotBegun { .. }
        | Error::TooManySubscriptions { .. }
        | Error::TooManyLargeInputs
        | Error::TooManyLargeBatches
        | Error::TooMuchUnread { .. } => public.data.retry_after = Some(A_MOMENT_SECONDS),
        Error::Unauthorized
        | Error::Forbidden(_)
        | Error::CannotGrant(_)
        | Error::NotFound(_)
        | Error::Conflict(_)
        | Error::Changed(_)
        | Error::Precondition(_)
        | Error::NotSupported { .. }
        | Error::Unread { .. }
        | Error::Unsure { .. }
        | Error::Internal { .. } => {}
    }
    public
}

/// An error as a JSON-RPC error object of a procedure. What only the operator may know is logged
/// here, once, with its chain.
pub fn wire(procedure: &str, error: Error) -> ErrorObjectOwned {
    if let Error::Internal { .. } | Error::NotBegun { .. } | Error::Unread { .. } | Error::Unsure { .. } =
        &error
    {
        tracing::error!(procedure, error = %chain(&error), "a call failed");
    }
    let public = public(&error).at(procedure);
    let number = match error {
        Error::Invalid(_) => INVALID_PARAMS,
        _ => public.data.code.number(),
    };
    ErrorObjectOwned::owned(number, public.message, Some(public.data))
}

pub(super) fn code(error: &Error) -> Code {
    match error {
        Error::Invalid(_) | Error::TestFailed(_) => Code::BadRequest,
        Error::Unauthorized => Code::Unauthorized,
        Error::Forbidden(_) | Error::CannotGrant(_) => Code::Forbidden,
        Error::TooManyCalls(_)
        | Error::TooManySubscriptions { .. }
        | Error::TooManyLargeInputs
        | Error::TooManyLargeBatches
        | Error::TooMuchUnread { .. } => Code::TooManyRequests,
        Error::NotFound(_) => Code::NotFound,
        Error::Conflict(_) | Error::Changed(_) | Error::InUse { .. } => Code::Conflict,
        Error::ServerOffline(_) | Error::Precondition(_) => Code::PreconditionFailed,
        Error::NotSupported { .. } => Code::NotImplemented,
        Error::Unavailable(_) | Error::NotBegun { .. } => Code::ServiceUnavailable,
        // Whoever is told to come again would do it twice.
        Error::Unread { .. } | Error::Unsure { .. } | Error::Internal { .. } => Code::InternalServerError,
    }
}

/// How the audit calls an error: a test's by what was found, which says more than that it failed.
pub(super) fn outcome(error: &Error) -> &'static str {
    match error {
        Error::TestFailed(failed) | Error::ServerOffline(failed) => failed.diagnosis.code.as_str(),
        other => code(other).as_str(),
    }
}

fn message(error: &Error) -> String {
    match error {
        Error::Internal { .. } => "internal error; the operator finds the cause in the log".to_owned(),
        other => other.to_string(),
    }
}
