//! The integration suite: one binary, a module per subject. Run it with `tests/run`.

mod backoff;
mod channel;
mod enrolment;
mod local_agent;
mod recovery;
mod smoke;
mod tidy;
