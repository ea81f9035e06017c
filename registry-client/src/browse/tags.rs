//! The tags of a repository.

use super::document::Verdict;
use super::list::{List, Walk, walk};
use super::{BrowseError, MAX_ITEMS, Page};
use crate::reference::{is_valid_digest, is_valid_tag};
use crate::session::Session;

/// How many pages of the registry one call may ask for where it hands out fewer names than were asked for.
const MAX_PAGES: usize = 10;

impl Session<'_> {
    /// Lists up to `limit` tags (1 to [`MAX_ITEMS`]) of a repository, given as the path below the registry. Tags that
    /// cosign makes for signatures (`sha256-….sig`) are left out.
    ///
    /// # Errors
    /// [`BrowseError::Failed`] with `not_found`, `forbidden` or `unauthorized` where the registry shows no such
    /// repository; which of them says little about whether it exists.
    pub async fn tags(
        &mut self,
        repository: &str,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page, BrowseError> {
        let repository = self.repository(repository)?;
        let limit = limit.clamp(1, MAX_ITEMS);
        let list = list_of(&repository, limit);
        match walk(self, &list, cursor, limit, MAX_PAGES).await? {
            Walk::Page(page) => Ok(page),
            Walk::Refused(answer) => Err(self.refusal(&answer, &format!("repository {repository}")).into()),
        }
    }
}

/// The tags of a repository whose path was checked.
pub(super) fn list_of(repository: &str, at_once: usize) -> List<'static> {
    List {
        path: format!("/v2/{repository}/tags/list"),
        scope: format!("repository:{repository}:pull"),
        key: "tags",
        at_once,
        what: format!("tags of {repository}"),
        keep: &judge,
    }
}

fn judge(tag: &str) -> Verdict {
    if is_of_cosign(tag) || is_valid_digest(tag) {
        // Artifactory lists digests among the tags.
        Verdict::Skip
    } else if is_valid_tag(tag) {
        Verdict::Keep
    } else {
        Verdict::Improper
    }
}

/// `sha256-HEX`, with whatever cosign adds.
fn is_of_cosign(tag: &str) -> bool {
    let Some(rest) = tag.strip_prefix("sha256-") else { return false };
    let Some((hex, suffix)) = rest.split_at_checked(64) else { return false };
    hex.bytes().all(|b| b.is_ascii_hexdigit()) && matches!(suffix, "" | ".sig" | ".att" | ".sbom")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_and_digests_are_no_tags() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for end in ["", ".sig", ".att", ".sbom"] {
            assert_eq!(judge(&format!("sha256-{hex}{end}")), Verdict::Skip);
        }
        assert_eq!(judge(&format!("sha256:{hex}")), Verdict::Skip);
        assert_eq!(judge(&format!("sha256-{hex}.exe")), Verdict::Keep);
        assert_eq!(judge("sha256-abc.sig"), Verdict::Keep);
        assert_eq!(judge("Latest_1.0"), Verdict::Keep);
        for tag in ["", "a\u{1b}[31m", "a b", "-a", &"a".repeat(129)] {
            assert_eq!(judge(tag), Verdict::Improper, "{tag}");
        }
    }
}
