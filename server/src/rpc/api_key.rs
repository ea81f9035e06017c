//! `apiKey.*`

use purser_proto_schema::api_key::{All, Create, Remove};

use super::Registrar;
use crate::domain::api_key;

pub(super) fn register(procedures: &mut Registrar) {
    procedures.add::<Create, _, _>(api_key::create);
    procedures.add::<All, _, _>(|app, call, _| api_key::all(app, call));
    procedures.add::<Remove, _, _>(api_key::remove);
}
