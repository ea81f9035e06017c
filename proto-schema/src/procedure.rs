//! The procedure table: one entry per public procedure, feeding every door.
//!
//! A namespace module declares its procedures with the macro `procedures!`;
//! [`table`] lists them all. The server registers one handler per entry and refuses to start when
//! one is missing, so a procedure is added in one place. One without docs, schemas or an example
//! (`example-calls/<name>.json`) does not compile.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, de::DeserializeOwned};

use crate::{error::Code, permission::Permission};

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

/// The codes that every procedure may answer; one that changes something may meet a CONFLICT, too.
pub const USUAL: &[Code] = &[
    Code::BadRequest,
    Code::Unauthorized,
    Code::Forbidden,
    Code::NotFound,
    Code::TooManyRequests,
    Code::InternalServerError,
    Code::ServiceUnavailable,
];

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
    /// A call of it that may really happen: a JSON object with `input` and `output`, of a subscription an
    /// event's.
    pub example: &'static str,
    /// What a query asks besides the database, which may take long: a registry, a host.
    pub asks: Option<&'static str>,
    /// The codes that it may answer besides [`USUAL`] ones.
    pub fails: &'static [Code],
    /// The schema of what goes in; see [`schema`](crate::schema), which asks once.
    pub(crate) input: fn(&mut SchemaGenerator) -> Schema,
    /// The schema of what comes out.
    pub(crate) output: fn(&mut SchemaGenerator) -> Schema,
}

impl ProcedureInfo {
    /// The docs without their line breaks and rustdoc's links.
    #[must_use]
    pub fn description(&self) -> String {
        crate::schema::plain_markdown(self.docs)
    }

    /// Every code that it may answer, on any door: what the documents say.
    pub fn codes(&self) -> impl Iterator<Item = Code> {
        let changes = (self.kind == Kind::Mutation).then_some(Code::Conflict);
        USUAL.iter().copied().chain(changes).chain(self.fails.iter().copied())
    }

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
    type Input: Input;
    /// What the caller gets; of a subscription, with each event.
    type Output: Output;
}

/// What goes into a procedure: read by the server, described to everybody, and written by a client.
#[cfg(feature = "client")]
pub trait Input: DeserializeOwned + Serialize + JsonSchema + Send + 'static {}
#[cfg(feature = "client")]
impl<T: DeserializeOwned + Serialize + JsonSchema + Send + 'static> Input for T {}

/// What goes into a procedure: read by the server, and described to everybody.
#[cfg(not(feature = "client"))]
pub trait Input: DeserializeOwned + JsonSchema + Send + 'static {}
#[cfg(not(feature = "client"))]
impl<T: DeserializeOwned + JsonSchema + Send + 'static> Input for T {}

/// What comes out of a procedure: written by the server, described to everybody, and read by a client.
pub trait Output: Serialize + DeserializeOwned + JsonSchema + Send + 'static {}
impl<T: Serialize + DeserializeOwned + JsonSchema + Send + 'static> Output for T {}

/// Something to do for each procedure as a type.
pub trait Visitor {
    /// Does it.
    fn visit<P: Procedure>(&mut self);
}

/// Visits the procedures in the order of [`table`].
pub fn visit(visitor: &mut impl Visitor) {
    crate::registry::visit(visitor);
    crate::server::visit(visitor);
    crate::image::visit(visitor);
    crate::stack::visit(visitor);
    crate::job::visit(visitor);
    crate::organization::visit(visitor);
    crate::api_key::visit(visitor);
    crate::audit::visit(visitor);
}

/// Every procedure, namespace by namespace.
pub fn table() -> impl Iterator<Item = &'static ProcedureInfo> {
    [
        crate::registry::TABLE,
        crate::server::TABLE,
        crate::image::TABLE,
        crate::stack::TABLE,
        crate::job::TABLE,
        crate::organization::TABLE,
        crate::api_key::TABLE,
        crate::audit::TABLE,
    ]
    .into_iter()
    .flatten()
}

/// The input of procedures that take none. Any field is refused as unknown.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize, JsonSchema)]
#[cfg_attr(feature = "client", derive(Serialize))]
#[serde(deny_unknown_fields)]
pub struct NoInput {}

/// Declares a namespace's procedures: a unit struct per procedure, and the namespace's `TABLE`. Behind the
/// output, `asks "a host"` says what a query asks besides the database, and `fails [NotImplemented]` names codes that are
/// not [`USUAL`].
macro_rules! procedures {
    ($(
        $(#[doc = $doc:literal])+
        $kind:ident $name:literal [$permission:ident] $marker:ident($input:ty) -> $output:ty
        $(, asks $asks:literal)? $(, fails [$($code:ident),+])?;
    )*) => {
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
                    // Not found? Every procedure has an example there: {"input": …, "output": …}.
                    example: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/example-calls/", $name, ".json")),
                    asks: [$($asks)?].first().copied(),
                    fails: &[$($($crate::error::Code::$code),+)?],
                    input: schemars::SchemaGenerator::subschema_for::<$input>,
                    output: schemars::SchemaGenerator::subschema_for::<$output>,
                };
                type Input = $input;
                type Output = $output;
            }
        )*

        /// The namespace's part of the procedure table.
        pub const TABLE: &[$crate::procedure::ProcedureInfo] =
            &[$(<$marker as $crate::procedure::Procedure>::INFO),*];

        /// Visits the namespace's procedures.
        pub(crate) fn visit(visitor: &mut impl $crate::procedure::Visitor) {
            $(visitor.visit::<$marker>();)*
        }
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
