//! A Compose file, read for what a pull needs: which services are in, and which image each names.
//!
//! Of a service only the keys of [`Service`] are looked at, and everything else is read over, whatever it
//! is: a pull needs no valid port. Anchors, aliases and merge keys are the parser's. What an error says is
//! where, and which rule; of the file's text it says nothing but the name of a variable, because it may hold
//! secrets.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
};

use purser_proto_schema::stack::{Skip, SkippedService, Variables};
use purser_registry_client::Reference;
use serde::{Deserialize, de::IgnoredAny};
use serde_saphyr::{Location, Spanned, options::NonFiniteFloatPolicy};

use super::interpolation;
use crate::{domain::targets, error::Error};

/// The services of a file, at most.
const MAX_SERVICES: usize = 500;
/// The longest name of a service, in bytes.
const MAX_SERVICE_NAME: usize = 255;
/// Every profile.
const EVERY_PROFILE: &str = "*";

/// What a file comes to.
#[derive(Debug)]
pub struct Stack {
    /// By the names of the services.
    pub wanted: Vec<Wanted>,
    /// By the names of the services.
    pub skipped: Vec<SkippedService>,
}

impl Stack {
    /// Takes names without a registry for Docker Hub's, whatever the organization's default is.
    pub fn write_registries(&mut self) {
        for wanted in &mut self.wanted {
            wanted.reference = wanted.reference.clone().with_registry_written();
        }
    }
}

/// A service whose image is to be pulled.
#[derive(Debug)]
pub struct Wanted {
    /// Its name.
    pub service: String,
    /// Its image.
    pub reference: Reference,
    /// Its platform, where it names one.
    pub platform: Option<String>,
    /// Where the file names the image.
    pub at: Place,
}

/// A place in the file, as people count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    line: u64,
    column: u64,
}

impl Place {
    /// The error of what is wrong here.
    pub fn refuses(self, rule: &str) -> Error {
        Fault::new(self, rule.to_owned()).into()
    }
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

/// What is wrong with a file, and where.
#[derive(Debug)]
pub struct Fault {
    at: Option<Place>,
    rule: Cow<'static, str>,
}

impl Fault {
    fn new(at: impl Into<Place>, rule: impl Into<Cow<'static, str>>) -> Self {
        Self { at: Some(at.into()), rule: rule.into() }
    }

    fn of_file(rule: impl Into<Cow<'static, str>>) -> Self {
        Self { at: None, rule: rule.into() }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let Fault { at, rule } = fault;
        match at {
            Some(Place { line, column }) => {
                Self::field("composeFile", format!("line {line}, column {column}: {rule}"))
            }
            None => Self::field("composeFile", rule),
        }
    }
}

#[derive(Deserialize)]
struct File {
    services: Option<BTreeMap<String, Spanned<Option<Service>>>>,
    include: Option<Spanned<IgnoredAny>>,
}

#[derive(Default, Deserialize)]
struct Service {
    image: Option<Spanned<String>>,
    build: Option<IgnoredAny>,
    provider: Option<IgnoredAny>,
    platform: Option<Spanned<String>>,
    pull_policy: Option<Spanned<String>>,
    profiles: Option<Vec<Spanned<String>>>,
    extends: Option<Spanned<Extends>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Extends {
    Name(String),
    Long { service: String, file: Option<IgnoredAny> },
}

/// Reads a file. Takes time: a hundred milliseconds, for the worst that the bounds allow.
///
/// # Errors
/// [`Fault`], for what is no Compose file and for what it leaves open.
pub fn read(text: &str, variables: &Variables, profiles: &[String]) -> Result<Stack, Fault> {
    let file: File = serde_saphyr::from_str_with_options(text, bounds()).map_err(|error| fault(&error))?;
    if let Some(include) = file.include {
        return Err(Fault::new(
            include.referenced,
            "includes other files, which cannot be seen from here: send the output of `docker compose config \
             --no-interpolate`",
        ));
    }
    let services = file.services.unwrap_or_default();
    if services.is_empty() {
        return Err(Fault::of_file("has no services"));
    }
    if services.len() > MAX_SERVICES {
        return Err(Fault::of_file("has more than 500 services: send it in parts"));
    }
    let mut stack = Stack { wanted: Vec::new(), skipped: Vec::new() };
    let reader = Reader { services: &services, variables, profiles };
    for (name, service) in &services {
        if !is_service_name(name) {
            return Err(Fault::new(
                service.referenced,
                "a service's name must be 1 to 255 letters, digits, `.`, `_` and `-`",
            ));
        }
        match reader.service(name, service.referenced.into())? {
            Ok(wanted) => stack.wanted.push(wanted),
            Err(why) => stack.skipped.push(skipped(name, why)),
        }
    }
    Ok(stack)
}

/// What the parser takes. A file within its limit of length has some ten thousand nodes; the bounds are on
/// what comes of them by aliases and merge keys.
fn bounds() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 64,
            max_nodes: 100_000,
            max_events: 250_000,
            max_anchors: 2_000,
            max_aliases: 10_000,
            max_merge_keys: 2_000,
            max_recorded_anchor_events: 250_000,
            max_recorded_anchor_bytes: 8 * 1024 * 1024,
            // One anchor that every service of a large file uses is usual.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 },
        with_snippet: false,
        // In what is read over, anything may stand.
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
    }
}

