//! Taking secrets out of what is shown: a registry may repeat what it was sent, in whichever spelling.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};

use super::presentable;

/// The shortest part of a secret that is taken for one, in bytes: its beginning at the end of a text, or all of it in a
/// host's name.
const MIN_PART_BYTES: usize = 4;

const REDACTED: &str = "[redacted]";

/// The secrets of one test, to be taken out of whatever the other side says: a registry may echo what it was sent.
#[derive(Default)]
pub struct Secrets {
    known: Vec<SecretString>,
    /// Names of hosts in which a secret is written.
    hosts: Vec<String>,
}

impl Secrets {
    /// Remembers a password: as it is, line by line, and as Basic credentials.
    pub fn add_credentials(&mut self, username: &str, password: &SecretString) {
        let plain = password.expose_secret();
        // With its padding before without: it is taken out in this order.
        for text in [format!("{username}:{plain}"), plain.to_owned()] {
            let encoded =
                [STANDARD.encode(&text), STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)];
            self.known.extend(encoded.map(SecretString::from));
        }
        self.known.push(password.clone());
        // As it is after what the other side said was made presentable.
        let shown = presentable(plain);
        if !shown.is_empty() && shown != plain {
            self.known.push(SecretString::from(shown));
        }
        for line in plain.lines().map(str::trim).filter(|line| line.len() >= 8) {
            self.known.push(SecretString::from(line));
        }
    }

    /// Remembers a token.
    pub(crate) fn add_token(&mut self, token: &SecretString) {
        self.known.push(token.clone());
    }

    /// Remembers a host that the other side named, if a secret is written in its name: our own texts name hosts.
    pub(crate) fn add_host(&mut self, host: &str) {
        let holds = |secret: &SecretString| {
            let secret = secret.expose_secret();
            secret.len() >= MIN_PART_BYTES && without(host, secret) != host
        };
        if self.known.iter().any(holds) {
            self.hosts.push(host.to_owned());
            // One name may hold another.
            self.hosts.sort_by_key(|host| std::cmp::Reverse(host.len()));
        }
    }

    /// A text of ours without the hosts in whose names a secret is written. Nothing else is taken out of it: a secret
    /// that happens to be a common word must not show as a hole.
    pub(crate) fn hide_hosts(&self, text: String) -> String {
        self.hosts.iter().fold(text, |text, host| text.replace(host, REDACTED))
    }

    /// `text` without any of the secrets, then made [`presentable`]. Letter case doesn't matter, nor whether it is
    /// encoded as in a URL or a form, once or twice; nor that it was cut at the end of the text.
    pub fn scrub(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.known {
            let secret = secret.expose_secret();
            if !secret.is_empty() && text.contains(secret) {
                text = text.replace(secret, REDACTED);
            }
        }
        for secret in &self.known {
            text = without(&text, secret.expose_secret());
        }
        presentable(&text)
    }
}

/// `text` without `secret`, in whichever spelling.
fn without(text: &str, secret: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        match seen(rest.as_bytes(), secret.as_bytes()) {
            Seen::Whole(length) if length > 0 => {
                out.push_str(REDACTED);
                rest = &rest[length..];
            }
            // The text was cut in the middle of it.
            Seen::Begun(bytes) if bytes >= MIN_PART_BYTES => {
                out.push_str(REDACTED);
                break;
            }
            _ => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    out
}

/// How much of a secret a text begins with.
enum Seen {
    /// All of it, in so many bytes of the text.
    Whole(usize),
    /// So many bytes of it, and there the text ends.
    Begun(usize),
    /// It is something else.
    No,
}

fn seen(text: &[u8], secret: &[u8]) -> Seen {
    match seen_escaped(text, secret, b"%") {
        Seen::No => seen_escaped(text, secret, b"%25"),
        seen => seen,
    }
}

/// `escape` is what stands before the digits of an escaped byte.
fn seen_escaped(text: &[u8], secret: &[u8], escape: &[u8]) -> Seen {
    let mut at = 0;
    for (matched, byte) in secret.iter().enumerate() {
        let rest = &text[at..];
        match spelled(rest, *byte, escape) {
            Some(length) => at += length,
            // Nothing, the first bytes of an escape, or of a character that was cut.
            None if is_cut(rest) => return Seen::Begun(matched),
            None => return Seen::No,
        }
    }
    Seen::Whole(at)
}

/// In how many bytes `text` begins with `byte`: as it is in either case, `+` for a space, or escaped.
fn spelled(text: &[u8], byte: u8, escape: &[u8]) -> Option<usize> {
    let is = |other: u8| other.eq_ignore_ascii_case(&byte);
    let escaped = || {
        let digits = text.strip_prefix(escape)?.get(..2)?;
        // `from_str_radix` would take a sign.
        let digits = std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_hexdigit))?;
        u8::from_str_radix(digits, 16).ok()
    };
    match *text.first()? {
        _ if escaped().is_some_and(is) => Some(escape.len() + 2),
        b'+' if byte == b' ' => Some(1),
        first if is(first) => Some(1),
        _ => None,
    }
}

