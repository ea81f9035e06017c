//! What was refused, for the audit, within bounds: whoever knocks a thousand times a second must not fill the
//! database, nor push what others did out of sight.
//!
//! Within a minute the first [`ROWS`] refusals of one kind from one network are an event each; of the rest there is
//! one event at the end of the minute, which says how many they were. Each organization has [`APART`] kinds and
//! networks of its own, and what belongs to none as many, so that nobody's attempts hide those on another. Nothing of
//! a refused secret comes here. A process that is killed takes the numbers of its last minute with it.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use purser_proto_schema::ids::{ApiKeyId, OrganizationId, ServerId};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    error::chain,
    metrics::Metrics,
    request::{self, Request},
    store::{AuditEntry, Store},
};

/// Events of one kind from one network within a window.
const ROWS: u32 = 5;
/// Kinds and networks of one organization that are told apart within a window; all further ones of it are one.
const APART: usize = 100;
/// So many of all organizations together, but for the first few of each. Organizations only an operator makes, so this
/// bounds memory: some hundred bytes each.
const APART_IN_ALL: usize = 5_000;
const APART_ALWAYS: usize = 5;
/// How long a window is.
const WINDOW: Duration = Duration::from_secs(60);
/// Events that wait to be stored; what comes when they are so many is only counted.
const WAITING: usize = 256;

/// What was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// In whose audit it belongs; nobody's where that is not known.
    pub organization_id: Option<OrganizationId>,
    /// The key that it was about, where that is known.
    pub api_key_id: Option<ApiKeyId>,
    /// The server that it was about, where that is known.
    pub server_id: Option<ServerId>,
    /// What was asked for.
    pub action: &'static str,
    /// Why it was refused.
    pub outcome: &'static str,
}

/// The keeper of the bounds. Cheap to clone.
#[derive(Clone)]
pub struct Refusals {
    window: Arc<Mutex<Window>>,
    metrics: Arc<Metrics>,
    events: mpsc::Sender<Event>,
}

/// Refusals that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// Of one kind, from one network.
    Apart(Refusal, Option<IpAddr>),
    /// All of an organization that are not told apart.
    Many(Option<OrganizationId>),
}

#[derive(Default)]
struct Window {
    seen: HashMap<Kind, Seen>,
    /// How many are told apart, of each organization.
    apart: HashMap<Option<OrganizationId>, usize>,
    apart_in_all: usize,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    rows: u32,
    left_out: u32,
}

/// An event on its way to the database.
struct Event {
    refusal: Refusal,
    by: Option<Request>,
}

impl Refusals {
    /// Stores what is noted, until `stop` and then once more what was left out. `tasks` waits for that.
    pub fn start(store: Store, metrics: Arc<Metrics>, tasks: &TaskTracker, stop: CancellationToken) -> Self {
        let (events, waiting) = mpsc::channel(WAITING);
        let window = Arc::<Mutex<Window>>::default();
        tasks.spawn(keep(store, Arc::clone(&window), waiting, stop));
        Self { window, metrics, events }
    }

    /// Notes that the request that this task works for was refused. Waits for nothing.
    pub fn note(&self, refusal: Refusal) {
        self.metrics.refused(refusal.action, refusal.outcome);
        let by = request::current();
        let source = by.as_ref().and_then(|by| by.source);
        let kind = lock(&self.window).note(&refusal, source);
        // `None`: there were enough of it.
        let Some(kind) = kind else { return };
        if self.events.try_send(Event { refusal, by }).is_err() {
            lock(&self.window).leave_out(kind);
        }
    }
}

impl Window {
    /// Counts a refusal; gives its kind where it is to be an event of its own.
    fn note(&mut self, refusal: &Refusal, source: Option<IpAddr>) -> Option<Kind> {
        let mut kind = Kind::Apart(refusal.clone(), source.map(network));
        if !self.seen.contains_key(&kind) {
            let of = &refusal.organization_id;
            let apart = self.apart.entry(of.clone()).or_default();
            if *apart >= APART || (self.apart_in_all >= APART_IN_ALL && *apart >= APART_ALWAYS) {
                kind = Kind::Many(of.clone());
            } else {
                *apart += 1;
                self.apart_in_all += 1;
            }
        }
        let seen = self.seen.entry(kind.clone()).or_default();
        if seen.rows >= ROWS {
            seen.left_out = seen.left_out.saturating_add(1);
            return None;
        }
        seen.rows += 1;
        Some(kind)
    }

    /// What was to be an event could not be one.
    fn leave_out(&mut self, kind: Kind) {
        let seen = self.seen.entry(kind).or_default();
        seen.left_out = seen.left_out.saturating_add(1);
    }

    /// Ends the window: what was left out in it, and how often.
    fn end(&mut self) -> Vec<(Kind, u32)> {
        let Self { seen, .. } = std::mem::take(self);
        seen.into_iter()
            .filter(|(_, seen)| seen.left_out > 0)
            .map(|(kind, seen)| (kind, seen.left_out))
            .collect()
    }
}

/// One caller's addresses: an IPv6 host has as many as it likes within its /64.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

async fn keep(
    store: Store,
    window: Arc<Mutex<Window>>,
    mut events: mpsc::Receiver<Event>,
    stop: CancellationToken,
) {
    let mut windows = interval(WINDOW);
    windows.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = windows.tick() => sum_up(&store, &window).await,
            event = events.recv() => match event {
                Some(event) => tell(&store, event).await,
                None => break,
            },
        }
    }
    while let Ok(event) = events.try_recv() {
        tell(&store, event).await;
    }
    sum_up(&store, &window).await;
}

async fn tell(store: &Store, Event { refusal, by }: Event) {
    let (id, source) = by.map_or((None, None), |by| (Some(by.id), by.source));
    let entry = AuditEntry { request_id: id.as_ref(), source, ..entry(&refusal, 1) };
    append(store, entry).await;
}

