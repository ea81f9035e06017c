//! Proof that a secret is nowhere: it is looked for in every form in which software leaks it.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use memchr::memmem;

use crate::percent;

/// Slices of long secrets that are looked for by themselves: logs truncate, database pages split.
const SLICE: usize = 32;

/// One place where a secret was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, or nothing for bytes in memory.
    pub file: Option<PathBuf>,
    /// In which form, e.g. `base64`.
    pub form: String,
    /// At which byte.
    pub offset: usize,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.file.as_deref().unwrap_or(Path::new("(bytes)"));
        write!(out, "{} at {} byte {}", self.form, place.display(), self.offset)
    }
}

/// Where to look: a file, a folder with all below it, or bytes.
pub trait Place {
    /// Calls `visit` with each piece.
    fn each(&self, visit: &mut dyn FnMut(Option<&Path>, &[u8]));
}

impl Place for Path {
    fn each(&self, visit: &mut dyn FnMut(Option<&Path>, &[u8])) {
        let Ok(kind) = fs::symlink_metadata(self) else { return };
        if kind.is_dir() {
            for entry in fs::read_dir(self).into_iter().flatten().flatten() {
                entry.path().as_path().each(visit);
            }
        } else if kind.is_file() {
            // A file that went away between listing and reading holds nothing any more.
            visit(Some(self), &fs::read(self).unwrap_or_default());
        }
    }
}

impl Place for PathBuf {
    fn each(&self, visit: &mut dyn FnMut(Option<&Path>, &[u8])) {
        self.as_path().each(visit);
    }
}

impl Place for [u8] {
    fn each(&self, visit: &mut dyn FnMut(Option<&Path>, &[u8])) {
        visit(None, self);
    }
}

impl Place for Vec<u8> {
    fn each(&self, visit: &mut dyn FnMut(Option<&Path>, &[u8])) {
        visit(None, self);
    }
}

impl Place for str {
    fn each(&self, visit: &mut dyn FnMut(Option<&Path>, &[u8])) {
        visit(None, self.as_bytes());
    }
}

impl Place for String {
    fn each(&self, visit: &mut dyn FnMut(Option<&Path>, &[u8])) {
        visit(None, self.as_bytes());
    }
}

/// Every place in `place` where `secret` is to be found: raw, JSON-escaped (once, twice, with
/// `\u`), as Rust's `Debug` writes it, URL-encoded, hex, and base64 of each of these texts in
/// both alphabets at all three alignments.
///
/// # Panics
/// The secret is shorter than 6 bytes: base64 of so little is found anywhere.
pub fn scan_for_secret<P: Place + ?Sized>(place: &P, secret: &str) -> Vec<Finding> {
    let needles = Needles::of(secret);
    let mut found = Vec::new();
    place.each(&mut |file, bytes| found.extend(needles.scan(file, bytes)));
    found
}

/// The secret part of an API key that Purser made: what follows `purser_` and the public part. It is base64url and
/// may hold `_` itself.
///
/// # Panics
/// The text has no third part.
pub fn of_key(key: &str) -> &str {
    key.splitn(3, '_').nth(2).expect("a key of Purser's own making")
}

