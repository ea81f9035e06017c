//! Docker hosts, the tokens that enrol them, and the admission of their agents.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use purser_proto_schema::{
    ids::{JobId, OrganizationId, ServerId},
    server::Engine,
    time::Timestamp,
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait,
    IntoActiveModel, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, Select, sea_query::Expr,
};

use super::{
    AuditEntry, ServerRow, Store, audit,
    changes::{after, unchanged_since},
    deadlock::undisturbed,
    entity::{join_token, server},
    failed,
    session_history::SessionHistory,
    target,
};
use crate::{
    error::{Error, Result},
    request::RequestId,
};

const NOT_FOUND: Error = Error::NotFound("Server");
/// The audit's word for a key that became a server's.
const ENROLLED: &str = "agent.enrolled";

/// A join token to keep.
#[derive(Debug)]
pub struct NewJoinToken {
    /// Its id.
    pub join_token_id: String,
    /// The hash of its secret.
    pub secret_hash: String,
    /// When it stops working.
    pub expires_at: DateTime<Utc>,
}

/// What an agent showed under its proven key.
#[derive(Debug)]
pub struct Admission<'a> {
    /// The server row it says it belongs to.
    pub server_id: &'a ServerId,
    /// Its proven public key.
    pub agent_key: &'a str,
    /// The hash of the join secret, where it showed one.
    pub join_secret_hash: Option<&'a str>,
    /// Its version.
    pub agent_version: &'a str,
    /// Which run of the agent it is, where it said so.
    pub instance: Option<&'a str>,
    /// Its engine.
    pub engine: Option<&'a Engine>,
    /// The request that its channel began with.
    pub request_id: Option<&'a RequestId>,
}

/// Whether an agent is let in.
#[derive(Debug)]
pub enum Admittance {
    /// It is.
    Admitted(Box<Admitted>),
    /// Its key is not the server's, and it shows no join token that would make it so.
    Refused {
        /// The server's organization.
        organization_id: OrganizationId,
    },
    /// There is no such server, or it was removed.
    NoSuchServer,
}

/// An agent let in.
#[derive(Debug)]
pub struct Admitted {
    /// Its server.
    pub row: ServerRow,
    /// Whether its key was enrolled just now.
    pub enrolled: bool,
    /// Whether this session showed that several agents use its key.
    pub cloned: bool,
}

impl ServerRow {
    /// Whether several agents use the server's key and keep taking the session from each other.
    pub fn is_cloned(&self) -> bool {
        SessionHistory::of(self.session_history.as_deref()).is_cloned(Utc::now())
    }
}

impl Store {
    /// The organization's servers, oldest first, without those that were removed.
    pub async fn server_all(&self, organization: &OrganizationId) -> Result<Vec<ServerRow>> {
        server::Entity::find()
            .filter(server::Column::OrganizationId.eq(organization.as_str()))
            .filter(server::Column::RevokedAt.is_null())
            .order_by_asc(server::Column::ServerId)
            .all(&self.db)
            .await
            .map_err(failed)
    }

    /// How many servers there are in all organizations, without those that were removed.
    pub async fn server_count(&self) -> Result<u64> {
        server::Entity::find()
            .select_only()
            .column(server::Column::ServerId)
            .filter(server::Column::RevokedAt.is_null())
            .count(&self.db)
            .await
            .map_err(failed)
    }

    /// One server of the organization, removed ones included.
    pub async fn server_one(&self, organization: &OrganizationId, id: &ServerId) -> Result<Arc<ServerRow>> {
        let Some(kept) = &self.kept else { return find(&self.db, organization, id).await.map(Arc::new) };
        if let Some(row) = kept.server.get(id.as_str()) {
            return if row.organization_id == organization.as_str() { Ok(row) } else { Err(NOT_FOUND) };
        }
        let before = kept.server.generation();
        let row = find(&self.db, organization, id).await.map(Arc::new)?;
        kept.server.keep(id.as_str(), before, &row);
        Ok(row)
    }

    /// Commits a transaction that wrote to a server. A commit that fails may have happened all the same.
    async fn server_commit(&self, transaction: DatabaseTransaction) -> Result<()> {
        let committed = transaction.commit().await;
        self.server_written();
        committed.map_err(failed)
    }

    /// To be called after every write to a server outside a transaction.
    fn server_written(&self) {
        if let Some(kept) = &self.kept {
            kept.server.forget();
        }
    }

    /// The organization's server of this name that was not removed.
    pub async fn server_named(&self, organization: &OrganizationId, name: &str) -> Result<Option<ServerRow>> {
        server::Entity::find()
            .filter(server::Column::OrganizationId.eq(organization.as_str()))
            .filter(server::Column::Name.eq(name))
            .filter(server::Column::RevokedAt.is_null())
            .one(&self.db)
            .await
            .map_err(failed)
    }