/// The parser's error, in words that repeat nothing of the file.
fn fault(error: &serde_saphyr::Error) -> Fault {
    use serde_saphyr::Error as E;
    let rule: Cow<'static, str> = match error.without_snippet() {
        E::AliasError { error: inner, .. } => return Fault { at: place(error), ..fault(inner) },
        E::Unexpected { expected, .. } => format!("expected {expected}").into(),
        // The scanner's own words; where it quotes a character, up to that.
        E::ExternalMessage { msg, .. } => {
            let words = msg.split(['`', '\'', '"']).next().unwrap_or_default();
            format!("is no YAML: {}", words.trim_end_matches([' ', ':'])).into()
        }
        E::DuplicateMappingKey { .. } => "a key is there twice".into(),
        E::UnknownAnchor { .. } => "an alias names no anchor before it".into(),
        E::RecursiveReferencesRequireWeakTypes { .. } => "an anchor holds itself".into(),
        E::MergeValueNotMapOrSeqOfMaps { .. } => "`<<` takes a mapping, or a list of mappings".into(),
        E::MultipleDocuments { .. } => "a second document begins here: send one".into(),
        E::Eof { .. } => "ends too early".into(),
        E::Budget { .. }
        | E::AliasReplayCounterOverflow { .. }
        | E::AliasReplayLimitExceeded { .. }
        | E::AliasExpansionLimitExceeded { .. }
        | E::AliasReplayStackDepthExceeded { .. } => {
            "is nested too deeply, or too large with its aliases and merge keys filled in".into()
        }
        _ => "is no YAML of the form that a Compose file has".into(),
    };
    Fault { at: place(error), rule }
}

fn place(error: &serde_saphyr::Error) -> Option<Place> {
    error.location().map(Place::from)
}

fn is_service_name(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=MAX_SERVICE_NAME).contains(&name.len()) && name.chars().all(is_part)
}

/// Whether a text can be a profile that a caller asks for.
pub fn is_profile(text: &str) -> bool {
    text == EVERY_PROFILE || is_service_name(text)
}

fn skipped(service: &str, why: Skip) -> SkippedService {
    let reason = match why {
        Skip::Build => "it is built and names no image: build it on the host",
        Skip::PullPolicy => "its pull_policy says that it is not pulled",
        Skip::Profile => "none of its profiles was asked for",
        Skip::Provider => "a provider brings it, and no image",
    };
    SkippedService { service: service.to_owned(), why, reason: reason.to_owned() }
}

/// What a service is with what it extends.
#[derive(Default)]
struct Whole<'a> {
    image: Option<&'a Spanned<String>>,
    platform: Option<&'a Spanned<String>>,
    pull_policy: Option<&'a Spanned<String>>,
    profiles: Vec<&'a Spanned<String>>,
    is_built: bool,
    is_provided: bool,
    extends_elsewhere: bool,
}

