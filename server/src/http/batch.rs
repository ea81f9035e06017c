//! How much the answers of one batch may be together: they are all in memory before the first is written.

use std::sync::atomic::{AtomicUsize, Ordering};

use purser_proto_schema::error::{Code, PublicError};

use super::{BATCH_ANSWERS, BATCH_WIDTH, Doors, unread::Held};
use crate::domain::caller::Caller;

/// The room for a batch's answers. It is looked at before a call and not after it, so that none is made whose
/// answer is then withheld: those under way when it is used up go beyond it. What is gathered here has not been read, and
/// one call may keep all others waiting.
pub(super) struct Room {
    taken: AtomicUsize,
    unread: Held,
}

impl Room {
    pub(super) fn of(doors: &Doors, caller: Option<&Caller>) -> Self {
        Self { taken: AtomicUsize::new(0), unread: doors.unread.nothing(caller) }
    }

    pub(super) fn is_left(&self) -> bool {
        self.taken.load(Ordering::Relaxed) < BATCH_ANSWERS
    }

    pub(super) fn take(&self, bytes: usize) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        self.unread.more(bytes);
    }
}

/// Makes a call of a batch of so many. Those of a large one take turns at the processor with those of all others: whoever
/// asks for much at once leaves one to everybody else.
pub(super) async fn in_turn<T>(doors: &Doors, calls: usize, call: impl Future<Output = T>) -> T {
    if calls > BATCH_WIDTH { doors.large_batches.take(call).await } else { call.await }
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
