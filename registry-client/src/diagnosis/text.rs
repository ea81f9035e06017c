//! Making text from the network fit to be shown.

/// The longest text from the network that is passed on, in bytes.
pub const MAX_TEXT_BYTES: usize = 2048;

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
}
