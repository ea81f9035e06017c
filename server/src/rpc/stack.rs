//! `stack.*`

use purser_proto_schema::stack::{Images, Pull};

use super::Registrar;
use crate::domain::stack;

pub(super) fn register(procedures: &mut Registrar) {
    procedures.add::<Images, _, _>(stack::images);
    procedures.add::<Pull, _, _>(stack::pull);
}
