//! When a row was last changed, by which two changes at once are told apart.

use chrono::{DateTime, Duration, SubsecRound, Utc};
use purser_proto_schema::time::Timestamp;

use crate::error::{Error, Result};

/// The time of a change of what was last changed at `before`: the present, to the millisecond, and in any
/// case later than that, so that no two states of a row bear the same time.
pub fn after(before: DateTime<Utc>) -> DateTime<Utc> {
    Utc::now().max(before + Duration::milliseconds(1)).trunc_subsecs(3)
}

/// CONFLICT where the caller says as of when it knows the row, and it was changed since.
pub fn unchanged_since(what: &'static str, updated_at: DateTime<Utc>, seen: Option<Timestamp>) -> Result<()> {
    match seen {
        Some(seen) if Timestamp::from(seen.to_utc()) != Timestamp::from(updated_at) => {
            Err(Error::Changed(what))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_changes_bear_the_same_time() {
        let future = Utc::now().trunc_subsecs(3) + Duration::seconds(60);
        assert_eq!(after(future), future + Duration::milliseconds(1));
        assert!(after(Utc::now()) > Utc::now() - Duration::seconds(1));
    }

    #[test]
    fn what_is_shown_to_the_millisecond_is_compared_to_it() {
        let stored = Utc::now();
        assert!(unchanged_since("row", stored, None).is_ok());
        assert!(unchanged_since("row", stored, Some(stored.into())).is_ok());
        assert!(unchanged_since("row", after(stored), Some(stored.into())).is_err());
    }
}
