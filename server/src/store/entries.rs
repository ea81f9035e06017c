//! An organization's registry entries, and finding one of them without looking at them all.

use std::{ops::Deref, sync::OnceLock};

use crate::store::RegistryRow;

/// All entries of an organization, oldest first.
#[derive(Debug)]
pub struct Entries {
    rows: Vec<RegistryRow>,
    /// Made when it is first asked for: whoever only lists the entries doesn't need it.
    index: OnceLock<Index>,
}

/// Places in the rows.
#[derive(Debug)]
struct Index {
    /// All, ordered by host, namespace and age.
    by_host: Vec<usize>,
    /// The default's.
    default: Option<usize>,
}

impl Index {
    fn of(rows: &[RegistryRow]) -> Self {
        let mut by_host: Vec<usize> = (0..rows.len()).collect();
        by_host.sort_by_key(|place| {
            let row = &rows[*place];
            (&row.registry_host, &row.namespace, *place)
        });
        // The store keeps the mark on one entry at most.
        Self { by_host, default: rows.iter().position(|row| row.is_default) }
    }
}

impl Entries {
    /// The entry that is marked as the default.
    pub fn default_entry(&self) -> Option<&RegistryRow> {
        self.index().default.map(|place| &self.rows[place])
    }

    /// The entries of a canonical host.
    pub fn of_host<'a>(&'a self, host: &str) -> OfHost<'a> {
        let all = &self.index().by_host;
        let start = all.partition_point(|place| self.rows[*place].registry_host.as_str() < host);
        let end = all.partition_point(|place| self.rows[*place].registry_host.as_str() <= host);
        OfHost { rows: &self.rows, places: &all[start..end] }
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| Index::of(&self.rows))
    }
}

impl From<Vec<RegistryRow>> for Entries {
    /// Of rows that come oldest first.
    fn from(rows: Vec<RegistryRow>) -> Self {
        Self { rows, index: OnceLock::new() }
    }
}

impl Deref for Entries {
    type Target = [RegistryRow];

    fn deref(&self) -> &[RegistryRow] {
        &self.rows
    }
}

/// The entries of one host.
#[derive(Debug)]
pub struct OfHost<'a> {
    rows: &'a [RegistryRow],
    /// Ordered by namespace and age.
    places: &'a [usize],
}

impl<'a> OfHost<'a> {
    /// The oldest entry of exactly this namespace; `None` is the whole host.
    pub fn oldest_in(&self, namespace: Option<&str>) -> Option<&'a RegistryRow> {
        let before = |place: &usize| self.rows[*place].namespace.as_deref() < namespace;
        let first = self.places.get(self.places.partition_point(before))?;
        self.rows.get(*first).filter(|row| row.namespace.as_deref() == namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(host: &str, namespace: Option<&str>) -> RegistryRow {
        RegistryRow { namespace: namespace.map(ToOwned::to_owned), ..RegistryRow::of_host(host) }
    }

    #[test]
    fn an_entry_is_found_by_host_and_namespace_and_of_equals_the_oldest() {
        let rows = [
            row("quay.io", Some("b")),
            row("ghcr.io", None),
            row("ghcr.io", Some("a")),
            row("quay.io", Some("b")),
            row("ghcr.io", Some("a/b")),
        ];
        let entries = Entries::from(rows.to_vec());
        let found = |host, namespace| {
            let found = entries.of_host(host).oldest_in(namespace)?;
            entries.iter().position(|row| std::ptr::eq(row, found))
        };
        assert_eq!(found("quay.io", Some("b")), Some(0));
        assert_eq!(found("ghcr.io", None), Some(1));
        assert_eq!(found("ghcr.io", Some("a")), Some(2));
        assert_eq!(found("ghcr.io", Some("a/b")), Some(4));
        for (host, namespace) in [("ghcr.io", Some("b")), ("quay.io", None), ("quay", None), ("z", None)] {
            assert_eq!(found(host, namespace), None, "{host} {namespace:?}");
        }
    }
}