    /// Keeps a new server and its first join token. CONFLICT if the name is taken.
    pub async fn server_insert(
        &self,
        row: ServerRow,
        token: NewJoinToken,
        event: &AuditEntry<'_>,
    ) -> Result<()> {
        let transaction = self.write().await?;
        let token = token_row(&row, token);
        server::Entity::insert(row.into_active_model())
            .exec_without_returning(&transaction)
            .await
            .map_err(failed)?;
        join_token::Entity::insert(token).exec_without_returning(&transaction).await.map_err(failed)?;
        audit::append(&transaction, event).await?;
        transaction.commit().await.map_err(failed)
    }

    /// Changes what people say of a server. CONFLICT if the name is taken, or if it was changed since
    /// `seen`.
    pub async fn server_describe(
        &self,
        organization: &OrganizationId,
        id: &ServerId,
        seen: Option<Timestamp>,
        event: &AuditEntry<'_>,
        change: impl FnOnce(&mut ServerRow) + Send,
    ) -> Result<ServerRow> {
        let transaction = self.write().await?;
        // On PostgreSQL, too, no other change comes between what is read and what is written.
        let found = of_organization(organization, id).lock_exclusive().one(&transaction).await;
        let mut row = found.map_err(failed)?.filter(|row| row.revoked_at.is_none()).ok_or(NOT_FOUND)?;
        unchanged_since("server", row.updated_at, seen)?;
        change(&mut row);
        row.updated_at = after(row.updated_at);
        let changed = server::ActiveModel {
            server_id: Set(row.server_id.clone()),
            name: Set(row.name.clone()),
            description: Set(row.description.clone()),
            labels: Set(row.labels.clone()),
            updated_at: Set(row.updated_at),
            ..Default::default()
        };
        changed.update(&transaction).await.map_err(failed)?;
        audit::append(&transaction, event).await?;
        self.server_commit(transaction).await?;
        Ok(row)
    }

    /// Removes a server: its agent's key is forgotten, its tokens stop working, and its targets that
    /// have not ended are cancelled. Gives the jobs that changed.
    pub async fn server_revoke(
        &self,
        organization: &OrganizationId,
        id: &ServerId,
        event: &AuditEntry<'_>,
    ) -> Result<(ServerRow, Vec<JobId>)> {
        undisturbed(|| self.revoke_once(organization, id, event)).await
    }

    async fn revoke_once(
        &self,
        organization: &OrganizationId,
        id: &ServerId,
        event: &AuditEntry<'_>,
    ) -> Result<(ServerRow, Vec<JobId>)> {
        let transaction = self.write().await?;
        let mut row = find_live(&transaction, organization, id).await?;
        row.revoked_at = Some(Utc::now());
        row.agent_key = None;
        let changed = server::ActiveModel {
            server_id: Set(row.server_id.clone()),
            revoked_at: Set(row.revoked_at),
            agent_key: Set(None),
            ..Default::default()
        };
        changed.update(&transaction).await.map_err(failed)?;
        drop_tokens(&transaction, id).await?;
        let jobs = target::cancel_all_of(&transaction, id).await?;
        audit::append(&transaction, event).await?;
        self.server_commit(transaction).await?;
        Ok((row, jobs))
    }

    /// Keeps a join token; earlier ones of the server stop working.
    pub async fn join_token_insert(
        &self,
        organization: &OrganizationId,
        id: &ServerId,
        token: NewJoinToken,
        event: &AuditEntry<'_>,
    ) -> Result<ServerRow> {
        let transaction = self.write().await?;
        let row = find_live(&transaction, organization, id).await?;
        drop_tokens(&transaction, id).await?;
        join_token::Entity::insert(token_row(&row, token))
            .exec_without_returning(&transaction)
            .await
            .map_err(failed)?;
        audit::append(&transaction, event).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(row)
    }

    /// Lets an agent in, or not. In one transaction: the key is enrolled, the token spent, the epoch
    /// raised, and that noted in the audit. Nothing is changed for an agent that is not let in, and no writer waits for it.
    pub async fn server_admit(&self, admission: Admission<'_>) -> Result<Admittance> {
        let live = server::Entity::find_by_id(admission.server_id.as_str())
            .filter(server::Column::RevokedAt.is_null());
        let Some(seen) = live.clone().one(&self.db).await.map_err(failed)? else {
            return Ok(Admittance::NoSuchServer);
        };
        if seen.agent_key.as_deref() != Some(admission.agent_key) && !self.token_works(&admission).await? {
            return Ok(refused(seen));
        }
        let transaction = self.write().await?;
        let found = live.lock_exclusive().one(&transaction).await.map_err(failed)?;
        let Some(mut row) = found else { return Ok(Admittance::NoSuchServer) };
        let known = row.agent_key.as_deref() == Some(admission.agent_key);
        // Spent also when the key is known already: a token works once.
        if !spend_token(&transaction, &admission).await? && !known {
            return Ok(refused(row));
        }
        let was_cloned = known && row.is_cloned();
        let mut history = SessionHistory::of(row.session_history.as_deref().filter(|_| known));
        if let Some(instance) = admission.instance {
            history.begin(instance, Utc::now());
        }
        row.session_history = history.column();
        row.agent_key = Some(admission.agent_key.to_owned());
        row.agent_version = Some(admission.agent_version.to_owned());
        row.last_seen_at = Some(Utc::now());
        row.session_epoch += 1;
        if let Some(engine) = admission.engine {
            row.engine = serde_json::to_string(engine).ok();
        }
        row.clone().into_active_model().reset_all().update(&transaction).await.map_err(failed)?;
        if !known {
            let organization = OrganizationId::from_stored(row.organization_id.clone());
            let enrolled = AuditEntry {
                server_id: Some(admission.server_id.clone()),
                request_id: admission.request_id,
                ..AuditEntry::by_nobody(&organization, ENROLLED)
            };
            audit::append(&transaction, &enrolled).await?;
        }
        self.server_commit(transaction).await?;
        let cloned = !was_cloned && row.is_cloned();
        Ok(Admittance::Admitted(Box::new(Admitted { row, enrolled: !known, cloned })))
    }

