//! Names for people: of organizations, keys, servers and registry entries.

use purser_proto_schema::limits;

use crate::error::Issues;

/// A name: trimmed, 1 to 255 characters, no control characters. What is wrong is noted of `field`.
pub fn check(issues: &mut Issues, field: &'static str, text: &str) -> String {
    let length = text.chars().count();
    let text = text.trim();
    if text.is_empty() {
        issues.add(field, "must not be empty");
    } else if length > limits::NAME_CHARS {
        issues.add(field, "is longer than 255 characters");
    } else if text.chars().any(char::is_control) {
        issues.add(field, "must not have control characters");
    }
    text.to_owned()
}