/// All forms of one secret, made once for many scans.
pub struct Needles(Vec<(String, memmem::Finder<'static>)>);

impl Needles {
    /// The forms of `secret`.
    ///
    /// # Panics
    /// As [`scan_for_secret`].
    pub fn of(secret: &str) -> Self {
        assert!(secret.len() >= 6, "too short a secret to look for");
        let mut forms = BTreeMap::<Vec<u8>, String>::new();
        for (what, text) in texts(secret) {
            for (form, needle) in encodings(&text) {
                let name = format!("{what}{form}");
                forms.entry(needle).or_insert(name);
            }
        }
        Self(
            forms
                .into_iter()
                .map(|(needle, form)| (form, memmem::Finder::new(&needle).into_owned()))
                .collect(),
        )
    }

    /// The first place of each form in `bytes`.
    pub fn scan(&self, file: Option<&Path>, bytes: &[u8]) -> Vec<Finding> {
        let hits = self.0.iter().filter_map(|(form, needle)| Some((form, needle.find(bytes)?)));
        hits.map(|(form, offset)| Finding { file: file.map(Path::to_owned), form: form.clone(), offset })
            .collect()
    }
}

/// The secret and, when it is long, slices of it.
fn texts(secret: &str) -> Vec<(&'static str, String)> {
    let mut out = vec![("", secret.to_owned())];
    if secret.len() > 2 * SLICE {
        let cut = |from: usize| {
            let start = secret.ceil_char_boundary(from);
            secret[start..secret.ceil_char_boundary(start + SLICE)].to_owned()
        };
        out.push(("start, ", cut(0)));
        out.push(("middle, ", cut(secret.len() / 2)));
        out.push(("end, ", cut(secret.len() - SLICE)));
    }
    out
}

fn encodings(text: &str) -> Vec<(&'static str, Vec<u8>)> {
    let json = json_escaped(text);
    let json_twice = json_escaped(&json);
    let ascii = ascii_json_escaped(text);
    let form = percent::encode(text).replace("%20", "+");
    let mut out: Vec<(&'static str, Vec<u8>)> = vec![
        ("raw", text.into()),
        ("JSON twice", json_twice.into()),
        ("JSON in ASCII", ascii.clone().into()),
        ("Rust Debug", text.escape_debug().to_string().into()),
        ("URL", percent::encode(text).into()),
        ("URL, lower case", lower_hex(&percent::encode(text)).into()),
        ("form", form.into()),
        ("hex", hex(text, |byte| format!("{byte:02x}")).into()),
        ("HEX", hex(text, |byte| format!("{byte:02X}")).into()),
    ];
    for (name, url_name, text) in [
        ("base64", "base64url", text),
        ("base64 of JSON", "base64url of JSON", &json),
        ("base64 of ASCII JSON", "base64url of ASCII JSON", &ascii),
    ] {
        for needle in base64_at_all_alignments(text.as_bytes()) {
            out.push((url_name, needle.replace('+', "-").replace('/', "_").into()));
            out.push((name, needle.into()));
        }
    }
    out.push(("JSON", json.into()));
    out
}

/// The characters of base64 that depend on `bytes` alone, when 0, 1 or 2 bytes precede it.
fn base64_at_all_alignments(bytes: &[u8]) -> Vec<String> {
    let of = |before: usize| {
        let padded = [&[0, 0][..before], bytes].concat();
        let whole = BASE64_STANDARD.encode(&padded);
        let first = (before * 8).div_ceil(6);
        let last = padded.len() * 8 / 6;
        whole[first..last].to_owned()
    };
    (0..3).map(of).collect()
}

fn json_escaped(text: &str) -> String {
    let quoted = serde_json::to_string(text).expect("a string can be written");
    quoted[1..quoted.len() - 1].to_owned()
}

/// As Go's and Python's encoders write it: nothing above ASCII, and `<`, `>`, `&` escaped.
fn ascii_json_escaped(text: &str) -> String {
    let mut out = String::new();
    for unit in json_escaped(text).encode_utf16() {
        match u8::try_from(unit).ok().filter(|byte| byte.is_ascii() && !b"<>&".contains(byte)) {
            Some(byte) => out.push(char::from(byte)),
            None => out.push_str(&format!("\\u{unit:04x}")),
        }
    }
    out
}

fn lower_hex(encoded: &str) -> String {
    let mut parts = encoded.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at(2);
        out.push_str(&format!("%{}{rest}", code.to_lowercase()));
    }
    out
}

fn hex(text: &str, digit: impl Fn(u8) -> String) -> String {
    text.bytes().map(digit).collect()
}