    /// Whether the agent shows a join token that could be spent now.
    async fn token_works(&self, admission: &Admission<'_>) -> Result<bool> {
        let Some(hash) = admission.join_secret_hash else { return Ok(false) };
        let found = join_token::Entity::find()
            .filter(join_token::Column::SecretHash.eq(hash))
            .filter(join_token::Column::ServerId.eq(admission.server_id.as_str()))
            .filter(join_token::Column::SpentAt.is_null())
            .filter(join_token::Column::ExpiresAt.gt(Utc::now()))
            .one(&self.db)
            .await
            .map_err(failed)?;
        Ok(found.is_some())
    }

    /// Notes that a server's agent is, or just was, connected, and what it reported.
    pub async fn server_seen(&self, id: &ServerId, epoch: i64, engine: Option<&Engine>) -> Result<()> {
        let mut seen = server::Entity::update_many()
            .col_expr(server::Column::LastSeenAt, Expr::value(Utc::now()))
            .filter(server::Column::ServerId.eq(id.as_str()))
            .filter(server::Column::SessionEpoch.eq(epoch));
        if let Some(engine) = engine.and_then(|engine| serde_json::to_string(engine).ok()) {
            seen = seen.col_expr(server::Column::Engine, Expr::value(engine));
        }
        let noted = seen.exec(&self.writer).await;
        self.server_written();
        noted.map_err(failed)?;
        Ok(())
    }
}

fn refused(row: ServerRow) -> Admittance {
    Admittance::Refused { organization_id: OrganizationId::from_stored(row.organization_id) }
}

fn of_organization(organization: &OrganizationId, id: &ServerId) -> Select<server::Entity> {
    server::Entity::find_by_id(id.as_str()).filter(server::Column::OrganizationId.eq(organization.as_str()))
}

async fn find<C: ConnectionTrait>(db: &C, organization: &OrganizationId, id: &ServerId) -> Result<ServerRow> {
    of_organization(organization, id).one(db).await.map_err(failed)?.ok_or(NOT_FOUND)
}

async fn find_live<C: ConnectionTrait>(
    db: &C,
    organization: &OrganizationId,
    id: &ServerId,
) -> Result<ServerRow> {
    // Locked: of two who remove it at once the second finds it removed.
    let found = of_organization(organization, id).lock_exclusive().one(db).await;
    let row = found.map_err(failed)?.ok_or(NOT_FOUND)?;
    if row.revoked_at.is_some() { Err(NOT_FOUND) } else { Ok(row) }
}

fn token_row(server: &ServerRow, token: NewJoinToken) -> join_token::ActiveModel {
    join_token::ActiveModel {
        join_token_id: Set(token.join_token_id),
        organization_id: Set(server.organization_id.clone()),
        server_id: Set(server.server_id.clone()),
        secret_hash: Set(token.secret_hash),
        expires_at: Set(token.expires_at),
        spent_at: Set(None),
        created_at: Set(Utc::now()),
    }
}

async fn drop_tokens<C: ConnectionTrait>(db: &C, id: &ServerId) -> Result<()> {
    join_token::Entity::delete_many()
        .filter(join_token::Column::ServerId.eq(id.as_str()))
        .filter(join_token::Column::SpentAt.is_null())
        .exec(db)
        .await
        .map_err(failed)?;
    Ok(())
}

async fn spend_token<C: ConnectionTrait>(db: &C, admission: &Admission<'_>) -> Result<bool> {
    let Some(hash) = admission.join_secret_hash else { return Ok(false) };
    let now = Utc::now();
    let spent = join_token::Entity::update_many()
        .col_expr(join_token::Column::SpentAt, Expr::value(now))
        .filter(join_token::Column::SecretHash.eq(hash))
        .filter(join_token::Column::ServerId.eq(admission.server_id.as_str()))
        .filter(join_token::Column::SpentAt.is_null())
        .filter(join_token::Column::ExpiresAt.gt(now))
        .exec(db)
        .await
        .map_err(failed)?;
    Ok(spent.rows_affected == 1)
}
