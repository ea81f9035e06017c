//! `image.*`

use purser_proto_schema::image::{All, Pull, Push};

use super::Registrar;
use crate::domain::image;

pub(super) fn register(procedures: &mut Registrar) {
    procedures.add::<Pull, _, _>(image::pull);
    procedures.add::<Push, _, _>(image::push);
    procedures.add::<All, _, _>(image::all);
}
