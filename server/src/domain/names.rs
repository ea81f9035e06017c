//! Names for people: of organizations, keys, servers and registry entries.

use crate::error::Issues;

const MAX_CHARS: usize = 255;

/// A name: trimmed, 1 to 255 characters, no control characters. What is wrong is noted of `field`.
pub fn check(issues: &mut Issues, field: &'static str, text: &str) -> String {
    let text = text.trim();
    if text.is_empty() {
        issues.add(field, "must not be empty");
    } else if text.chars().count() > MAX_CHARS {
        issues.add(field, "is longer than 255 characters");
    } else if text.chars().any(char::is_control) {
        issues.add(field, "must not have control characters");
    }
    text.to_owned()
}
