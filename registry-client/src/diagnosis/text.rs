//! Making text from the network fit to be shown.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};

/// The longest text from the network that is passed on, in bytes.
pub const MAX_TEXT_BYTES: usize = 2048;

/// The shortest beginning of a secret at the end of a text that is taken for one, in bytes.
const MIN_CUT_BYTES: usize = 4;

/// Strips control characters (a newline or tab becomes a space), invisible direction marks and the query and user
/// information of URLs, and cuts at [`MAX_TEXT_BYTES`] on a character boundary.
pub fn presentable(text: &str) -> String {
    // Whatever is beyond this can't survive the cut; it bounds the work on hostile input.
    let text = cut(text, 8 * MAX_TEXT_BYTES);
    let visible: String = text.chars().filter_map(visible).collect();
    let redacted = redact_urls(visible.trim());
    cut(&redacted, MAX_TEXT_BYTES).to_owned()
}

fn visible(c: char) -> Option<char> {
    match c {
        '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => Some(' '),
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => None,
        c if c.is_control() => None,
        c => Some(c),
    }
}

fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// Token servers are asked with the account and sometimes more in the query; Engines repeat such URLs in their errors.
fn redact_urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = rest.find("://") {
        let (before, after) = rest.split_at(found + 3);
        out.push_str(before);
        let end = after.find([' ', '"', '\'', '<', '>']).unwrap_or(after.len());
        let (url, tail) = after.split_at(end);
        let (path, query) = url.split_once('?').map_or((url, false), |(path, _)| (path, true));
        let authority_end = path.find('/').unwrap_or(path.len());
        let host = path[..authority_end].rfind('@').map_or(0, |at| at + 1);
        out.push_str(&path[host..]);
        if query {
            out.push_str("?…");
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// The secrets of one test, to be taken out of whatever the other side says: a registry may echo what it was sent.
#[derive(Default)]
pub struct Secrets(Vec<SecretString>);

impl Secrets {
    /// Remembers a password: as it is, line by line, and as Basic credentials.
    pub fn add_credentials(&mut self, username: &str, password: &SecretString) {
        let plain = password.expose_secret();
        self.0.push(SecretString::from(STANDARD.encode(format!("{username}:{plain}"))));
        self.0.push(password.clone());
        // As it is after what the other side said was made presentable.
        let shown = presentable(plain);
        if !shown.is_empty() && shown != plain {
            self.0.push(SecretString::from(shown));
        }
        for line in plain.lines().map(str::trim).filter(|line| line.len() >= 8) {
            self.0.push(SecretString::from(line));
        }
    }

    /// Remembers a token.
    pub(crate) fn add_token(&mut self, token: &SecretString) {
        self.0.push(token.clone());
    }

    /// `text` without any of the secrets, then made [`presentable`].
    pub fn scrub(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            let secret = secret.expose_secret();
            if !secret.is_empty() && text.contains(secret) {
                text = text.replace(secret, "[redacted]");
            }
        }
        for secret in &self.0 {
            // What was said may have been cut in the middle of a secret.
            let end = text.trim_end_matches('\u{fffd}');
            let begun = begun_at_end(end, secret.expose_secret());
            if begun >= MIN_CUT_BYTES {
                text.truncate(end.len() - begun);
                text.push_str("[redacted]");
            }
        }
        presentable(&text)
    }
}

/// How many bytes at the end of `text` are the beginning of `secret`; 0 for all of it or nothing.
fn begun_at_end(text: &str, secret: &str) -> usize {
    let most = text.len().min(secret.len().saturating_sub(1));
    (1..=most)
        .rev()
        .find(|&length| {
            text.as_bytes().ends_with(&secret.as_bytes()[..length]) && secret.is_char_boundary(length)
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_direction_marks_do_not_survive() {
        assert_eq!(presentable("a\u{1b}[31mb\r\nc\u{202e}d\0\u{85}"), "a[31mb  cd");
    }

    #[test]
    fn long_text_is_cut_on_a_character_boundary() {
        let text = presentable(&"é".repeat(5000));
        assert!(text.len() <= MAX_TEXT_BYTES && text.len() > MAX_TEXT_BYTES - 4);
        assert!(presentable(&"\0".repeat(1_000_000)).is_empty());
    }

    #[test]
    fn queries_and_user_information_of_urls_are_redacted() {
        assert_eq!(
            presentable(
                r#"Get "https://u:p@auth.test/token?account=bob&x=y": no such host, see https://a.test"#
            ),
            r#"Get "https://auth.test/token?…": no such host, see https://a.test"#
        );
    }

    #[test]
    fn a_secret_that_was_cut_or_changed_by_being_made_presentable_is_scrubbed() {
        let secret = format!("begin-{}", "long".repeat(1000));
        let mut secrets = Secrets::default();
        secrets.add_credentials("bob", &SecretString::from(secret.clone()));
        let said = presentable(&format!("{} {secret}", "x".repeat(1500)));
        assert!(said.contains("begin-longlong"));
        assert_eq!(secrets.scrub(&said), format!("{} [redacted]", "x".repeat(1500)));
        let basic = STANDARD.encode(format!("bob:{secret}"));
        assert_eq!(secrets.scrub(&format!("you sent {}", &basic[..99])), "you sent [redacted]");

        let mut secrets = Secrets::default();
        let secret = "zero\u{200b}width\tand://user@host?query";
        secrets.add_credentials("bob", &SecretString::from(secret));
        assert_eq!(secrets.scrub(&presentable(&format!("a {secret} b"))), "a [redacted] b");
        assert_eq!(secrets.scrub("a zero"), "a [redacted]");
        assert_eq!(secrets.scrub("a zer"), "a zer");
    }

    #[test]
    fn an_echoed_secret_is_scrubbed_however_it_comes_back() {
        let mut secrets = Secrets::default();
        let password = SecretString::from("line one is long\nline two is long");
        secrets.add_credentials("bob", &password);
        secrets.add_token(&SecretString::from("tok-123"));
        let basic = STANDARD.encode("bob:line one is long\nline two is long");
        let echoed = format!("a {basic} b line one is long\r\nline two is long c tok-123");
        assert_eq!(secrets.scrub(&echoed), "a [redacted] b [redacted]  [redacted] c [redacted]");
    }
}
