//! `registry.*`

use purser_proto_schema::registry::{
    All, Catalog, Create, Events, MatchImage, One, Presets, RateLimit, ReadManifest, Remove, Search, Tags,
    TestRegistry, TestRegistryById, Update,
};

use super::Registrar;
use crate::domain::registry;

pub(super) fn register(procedures: &mut Registrar) {
    procedures.add::<Create, _, _>(registry::create);
    procedures.add::<All, _, _>(|app, call, _| registry::all(app, call));
    procedures.add::<One, _, _>(registry::one);
    procedures.add::<Update, _, _>(registry::update);
    procedures.add::<Remove, _, _>(registry::remove);
    procedures.add::<TestRegistry, _, _>(registry::test_registry);
    procedures.add::<TestRegistryById, _, _>(registry::test_registry_by_id);
    procedures.add::<MatchImage, _, _>(registry::match_image);
    procedures.add::<Catalog, _, _>(registry::catalog);
    procedures.add::<Tags, _, _>(registry::tags);
    procedures.add::<Search, _, _>(registry::search);
    procedures.add::<ReadManifest, _, _>(registry::manifest);
    procedures.add::<RateLimit, _, _>(registry::rate_limit);
    procedures.add::<Presets, _, _>(|_, _, _| registry::presets());
    procedures.add_subscription::<Events, _, _>(registry::events);
}
