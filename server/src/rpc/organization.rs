//! `organization.*`

use purser_proto_schema::organization::{All, Create, One, Update};

use super::Registrar;
use crate::domain::organization;

pub(super) fn register(procedures: &mut Registrar) {
    procedures.add::<Create, _, _>(organization::create);
    procedures.add::<All, _, _>(|app, call, _| organization::all(app, call));
    procedures.add::<One, _, _>(organization::one);
    procedures.add::<Update, _, _>(organization::update);
}
