//! `registry.*`

use purser_proto_schema::registry::{All, Create, One, Remove, TestRegistry, TestRegistryById, Update};

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
}
