//! `job.*`

use purser_proto_schema::job::{All, Cancel, One, Retry, Watch};

use super::Registrar;
use crate::domain::job;

pub(super) fn register(procedures: &mut Registrar) {
    procedures.add::<One, _, _>(job::one);
    procedures.add::<All, _, _>(job::all);
    procedures.add::<Cancel, _, _>(job::cancel);
    procedures.add::<Retry, _, _>(job::retry);
    procedures.add_subscription::<Watch, _, _>(job::watch);
}
