//! What a stack pulls: each image once per platform, with its entry.

use std::collections::HashMap;

use purser_proto_schema::{ids::RegistryId, limits::TARGETS, secret::Secret, stack::StackImage};

use super::compose::Wanted;
use crate::{
    dispatch::plan::Work,
    domain::{
        job::NewTarget,
        matching::{self, Match},
        registry::{reason_among, taken_apart},
        targets,
    },
    error::{Error, Result},
    store::{Entries, RegistryRow, ServerRow},
};

/// One image for one platform.
#[derive(Debug)]
pub struct Pull<'a> {
    /// Fully qualified.
    pub image: String,
    /// With which entry.
    pub found: Match<'a>,
    /// Whether the call named the entry.
    is_named: bool,
    platform: Option<String>,
    services: Vec<String>,
}

/// The pulls of the services, by the one resolver. `platform` is for services that name none.
///
/// # Errors
/// [`Error::Invalid`] naming `composeFile` and the place of an image that cannot stand below the default
/// registry, or `registryId` when no image is of the named entry's registry.
pub fn of<'a>(
    entries: &'a Entries,
    named: Option<&'a RegistryRow>,
    wanted: Vec<Wanted>,
    platform: Option<&str>,
) -> Result<Vec<Pull<'a>>> {
    let mut pulls: Vec<Pull<'a>> = Vec::new();
    let mut places = HashMap::new();
    for Wanted { service, reference, platform: own, at } in wanted {
        let named = named.filter(|entry| matching::is_of_registry(entry, &reference));
        let found = matching::resolve(entries, reference, named).map_err(|error| match error {
            Error::Invalid(issues) => at.refuses(&issues.rules()),
            other => other,
        })?;
        let (image, is_named) = (found.reference.to_string(), named.is_some());
        let platform = own.or_else(|| platform.map(ToOwned::to_owned));
        let place = *places.entry((image.clone(), platform.clone())).or_insert(pulls.len());
        match pulls.get_mut(place) {
            Some(pull) => pull.services.push(service),
            None => pulls.push(Pull { image, found, is_named, platform, services: vec![service] }),
        }
    }
    if named.is_some() && !pulls.iter().any(|pull| pull.is_named) {
        return Err(Error::field("registryId", "is an entry of a registry that no image of the file is of"));
    }
    Ok(pulls)
}

/// Whether pulls can be one job.
///
/// # Errors
/// [`Error::Invalid`].
pub fn check(pulls: &[Pull<'_>], servers: usize, with_auth: bool) -> Result<()> {
    let Some((first, others)) = pulls.split_first() else {
        return Err(Error::field("composeFile", "has nothing to pull: stack.images says why"));
    };
    if pulls.len() * servers > TARGETS {
        let rule = format!(
            "has {} images, for {servers} servers: these are more than {TARGETS} pulls; choose fewer servers",
            pulls.len()
        );
        return Err(Error::field("composeFile", rule));
    }
    if with_auth && others.iter().any(|pull| pull.found.host != first.found.host) {
        return Err(Error::field(
            "auth",
            "is for one registry, and the images are of several: store an entry for each instead",
        ));
    }
    Ok(())
}

impl Pull<'_> {
    /// For callers.
    pub fn shown(self, entries: &[RegistryRow]) -> StackImage {
        let reason = match self.found.entry {
            Some(entry) if self.is_named => {
                format!("It is pulled with the entry {}, which the call names.", entry.registry_name)
            }
            _ => reason_among(entries, &self.found),
        };
        StackImage {
            reference: taken_apart(&self.found),
            registry_id: self.found.entry.map(|entry| RegistryId::from_stored(entry.registry_id.clone())),
            services: self.services,
            image: self.image,
            platform: self.platform,
            reason,
        }
    }

    /// On a host.
    pub fn target(&self, server: &ServerRow, one_time: Option<(String, Secret)>) -> NewTarget {
        let work = Work::Pull { image: self.image.clone(), platform: self.platform.clone() };
        let Match { reference, entry, .. } = &self.found;
        targets::target(server, self.image.clone(), work, *entry, reference.registry(), one_time)
    }
}
