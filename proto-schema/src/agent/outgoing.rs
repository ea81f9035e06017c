//! What a session has to write: a bounded line of texts, and at most one reason to close.
//!
//! Channels would do as well, and take a KiB or two for each session; a control plane holds thousands of
//! sessions that have nothing to say.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, Semaphore};

use super::close::CloseCode;

/// The line between those who say something and the one who writes it.
#[derive(Debug)]
pub struct Outgoing {
    places: Semaphore,
    line: Mutex<Line>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Line {
    texts: VecDeque<String>,
    close: Close,
}

#[derive(Debug, Default)]
enum Close {
    #[default]
    No,
    Asked(CloseCode),
    Given,
}

/// What is to be written next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A text.
    Text(String),
    /// A goodbye, before any text that waits.
    Close(CloseCode),
}

/// The session has ended: nothing is written any more.
#[derive(Debug, thiserror::Error)]
#[error("the session has ended")]
pub struct Ended;

impl Outgoing {
    /// An empty line for so many texts.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self { places: Semaphore::new(places), line: Mutex::default(), more: Notify::new() }
    }

    /// Puts a text into the line, once it has a place.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn send(&self, text: String) -> Result<(), Ended> {
        // It comes back when the text goes out.
        self.places.acquire().await.map_err(|_| Ended)?.forget();
        self.line().texts.push_back(text);
        self.more.notify_one();
        Ok(())
    }

    /// Asks to close. False where somebody has asked before: that is what is said.
    pub fn close(&self, code: CloseCode) -> bool {
        let mut line = self.line();
        if !matches!(line.close, Close::No) {
            return false;
        }
        line.close = Close::Asked(code);
        self.more.notify_one();
        true
    }

    /// Waits for what is to be written next. For one who writes; nothing is lost where it stops waiting.
    pub async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.more.notified().await;
        }
    }

    /// Ends the line: what waits in it is dropped, and who waits for a place is told.
    pub(super) fn end(&self) {
        self.places.close();
        self.line().texts = VecDeque::new();
    }

    fn take(&self) -> Option<Next> {
        let mut line = self.line();
        if let Close::Asked(code) = line.close {
            line.close = Close::Given;
            return Some(Next::Close(code));
        }
        let text = line.texts.pop_front()?;
        if line.texts.is_empty() {
            line.texts = VecDeque::new();
        }
        self.places.add_permits(1);
        Some(Next::Text(text))
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // Every change leaves the line whole, so a panic elsewhere does not matter here.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn text(text: &str) -> Option<Next> {
        Some(Next::Text(text.to_owned()))
    }

    #[test]
    fn texts_go_out_in_their_order_and_no_more_wait_than_may() {
        let line = Outgoing::new(2);
        let send = |text: &str| line.send(text.to_owned());
        assert!(send("first").now_or_never().is_some());
        assert!(send("second").now_or_never().is_some());
        let mut third = Box::pin(send("third"));
        assert!((&mut third).now_or_never().is_none(), "it has no place");
        assert_eq!(line.next().now_or_never(), text("first"));
        assert!(third.now_or_never().is_some());
        assert_eq!(line.next().now_or_never(), text("second"));
        assert_eq!(line.next().now_or_never(), text("third"));
        assert_eq!(line.next().now_or_never(), None);
    }

    #[test]
    fn who_waits_is_woken_by_a_text_and_by_a_close() {
        let line = Outgoing::new(1);
        let mut next = Box::pin(line.next());
        assert!((&mut next).now_or_never().is_none());
        assert!(line.send("late".to_owned()).now_or_never().is_some());
        assert_eq!(next.now_or_never(), text("late"));
        let mut next = Box::pin(line.next());
        assert!((&mut next).now_or_never().is_none());
        assert!(line.close(CloseCode::Removed));
        assert_eq!(next.now_or_never(), Some(Next::Close(CloseCode::Removed)));
    }

    #[test]
    fn the_first_reason_to_close_is_said_once_and_before_what_waits() {
        let line = Outgoing::new(1);
        assert!(line.send("waits".to_owned()).now_or_never().is_some());
        assert!(line.close(CloseCode::Superseded));
        assert!(!line.close(CloseCode::Removed));
        assert_eq!(line.next().now_or_never(), Some(Next::Close(CloseCode::Superseded)));
        assert!(!line.close(CloseCode::Removed));
        assert_eq!(line.next().now_or_never(), text("waits"));
    }

    #[test]
    fn at_the_end_nobody_waits_for_a_place() {
        let line = Outgoing::new(1);
        assert!(line.send("waits".to_owned()).now_or_never().is_some());
        let mut next = Box::pin(line.send("too late".to_owned()));
        assert!((&mut next).now_or_never().is_none());
        line.end();
        assert!(next.now_or_never().unwrap().is_err());
        assert_eq!(line.next().now_or_never(), None);
    }
}
