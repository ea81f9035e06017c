//! Permissions and the roles that bundle them.

use serde::{Deserialize, Serialize};

macro_rules! permissions {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// What a key may do. Every procedure names exactly one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Permission {
            $($(#[doc = $doc])* #[serde(rename = $text)] $name,)*
        }

        impl Permission {
            /// Every permission there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name as keys and documents carry it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

permissions! {
    /// See registry entries.
    RegistryRead = "registry:read",
    /// Create and change registry entries.
    RegistryWrite = "registry:write",
    /// Remove registry entries.
    RegistryDelete = "registry:delete",
    /// Test credentials, stored or given.
    RegistryTest = "registry:test",
    /// See servers.
    ServerRead = "server:read",
    /// Create and change servers, issue join tokens.
    ServerWrite = "server:write",
    /// Remove servers.
    ServerDelete = "server:delete",
    /// See the images on a host.
    ImageRead = "image:read",
    /// Pull images onto hosts.
    ImagePull = "image:pull",
    /// Push images from hosts.
    ImagePush = "image:push",
    /// See jobs.
    JobRead = "job:read",
    /// Cancel and repeat jobs.
    JobWrite = "job:write",
    /// See who did what.
    AuditRead = "audit:read",
}

/// A named set of permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Everything in its organization.
    Admin,
    /// Read, test, pull, push and watch; change nothing that is stored.
    Deployer,
    /// Read only.
    Viewer,
}

impl Role {
    /// Whether the role includes the permission.
    #[must_use]
    pub fn allows(self, permission: Permission) -> bool {
        use Permission::{
            AuditRead, ImagePull, ImagePush, ImageRead, JobRead, JobWrite, RegistryDelete, RegistryRead,
            RegistryTest, RegistryWrite, ServerDelete, ServerRead, ServerWrite,
        };
        match permission {
            RegistryRead | ServerRead | ImageRead | JobRead => true,
            RegistryTest | ImagePull | ImagePush | JobWrite => !matches!(self, Self::Viewer),
            RegistryWrite | RegistryDelete | ServerWrite | ServerDelete | AuditRead => {
                matches!(self, Self::Admin)
            }
        }
    }
}
