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

/// A subscription's events. It waits for whoever reads it, and holds nothing back but the next one. It
/// ends when there is no more to tell, after an error, and when the control plane stops.
pub type Events<T> = BoxStream<'static, Result<Tracked<T>>>;
