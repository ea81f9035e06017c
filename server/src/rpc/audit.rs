//! `audit.*`

use purser_proto_schema::audit::All;

use super::Registrar;
use crate::domain::audit;

pub(super) fn register(procedures: &mut Registrar) {
    procedures.add::<All, _, _>(audit::all);
}
