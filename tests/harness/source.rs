//! The workspace's own source text, for the tests that hold its rules.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One Rust source file.
pub struct Source {
    /// Relative to the workspace, with `/`.
    pub path: String,
    /// As it is.
    pub text: String,
    /// Without comments and without what is inside literals: only there is a name a use of it.
    pub code: String,
}

impl Source {
    /// Whether `path` (`sea_orm`, `crate::store`) is mentioned as a path or identifier of its own.
    pub fn mentions(&self, path: &str) -> bool {
        let bounded = |at: usize| {
            let before = self.code[..at].chars().next_back();
            let after = self.code[at + path.len()..].chars().next();
            let joins = |neighbour: Option<char>| neighbour.is_some_and(|c| c.is_alphanumeric() || c == '_');
            !joins(before) && !joins(after)
        };
        self.code.match_indices(path).any(|(at, _)| bounded(at)) || self.imports_from_crate(path)
    }

    /// `use crate::{…, store, …}` hides `crate::store` from a plain look.
    fn imports_from_crate(&self, path: &str) -> bool {
        let Some(module) = path.strip_prefix("crate::") else { return false };
        self.code.split("use crate::{").skip(1).any(|rest| {
            let end = rest.find(';').unwrap_or(rest.len());
            top_level_items(&rest[..end])
                .iter()
                .any(|item| item.split(|c: char| !(c.is_alphanumeric() || c == '_')).next() == Some(module))
        })
    }
}

/// The items of one use group, nested groups left whole.
fn top_level_items(group: &str) -> Vec<&str> {
    let (mut items, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(group[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(group[start..].trim());
    items
}

/// The workspace's root.
pub fn workspace() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().expect("the workspace is where it was built")
}

/// All `.rs` files of the workspace's crates, in order of path.
///
/// # Panics
/// The workspace cannot be read.
pub fn all() -> Vec<Source> {
    let root = workspace();
    let mut out = Vec::new();
    for entry in fs::read_dir(&root).expect("the workspace can be read").flatten() {
        if entry.path().join("Cargo.toml").is_file() {
            collect(&root, &entry.path(), &mut out);
        }
    }
    out.sort_by(|one, other| one.path.cmp(&other.path));
    out
}

fn collect(root: &Path, folder: &Path, out: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a folder of the workspace can be read").flatten() {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "target" {
            collect(root, &path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file can be read");
            let path = path.strip_prefix(root).expect("below the root").display().to_string();
            out.push(Source { path, code: code_of(&text), text });
        }
    }
}

/// Blanks comments and the inside of string, byte-string, raw-string and character literals.
/// Lines stay lines.
pub fn code_of(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word_before = out.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(hashes) = raw_string(rest).filter(|_| !word_before) {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = rest.find('"').unwrap_or_default() + 1;
            rest[open..].find(&close).map_or(rest.len(), |at| open + at + close.len())
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' {
            character(rest)
        } else {
            0
        };
        if skipped == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
            out.push(' ');
            rest = &rest[skipped..];
        }
    }
    out
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// The number of `#` when a raw string begins here.
fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let body = after.trim_start_matches('#');
    body.starts_with('"').then(|| after.len() - body.len())
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// A character literal, or 0 for a lifetime.
fn character(rest: &str) -> usize {
    let mut inside = rest.chars().skip(1);
    let is_literal = match inside.next() {
        Some('\\') => true,
        Some(_) => inside.next() == Some('\''),
        None => false,
    };
    if is_literal { quoted(rest, '\'') } else { 0 }
}
