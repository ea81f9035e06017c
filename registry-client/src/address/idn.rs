//! Host names in other letters than ASCII's: what DNS, TLS and the Engine call them.

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};
use unicode_security::{RestrictionLevel, RestrictionLevelDetection as _};

/// The ASCII form (`xn--…`) of a host name, lower case. `None` for a name that has none, and for one that is easily taken
/// for another: whose label mixes scripts (a Cyrillic letter in `ghcr`), or holds characters that no word has (invisible
/// ones, full-width letters and digits, symbols). Such a name can still be entered in its ASCII form.
pub(super) fn to_ascii(name: &str) -> Option<String> {
    let plain = |label: &str| label.detect_restriction_level() <= RestrictionLevel::HighlyRestrictive;
    if !name.split('.').all(plain) {
        return None;
    }
    let (deny, hyphens) = (AsciiDenyList::STD3, Hyphens::CheckFirstLast);
    let ascii = Uts46::new().to_ascii(name.as_bytes(), deny, hyphens, DnsLength::Verify).ok()?;
    Some(ascii.into_owned())
}
