//! The integration suite: one binary, a module per subject. Run it with `tests/run`.

mod passwords;
mod smoke;
mod tidy;
