//! Pages of catalogs as registries last answered them.
//!
//! A page is remembered for 5 minutes under everything that may change it: the organization, the entry,
//! the entry's version (`updatedAt`, which every change of an address or a credential moves on), the
//! cursor and the limit. So no other organization is shown it, and no other credential. Several callers
//! who ask for the same page at once ask the registry once. Refusals are not remembered.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use moka::future::Cache;
use purser_registry_client::browse::{BrowseError, Page};

use crate::store::RegistryRow;

/// How long a page is remembered.
const REMEMBERED: Duration = Duration::from_secs(5 * 60);
/// How much is remembered in all, in bytes.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// What a page or a name costs beside its text, about, in bytes.
const OVERHEAD: usize = 256;

/// Whose page it is, of what, and which.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    organization: String,
    registry: String,
    version: DateTime<Utc>,
    cursor: Option<String>,
    limit: usize,
}

impl Key {
    /// The page of an entry as it is now.
    pub(super) fn new(row: &RegistryRow, cursor: Option<&str>, limit: usize) -> Self {
        Self {
            organization: row.organization_id.clone(),
            registry: row.registry_id.clone(),
            version: row.updated_at,
            cursor: cursor.map(ToOwned::to_owned),
            limit,
        }
    }
}

/// The pages, at most 16 MiB of them. One per process.
pub struct CatalogCache {
    pages: Cache<Key, Arc<Page>>,
}

impl CatalogCache {
    /// An empty cache.
    pub fn new() -> Self {
        let pages = Cache::builder().max_capacity(MAX_BYTES).weigher(weight).time_to_live(REMEMBERED).build();
        Self { pages }
    }

    /// The page, if it is remembered.
    pub(super) async fn get(&self, key: &Key) -> Option<Arc<Page>> {
        self.pages.get(key).await
    }

    /// The page, read by `read` unless it is remembered or just being read for somebody else.
    pub(super) async fn get_or_read(
        &self,
        key: Key,
        read: impl Future<Output = Result<Page, BrowseError>>,
    ) -> Result<Arc<Page>, BrowseError> {
        let read = async { read.await.map(Arc::new) };
        self.pages.try_get_with(key, read).await.map_err(|error| BrowseError::clone(&error))
    }

    /// Remembers a page in place of what was there.
    pub(super) async fn replace(&self, key: Key, page: Page) -> Arc<Page> {
        let page = Arc::new(page);
        self.pages.insert(key, Arc::clone(&page)).await;
        page
    }
}

impl Default for CatalogCache {
    fn default() -> Self {
        Self::new()
    }
}

fn weight(key: &Key, page: &Arc<Page>) -> u32 {
    let texts = page.items.iter().chain(&page.warnings).chain(&page.next_cursor).chain(&key.cursor);
    let bytes = texts.fold(4 * OVERHEAD, |sum, text| sum + text.len() + OVERHEAD / 8);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn page(name: &str) -> Page {
        Page { items: vec![name.to_owned()], ..Page::default() }
    }

    #[tokio::test]
    async fn one_asks_for_all_who_want_the_same() {
        let (cache, asked) = (CatalogCache::new(), AtomicUsize::new(0));
        let row = RegistryRow::of_host("ghcr.io");
        let read = async || {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(page("a"))
        };
        let ask = async || cache.get_or_read(Key::new(&row, None, 100), read()).await;
        let (one, two) = tokio::join!(ask(), ask());
        assert_eq!((one, two), (Ok(Arc::new(page("a"))), Ok(Arc::new(page("a")))));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn another_organization_entry_version_cursor_or_limit_is_another_page() {
        let cache = CatalogCache::new();
        let row = RegistryRow::of_host("ghcr.io");
        cache.replace(Key::new(&row, None, 100), page("a")).await;
        let other = |change: fn(&mut RegistryRow)| {
            let mut row = row.clone();
            change(&mut row);
            Key::new(&row, None, 100)
        };
        for key in [
            other(|row| row.organization_id.push('x')),
            other(|row| row.registry_id.push('x')),
            other(|row| row.updated_at += Duration::from_millis(1)),
            Key::new(&row, Some("c"), 100),
            Key::new(&row, None, 99),
        ] {
            assert!(cache.get(&key).await.is_none(), "{key:?}");
        }
        assert!(cache.get(&Key::new(&row, None, 100)).await.is_some());
    }

    #[tokio::test]
    async fn a_refusal_is_not_remembered() {
        let cache = CatalogCache::new();
        let key = Key::new(&RegistryRow::of_host("ghcr.io"), None, 100);
        let refused = cache.get_or_read(key.clone(), async { Err(BrowseError::Query) }).await;
        assert_eq!(refused, Err(BrowseError::Query));
        assert!(cache.get_or_read(key, async { Ok(page("a")) }).await.is_ok());
    }

    #[test]
    fn a_long_cursor_weighs_as_much_as_it_is_long() {
        let row = RegistryRow::of_host("ghcr.io");
        let long = weight(&Key::new(&row, Some(&"x".repeat(12_000)), 1), &Arc::new(page("a")));
        assert!(long > 12_000 && long - weight(&Key::new(&row, Some(""), 1), &Arc::new(page("a"))) == 12_000);
    }
}
