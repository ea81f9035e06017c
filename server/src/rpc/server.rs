//! `server.*`

use purser_proto_schema::server::{All, Create, CreateJoinToken, One, Remove, Update};

use super::Registrar;
use crate::domain::server;

pub(super) fn register(procedures: &mut Registrar) {
    procedures.add::<Create, _, _>(server::create);
    procedures.add::<All, _, _>(|app, call, _| server::all(app, call));
    procedures.add::<One, _, _>(server::one);
    procedures.add::<Update, _, _>(server::update);
    procedures.add::<Remove, _, _>(server::remove);
    procedures.add::<CreateJoinToken, _, _>(server::create_join_token);
}