fn is_cut(rest: &[u8]) -> bool {
    let escape = rest.len() < 5
        && rest.starts_with(b"%")
        && (rest.len() < 3 || rest.starts_with(b"%25"))
        && rest[1..].iter().all(u8::is_ascii_hexdigit);
    rest.is_empty() || escape || rest == "\u{fffd}".as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(password: &str) -> Secrets {
        let mut secrets = Secrets::default();
        secrets.add_credentials("bob", &SecretString::from(password));
        secrets
    }

    #[test]
    fn a_secret_is_scrubbed_as_it_is_written_in_urls_and_forms() {
        let secrets = of("Pä ss+/%41?");
        for written in [
            "Pä ss+/%41?",
            "pä SS+/%41?",
            "P%C3%A4%20ss%2B%2F%2541%3F",
            "P%c3%a4%20ss%2b%2f%2541%3f",
            "P%C3%A4+ss%2B%2F%2541%3F",
            "P%C3%A4%20ss+/%2541%3F",
            "%50%C3%A4%20%73%73%2B%2F%25%34%31%3F",
            "P%25C3%25A4%2520ss%252B%252F%252541%253F",
            "UMOkIHNzKy8lNDE/",
            "UMOkIHNzKy8lNDE%2F",
            "UMOkIHNzKy8lNDE_",
            "Ym9iOlDDpCBzcysvJTQxPw==",
            "Ym9iOlDDpCBzcysvJTQxPw",
            "Ym9iOlDDpCBzcysvJTQxPw%3D%3D",
        ] {
            let scrubbed = secrets.scrub(&format!("password={written}&x"));
            let rest = scrubbed.replace("==", "").replace("%3D%3D", "");
            assert_eq!(rest, "password=[redacted]&x", "{written}");
        }
        // Cut, also within an escape.
        for cut in ["P%C3%A4%20", "P%C3%A4%20s%7", "P%C3%A4%20s%", "p%c3%a4+ss%252"] {
            assert_eq!(secrets.scrub(&format!("you sent {cut}")), "you sent [redacted]", "{cut}");
        }
        for other in ["P%C3%A4", "nothing of it", "Pä ss+/%42?", "100%", "a%zz%4"] {
            assert_eq!(secrets.scrub(other), other);
        }
    }

    #[test]
    fn a_host_is_hidden_only_if_a_secret_is_written_in_its_name() {
        let mut secrets = of("Hunter-2.xyz");
        for host in ["hunter-2.xyz", "a.hunter-2.xyz.evil.test", "auth.example.com"] {
            secrets.add_host(host);
        }
        let shown = |text: &str| secrets.hide_hosts(text.to_owned());
        assert_eq!(shown("token issued by a.hunter-2.xyz.evil.test:5001"), "token issued by [redacted]:5001");
        assert_eq!(shown("auth.example.com has no address here"), "auth.example.com has no address here");
        let mut short = of("the");
        short.add_host("the.example.com");
        assert_eq!(short.hide_hosts("the.example.com".to_owned()), "the.example.com");
    }

    #[test]
    fn a_secret_that_was_cut_or_changed_by_being_made_presentable_is_scrubbed() {
        let secret = format!("begin-{}", "long".repeat(1000));
        let secrets = of(&secret);
        let said = presentable(&format!("{} {secret}", "x".repeat(1500)));
        assert!(said.contains("begin-longlong"));
        assert_eq!(secrets.scrub(&said), format!("{} [redacted]", "x".repeat(1500)));
        let basic = STANDARD.encode(format!("bob:{secret}"));
        assert_eq!(secrets.scrub(&format!("you sent {}", &basic[..99])), "you sent [redacted]");

        let secret = "zero\u{200b}width\tand://user@host?query";
        let secrets = of(secret);
        assert_eq!(secrets.scrub(&presentable(&format!("a {secret} b"))), "a [redacted] b");
        assert_eq!(secrets.scrub("a zero"), "a [redacted]");
        assert_eq!(secrets.scrub("a zer"), "a zer");
    }

    #[test]
    fn an_echoed_secret_is_scrubbed_however_it_comes_back() {
        let mut secrets = of("line one is long\nline two is long");
        secrets.add_token(&SecretString::from("tok-123"));
        let basic = STANDARD.encode("bob:line one is long\nline two is long");
        let echoed = format!("a {basic} b line one is long\r\nline two is long c tok-123");
        assert_eq!(secrets.scrub(&echoed), "a [redacted] b [redacted]  [redacted] c [redacted]");
    }
}
