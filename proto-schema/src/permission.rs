//! Permissions and the roles that bundle them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! permissions {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal $(| $alias:literal)?,)*) => {
        /// What a key may do. Every procedure names exactly one. The names that `ShiftLabs` gives to
        /// registry permissions are understood, too; they are always shown by their names here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        pub enum Permission {
            $($(#[doc = $doc])* #[serde(rename = $text $(, alias = $alias)?)] $name,)*
        }

        impl Permission {
            /// Every permission there is, in the order in which keys list them.
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
    RegistryRead = "registry:read" | "iam:project:cicd:registry:read",
    /// Create and change registry entries; to test them first takes `registry:test`.
    RegistryWrite = "registry:write" | "iam:project:cicd:registry:write",
    /// Remove registry entries.
    RegistryDelete = "registry:delete" | "iam:project:cicd:registry:delete",
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
    /// See the key's organization.
    OrganizationRead = "organization:read",
    /// Change the key's organization.
    OrganizationWrite = "organization:write",
    /// See the organization's API keys, never the keys themselves.
    ApiKeyRead = "apiKey:read",
    /// Create API keys that may do no more than this one.
    ApiKeyWrite = "apiKey:write",
    /// Remove API keys.
    ApiKeyDelete = "apiKey:delete",
    /// See who did what.
    AuditRead = "audit:read",
    /// Create organizations, and the first keys in them. Beyond any one organization, so no role has it:
    /// the key of the first start has, and keys that such a key grants it to.
    InstanceAdmin = "instance:admin",
}

/// A named set of permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// Every role there is.
    pub const ALL: &'static [Self] = &[Self::Admin, Self::Deployer, Self::Viewer];

    /// The name as keys and documents carry it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Deployer => "deployer",
            Self::Viewer => "viewer",
        }
    }

    /// Whether the role includes the permission.
    #[must_use]
    pub fn allows(self, permission: Permission) -> bool {
        use Permission::{
            ApiKeyDelete, ApiKeyRead, ApiKeyWrite, AuditRead, ImagePull, ImagePush, ImageRead, InstanceAdmin,
            JobRead, JobWrite, OrganizationRead, OrganizationWrite, RegistryDelete, RegistryRead,
            RegistryTest, RegistryWrite, ServerDelete, ServerRead, ServerWrite,
        };
        match permission {
            RegistryRead | ServerRead | ImageRead | JobRead | OrganizationRead | ApiKeyRead => true,
            RegistryTest | ImagePull | ImagePush | JobWrite => !matches!(self, Self::Viewer),
            // Who did what is for those who answer for it.
            RegistryWrite | RegistryDelete | ServerWrite | ServerDelete | OrganizationWrite | ApiKeyWrite
            | ApiKeyDelete | AuditRead => matches!(self, Self::Admin),
            InstanceAdmin => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_another_product_are_understood_and_shown_as_ours() {
        for (theirs, ours) in [
            ("iam:project:cicd:registry:read", "registry:read"),
            ("iam:project:cicd:registry:write", "registry:write"),
            ("iam:project:cicd:registry:delete", "registry:delete"),
        ] {
            let read: Permission = serde_json::from_value(theirs.into()).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), ours);
        }
    }

    #[test]
    fn the_admin_role_has_everything_in_its_organization_and_nothing_beyond() {
        for permission in Permission::ALL {
            assert_eq!(Role::Admin.allows(*permission), *permission != Permission::InstanceAdmin);
        }
    }

    #[test]
    fn a_lesser_role_has_nothing_that_a_greater_one_has_not() {
        for permission in Permission::ALL {
            for pair in Role::ALL.windows(2) {
                assert!(pair[0].allows(*permission) || !pair[1].allows(*permission), "{permission:?}");
            }
        }
    }
}
