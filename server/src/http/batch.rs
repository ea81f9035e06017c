//! How much the answers of one batch may be together: they are all in memory before the first is written.

use std::sync::atomic::{AtomicUsize, Ordering};

use purser_proto_schema::error::{Code, PublicError};

use super::BATCH_ANSWERS;

/// The room for a batch's answers. It is looked at before a call and not after it, so that none is made whose
/// answer is then withheld: those under way when it is used up go beyond it.
#[derive(Default)]
pub(super) struct Room(AtomicUsize);

impl Room {
    pub(super) fn is_left(&self) -> bool {
        self.0.load(Ordering::Relaxed) < BATCH_ANSWERS
    }

    pub(super) fn take(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The answers as one text, `[…]`. What has been copied is given back at once: together they may be large.
pub(super) fn joined(answers: Vec<String>) -> String {
    let mut text = String::with_capacity(answers.iter().map(|answer| answer.len() + 1).sum::<usize>() + 2);
    text.push('[');
    for (at, answer) in answers.into_iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(&answer);
    }
    text.push(']');
    text
}

/// The answer to a call that there is no room for.
pub(super) fn no_room() -> PublicError {
    let message = "not called: the answers of this batch are over 2 MiB by now; ask for less at once";
    PublicError::new(Code::PayloadTooLarge, message)
}
