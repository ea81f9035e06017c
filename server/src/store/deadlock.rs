//! What PostgreSQL undoes so that others can go on: of transactions that wait for each other's rows it
//! ends one, with nothing of it done. Whoever writes several targets of a job may meet another that does,
//! in another order; so such work is done anew. SQLite has one writer, and none of this.

use sea_orm::{DbErr, RuntimeErr};

use crate::error::{Error, Result};

/// How often. Each time PostgreSQL has waited for its `deadlock_timeout`, a second.
const TRIES: u32 = 5;
/// `deadlock_detected` and `serialization_failure`.
const UNDONE: [&str; 2] = ["40P01", "40001"];

/// Does `work`, which is one whole transaction, until it is not undone.
pub(super) async fn undisturbed<T, Once>(work: impl Fn() -> Once) -> Result<T>
where
    Once: Future<Output = Result<T>>,
{
    let mut tries = 1;
    loop {
        match work().await {
            Err(error) if tries < TRIES && was_undone(&error) => tries += 1,
            done => return done,
        }
    }
}

fn was_undone(error: &Error) -> bool {
    let Error::Internal { source, .. } = error else { return false };
    let Some(DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) =
        source.downcast_ref::<DbErr>()
    else {
        return false;
    };
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| UNDONE.contains(&code.as_ref()))
}
