//! What a subscription tells, whatever the door.

use futures_util::stream::BoxStream;

use crate::error::Result;

/// One event, with the id by which a caller that lost the stream says how far it had come.
#[derive(Clone, Debug)]
pub struct Tracked<T> {
    /// Not empty, and without line breaks.
    pub id: String,
    /// What is told.
    pub data: T,
}

/// A subscription's events. It waits for whoever reads it, and holds back a bounded number of them at most.
/// It ends when there is no more to tell, after an error, and when the control plane stops.
pub type Events<T> = BoxStream<'static, Result<Tracked<T>>>;

/// A subscription that has begun.
pub struct Begun<T> {
    /// The id to go on from for a caller that loses the stream before it was told anything; `None` where
    /// nothing can be missed.
    pub since: Option<String>,
    /// What it tells.
    pub events: Events<T>,
}