struct Reader<'a> {
    services: &'a BTreeMap<String, Spanned<Option<Service>>>,
    variables: &'a Variables,
    profiles: &'a [String],
}

impl<'a> Reader<'a> {
    /// The pull of a service, or why it needs none.
    fn service(&self, name: &str, at: Place) -> Result<Result<Wanted, Skip>, Fault> {
        let whole = self.whole(name)?;
        if !self.is_in(&whole)? {
            return Ok(Err(Skip::Profile));
        }
        if whole.is_provided {
            return Ok(Err(Skip::Provider));
        }
        if matches!(self.filled(whole.pull_policy)?.as_deref(), Some("never" | "build")) {
            return Ok(Err(Skip::PullPolicy));
        }
        let (Some(image), Some(text)) = (whole.image, self.filled(whole.image)?) else {
            return match whole {
                Whole { is_built: true, .. } => Ok(Err(Skip::Build)),
                Whole { extends_elsewhere: true, .. } => Err(Fault::new(
                    at,
                    "extends a service of another file, which cannot be seen from here: send the output of \
                     `docker compose config --no-interpolate`",
                )),
                _ => Err(Fault::new(at, "a service must have image or build")),
            };
        };
        let at = image.referenced.into();
        let reference = Reference::parse(&text).map_err(|error| Fault::new(at, error.to_string()))?;
        let platform = self.filled(whole.platform)?;
        if let (Some(text), Some(written)) = (&platform, whole.platform)
            && !targets::is_platform(text)
        {
            return Err(Fault::new(written.referenced, format!("platform {}", targets::PLATFORM_RULE)));
        }
        Ok(Ok(Wanted { service: name.to_owned(), reference, platform, at }))
    }

    /// A service with what it extends in this file: its own keys first.
    fn whole(&self, name: &str) -> Result<Whole<'a>, Fault> {
        let mut whole = Whole::default();
        let mut seen = HashSet::new();
        let (mut name, mut from) = (name, None);
        loop {
            let Some((name_here, service)) = self.services.get_key_value(name) else {
                let rule = "extends a service that is not in the file";
                return Err(Fault { at: from, rule: rule.into() });
            };
            let Some(body) = &service.value else {
                return Err(Fault::new(service.referenced, "a service must be a mapping"));
            };
            if !seen.insert(name_here) {
                return Err(Fault { at: from, rule: "a service extends itself".into() });
            }
            whole.image = whole.image.or(body.image.as_ref());
            whole.platform = whole.platform.or(body.platform.as_ref());
            whole.pull_policy = whole.pull_policy.or(body.pull_policy.as_ref());
            whole.profiles.extend(body.profiles.iter().flatten());
            whole.is_built |= body.build.is_some();
            whole.is_provided |= body.provider.is_some();
            let Some(extends) = &body.extends else { return Ok(whole) };
            from = Some(extends.referenced.into());
            name = match &extends.value {
                Extends::Name(name) | Extends::Long { service: name, file: None } => name,
                Extends::Long { file: Some(_), .. } => {
                    whole.extends_elsewhere = true;
                    return Ok(whole);
                }
            };
        }
    }

    /// Whether a service has no profiles, or one that was asked for.
    fn is_in(&self, whole: &Whole<'_>) -> Result<bool, Fault> {
        let mut is_in = whole.profiles.is_empty();
        for profile in &whole.profiles {
            let name = self.filled(Some(profile))?.unwrap_or_default();
            is_in |= self.profiles.iter().any(|asked| asked == EVERY_PROFILE || *asked == name);
        }
        Ok(is_in)
    }

    /// A text with its variables filled in; none where nothing is left of it.
    fn filled(&self, text: Option<&Spanned<String>>) -> Result<Option<String>, Fault> {
        let Some(text) = text else { return Ok(None) };
        let filled = interpolation::expand(&text.value, self.variables)
            .map_err(|refusal| Fault::new(text.referenced, refusal.rule()))?;
        Ok(Some(filled).filter(|filled| !filled.is_empty()))
    }
}

#[cfg(test)]
mod tests;
