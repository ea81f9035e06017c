//! What several control planes over one PostgreSQL know of each other: who lives, who holds which
//! session, and what one tells the others (`LISTEN`/`NOTIFY`: ids only, since what is said may be lost,
//! and everything is in rows).
//!
//! SQLite has one control plane, and none of this.

use purser_proto_schema::{
    agent::calls::Attempt,
    ids::{JobId, OrganizationId, ServerId},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseBackend, EntityTrait, QueryFilter, QuerySelect, Statement,
    sea_query::Expr,
};
use serde::{Deserialize, Serialize};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};

use super::{
    Fence, REACH, Store,
    entity::{job_target, replica, replica_question, server},
    failed,
};
use crate::error::{Error, Result};

const CHANNEL: &str = "purser";

/// What one control plane tells the others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Signal {
    /// This one lives. Heard by itself, too: then it still hears.
    Alive {
        /// Who is no more, since this one took its data folder over.
        instead_of: Option<String>,
    },
    /// Too much to say: anything may have changed.
    All {},
    /// A question waits for whoever holds the server's session.
    Question {
        /// Which.
        question_id: String,
        /// About whose host.
        server_id: ServerId,
    },
    /// A question is answered.
    Answer {
        /// Which.
        question_id: String,
    },
    /// A server's queue may hold something.
    Queue {
        /// Whose.
        server_id: ServerId,
    },
    /// A job changed.
    Job {
        /// Which.
        job_id: JobId,
    },
    /// Whoever holds the server's session is to stop a target.
    Stop {
        /// Whose.
        server_id: ServerId,
        /// What.
        attempt: Attempt,
    },
    /// A session began: older ones of the server are over.
    Began {
        /// Whose.
        server_id: ServerId,
        /// Sessions below it are older.
        epoch: i64,
    },
    /// A server was removed.
    Removed {
        /// Which.
        server_id: ServerId,
    },
    /// A registry entry was changed.
    RegistryEvents {
        /// Whose.
        organization_id: OrganizationId,
    },
}

/// A signal and who gave it.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    from: String,
    signal: Signal,
}

/// What a control plane hears.
#[derive(Debug)]
pub enum Heard {
    /// What another one said.
    Signal {
        /// Who.
        from: String,
        /// What.
        signal: Signal,
    },
    /// What this one said itself: it hears.
    Echo,
    /// Nothing, but something may have been said that was not heard: the connection was lost meanwhile.
    Gap,
}

/// The ears of one control plane.
#[derive(Debug)]
pub struct Ears {
    listener: PgListener,
    own: String,
}

impl Ears {
    /// Waits for what a control plane says.
    ///
    /// # Errors
    /// [`Error::NotBegun`] or [`Error::Internal`] while the database is away.
    pub async fn hear(&mut self) -> Result<Heard> {
        loop {
            let Some(said) =
                self.listener.try_recv().await.map_err(Error::internal("listening to other replicas"))?
            else {
                return Ok(Heard::Gap);
            };
            // What another version says and this one does not know is left to the polls.
            let Ok(told) = serde_json::from_str::<Told>(said.payload()) else { continue };
            let Told { from, signal } = told;
            return Ok(if from == self.own { Heard::Echo } else { Heard::Signal { from, signal } });
        }
    }
}

/// The mouth of one control plane: a connection of its own, made when it is needed.
#[derive(Debug)]
pub struct Mouth(PgPool);

impl Mouth {
    /// Tells everybody who listens, this one included. All of it, or nothing.
    ///
    /// # Errors
    /// [`Error::NotBegun`] or [`Error::Internal`] while the database is away.
    pub async fn tell(&self, own: &str, signals: &[Signal]) -> Result<()> {
        const WHAT: &str = "telling other replicas";
        let told =
            |signal: &Signal| serde_json::to_string(&Told { from: own.to_owned(), signal: signal.clone() });
        let texts = signals.iter().map(told).collect::<std::result::Result<Vec<_>, _>>();
        let texts = texts.map_err(Error::internal("writing a signal"))?;
        sqlx::query("SELECT count(pg_notify($1, told)) FROM unnest($2::text[]) AS told")
            .bind(CHANNEL)
            .bind(texts)
            .execute(&self.0)
            .await
            .map_err(Error::internal(WHAT))?;
        Ok(())
    }
}