async fn sum_up(store: &Store, window: &Mutex<Window>) {
    let left_out = lock(window).end();
    for (kind, count) in left_out {
        match &kind {
            Kind::Apart(refusal, source) => {
                tracing::warn!(
                    action = refusal.action,
                    outcome = refusal.outcome,
                    ?source,
                    count,
                    "refused again and again"
                );
                append(store, AuditEntry { source: *source, ..entry(refusal, count) }).await;
            }
            Kind::Many(organization_id) => {
                tracing::warn!(?organization_id, count, "refused in many ways or from many networks");
                append(
                    store,
                    AuditEntry { organization_id: organization_id.as_ref(), ..entry(&MANY, count) },
                )
                .await;
            }
        }
    }
}

/// Stands for all of an organization that was not told apart.
const MANY: Refusal = Refusal {
    organization_id: None,
    api_key_id: None,
    server_id: None,
    action: "many.refused",
    outcome: "many_sources",
};

fn entry(refusal: &Refusal, count: u32) -> AuditEntry<'_> {
    AuditEntry {
        organization_id: refusal.organization_id.as_ref(),
        api_key_id: refusal.api_key_id.as_ref(),
        action: refusal.action,
        registry_id: None,
        server_id: refusal.server_id.clone(),
        job_id: None,
        subject_api_key_id: None,
        subject_organization_id: None,
        outcome: refusal.outcome,
        request_id: None,
        source: None,
        count,
    }
}

async fn append(store: &Store, entry: AuditEntry<'_>) {
    let action = entry.action.to_owned();
    if let Err(error) = store.audit_append(entry).await {
        tracing::error!(action, error = %chain(&error), "a refusal could not be stored in the audit");
    }
}

/// Every change leaves the window whole, so a panic elsewhere does not matter here.
fn lock(window: &Mutex<Window>) -> MutexGuard<'_, Window> {
    window.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(outcome: &'static str) -> Refusal {
        Refusal { outcome, ..MANY }
    }

    fn from(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    #[test]
    fn of_many_refusals_a_few_are_events_and_the_rest_one_number() {
        let mut window = Window::default();
        let events = (0..1_000).filter(|_| window.note(&refusal("a"), from("10.0.0.1")).is_some()).count();
        assert_eq!(events, ROWS as usize);
        assert!(window.note(&refusal("a"), from("10.0.0.2")).is_some(), "another network");
        assert!(window.note(&refusal("b"), from("10.0.0.1")).is_some(), "another kind");
        let left_out = window.end();
        assert_eq!(left_out.len(), 1);
        assert_eq!(left_out[0].1, 1_000 - ROWS);
        assert!(window.end().is_empty());
        assert!(window.note(&refusal("a"), from("10.0.0.1")).is_some(), "the next window");
    }

    #[test]
    fn one_host_of_many_addresses_is_one_source() {
        let mut window = Window::default();
        let addresses = (0..100).map(|n| from(&format!("2001:db8::{n:x}")));
        let events = addresses.filter(|address| window.note(&refusal("a"), *address).is_some()).count();
        assert_eq!(events, ROWS as usize);
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), "10.0.0.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn many_networks_take_no_more_room_than_some() {
        let mut window = Window::default();
        let addresses = (0..10_000_u32).map(|n| Some(IpAddr::V4(n.into())));
        let events = addresses.filter(|address| window.note(&refusal("a"), *address).is_some()).count();
        assert_eq!(events, APART + ROWS as usize);
        assert_eq!(window.seen.len(), APART + 1);
        let left_out: u32 = window.end().iter().map(|(_, count)| count).sum();
        assert_eq!(left_out as usize, 10_000 - events);
    }

    fn of(organization: &OrganizationId, outcome: &'static str) -> Refusal {
        Refusal { organization_id: Some(organization.clone()), ..refusal(outcome) }
    }

    #[test]
    fn what_one_organization_has_refused_hides_nothing_of_another_or_of_none() {
        let mut window = Window::default();
        let (theirs, own) = (OrganizationId::generate(), OrganizationId::generate());
        for source in (0..500_u32).map(|n| Some(IpAddr::V4(n.into()))) {
            window.note(&of(&theirs, "a"), source);
        }
        for refusal in [of(&own, "b"), refusal("b")] {
            let noted = window.note(&refusal, from("10.0.0.1"));
            assert_eq!(noted, Some(Kind::Apart(refusal, from("10.0.0.1"))));
        }
        let many = window.end();
        assert_eq!(many, [(Kind::Many(Some(theirs)), 400 - ROWS)], "and the rest of theirs is told them");
    }

    #[test]
    fn many_organizations_take_no_more_room_than_some_and_each_hears_of_its_own() {
        let mut window = Window::default();
        let full: Vec<_> = (0..=APART_IN_ALL / APART).map(|_| OrganizationId::generate()).collect();
        for organization in &full {
            for source in (0..200_u32).map(|n| Some(IpAddr::V4(n.into()))) {
                window.note(&of(organization, "a"), source);
            }
        }
        assert_eq!(window.seen.len(), APART_IN_ALL + APART_ALWAYS + full.len());
        let late = Kind::Many(full.last().cloned());
        assert!(window.end().contains(&(late, 200 - APART_ALWAYS as u32 - ROWS)));
        assert!(window.apart.is_empty() && window.apart_in_all == 0, "the next window");
    }

    #[test]
    fn what_cannot_be_stored_in_time_is_counted() {
        let mut window = Window::default();
        let kind = window.note(&refusal("a"), None).unwrap();
        window.leave_out(kind);
        assert_eq!(window.end()[0].1, 1);
    }
}
