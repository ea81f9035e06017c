//! The procedure table: one entry per public procedure, feeding every door.
//!
//! A namespace module declares its procedures with the macro `procedures!`;
//! [`table`] lists them all. The server registers one handler per entry and refuses to start when
//! one is missing, so a procedure is added in one place.

use serde::{Serialize, de::DeserializeOwned};

use crate::permission::Permission;

/// How a procedure is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Reads; may be called by GET, and never writes to the database.
    Query,
    /// May change something; never called by GET.
    Mutation,
    /// Reads, and goes on telling: a row of events, each an output with an id. Only on doors that can
    /// go on answering.
    Subscription,
}

/// What is known of a procedure without calling it.
#[derive(Clone, Copy, Debug)]
pub struct ProcedureInfo {
    /// The dotted name, the same on every door, such as `registry.testRegistryById`.
    pub name: &'static str,
    /// Query, mutation or subscription.
    pub kind: Kind,
    /// What a key needs to call it.
    pub permission: Permission,
    /// What it does, for people: Markdown, from the doc comment of its declaration.
    pub docs: &'static str,
}

impl ProcedureInfo {
    /// The JSON-RPC method that ends one of this subscription's: `job.unwatch` of `job.watch`. `None`
    /// for other kinds.
    #[must_use]
    pub fn unsubscribe(&self) -> Option<String> {
        let (namespace, name) = self.name.split_once('.').filter(|_| self.kind == Kind::Subscription)?;
        Some(format!("{namespace}.un{name}"))
    }
}

/// A procedure as a type: its table entry, and what goes in and out.
pub trait Procedure: 'static {
    /// The table entry.
    const INFO: ProcedureInfo;
    /// What the caller sends. An absent input is read as `{}`.
    type Input: DeserializeOwned + Send + 'static;
    /// What the caller gets; of a subscription, with each event.
    type Output: Serialize + Send + 'static;
}

/// Every procedure, namespace by namespace.
pub fn table() -> impl Iterator<Item = &'static ProcedureInfo> {
    [
        crate::registry::TABLE,
        crate::server::TABLE,
        crate::image::TABLE,
        crate::stack::TABLE,
        crate::job::TABLE,
        crate::audit::TABLE,
    ]
    .into_iter()
    .flatten()
}

/// The input of procedures that take none. Any field is refused as unknown.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoInput {}

/// Declares a namespace's procedures: a unit struct per procedure, and the namespace's `TABLE`.
macro_rules! procedures {
    ($($(#[doc = $doc:literal])+ $kind:ident $name:literal [$permission:ident] $marker:ident($input:ty) -> $output:ty;)*) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, Copy, Debug)]
            pub struct $marker;

            impl $crate::procedure::Procedure for $marker {
                const INFO: $crate::procedure::ProcedureInfo = $crate::procedure::ProcedureInfo {
                    name: $name,
                    kind: $crate::procedure::Kind::$kind,
                    permission: $crate::permission::Permission::$permission,
                    docs: concat!($($doc, "\n"),+),
                };
                type Input = $input;
                type Output = $output;
            }
        )*

        /// The namespace's part of the procedure table.
        pub const TABLE: &[$crate::procedure::ProcedureInfo] =
            &[$(<$marker as $crate::procedure::Procedure>::INFO),*];
    };
}
pub(crate) use procedures;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_dotted_and_documented() {
        let mut seen = HashSet::new();
        for info in table() {
            assert!(seen.insert(info.name), "{} is declared twice", info.name);
            assert_eq!(info.name.split('.').count(), 2, "{}", info.name);
            assert!(info.docs.trim().len() > 20, "{} has no docs", info.name);
        }
    }
}