/// The statement that tells all control planes, also the one that runs it. In a transaction, they hear it
/// when that is committed.
pub(super) fn telling_all(signal: Signal) -> Result<Statement> {
    let told = serde_json::to_string(&Told { from: String::new(), signal });
    let values = [CHANNEL.into(), told.map_err(Error::internal("writing a signal"))?.into()];
    Ok(Statement::from_sql_and_values(DatabaseBackend::Postgres, "SELECT pg_notify($1, $2)", values))
}

impl Store {
    /// Whether there may be other control planes over this database.
    pub fn is_shared(&self) -> bool {
        self.db.get_database_backend() == DatabaseBackend::Postgres
    }

    /// A connection to tell the others by; none of those that calls wait for.
    pub fn replica_mouth(&self) -> Mouth {
        Mouth(self.one_more_connection())
    }

    /// Begins to hear what the others say, by a connection of its own.
    pub async fn replica_ears(&self, own: &str) -> Result<Ears> {
        const WHAT: &str = "listening to other replicas";
        let pool = self.one_more_connection();
        let mut listener = PgListener::connect_with(&pool).await.map_err(Error::internal(WHAT))?;
        listener.listen(CHANNEL).await.map_err(Error::internal(WHAT))?;
        Ok(Ears { listener, own: own.to_owned() })
    }

    fn one_more_connection(&self) -> PgPool {
        let options = self.db.get_postgres_connection_pool().connect_options();
        let one = PgPoolOptions::new().max_connections(1).acquire_timeout(REACH);
        one.max_lifetime(None).idle_timeout(None).connect_lazy_with(PgConnectOptions::clone(&options))
    }

    /// Puts a control plane's death off by 15 s of the database's clock, forgets those long dead, and
    /// gives the living.
    pub async fn replica_live_on(&self, own: &str) -> Result<Vec<String>> {
        let upsert = Statement::from_sql_and_values(
            DatabaseBackend::Postgres,
            "INSERT INTO replica (replica_id, alive_until) VALUES ($1, now() + interval '15 seconds') \
             ON CONFLICT (replica_id) DO UPDATE SET alive_until = EXCLUDED.alive_until",
            [own.into()],
        );
        self.writer.execute_raw(upsert).await.map_err(failed)?;
        replica::Entity::delete_many()
            .filter(Expr::cust("alive_until < now() - interval '1 hour'"))
            .exec(&self.writer)
            .await
            .map_err(failed)?;
        // Those whose asker went away.
        replica_question::Entity::delete_many()
            .filter(Expr::cust("asked_at < now() - interval '5 minutes'"))
            .exec(&self.writer)
            .await
            .map_err(failed)?;
        replica::Entity::find()
            .filter(Expr::cust("alive_until > now()"))
            .select_only()
            .column(replica::Column::ReplicaId)
            .into_tuple()
            .all(&self.db)
            .await
            .map_err(failed)
    }

    /// Says that a control plane has ended.
    pub async fn replica_end(&self, own: &str) -> Result<()> {
        replica::Entity::delete_by_id(own).exec(&self.writer).await.map_err(failed)?;
        Ok(())
    }

    /// Notes which control plane holds a session, or with `None` that none does any more.
    pub async fn server_held(&self, fence: &Fence, holder: Option<&str>) -> Result<()> {
        server::Entity::update_many()
            .col_expr(server::Column::Holder, Expr::value(holder))
            .filter(server::Column::ServerId.eq(fence.server_id.as_str()))
            .filter(server::Column::SessionEpoch.eq(fence.epoch))
            .exec(&self.writer)
            .await
            .map_err(failed)?;
        Ok(())
    }

    /// Keeps how far a target is, for other control planes.
    pub async fn target_progress(&self, attempt: &Attempt, progress: String) -> Result<()> {
        job_target::Entity::update_many()
            .col_expr(job_target::Column::Progress, Expr::value(progress))
            .filter(job_target::Column::TargetId.eq(attempt.target_id.as_str()))
            .filter(job_target::Column::Attempt.eq(attempt.attempt))
            .filter(job_target::Column::Status.is_in(super::TargetState::WITH_AGENT))
            .exec(&self.writer)
            .await
            .map_err(failed)?;
        Ok(())
    }
}
