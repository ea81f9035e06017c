//! What one control plane asks another over the same PostgreSQL: small reads of a host whose agent is
//! connected there. A row per question, which the holder answers and the asker takes; that there is one is
//! told by a [`Signal`](super::Signal).

use purser_proto_schema::ids::ServerId;
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, DatabaseBackend, EntityTrait, FromQueryResult, QueryFilter, QuerySelect, Statement,
    sea_query::Expr,
};

use super::{Store, entity::replica_question as question, failed};
use crate::error::Result;

#[derive(FromQueryResult)]
struct Taken {
    answer: String,
}

impl Store {
    /// Asks what can be asked of a server's agent.
    pub async fn question_ask(&self, id: &str, server: &ServerId) -> Result<()> {
        let asked = question::ActiveModel {
            question_id: Set(id.to_owned()),
            server_id: Set(server.to_string()),
            answer: NotSet,
            asked_at: Set(chrono::Utc::now()),
        };
        question::Entity::insert(asked).exec_without_returning(&self.writer).await.map_err(failed)?;
        Ok(())
    }

    /// Whether a question still waits for its answer.
    pub async fn question_waits(&self, id: &str) -> Result<bool> {
        let waiting: Option<String> = question::Entity::find_by_id(id)
            .filter(question::Column::Answer.is_null())
            .select_only()
            .column(question::Column::QuestionId)
            .into_tuple()
            .one(&self.db)
            .await
            .map_err(failed)?;
        Ok(waiting.is_some())
    }

    /// Answers a question, unless its asker went away.
    pub async fn question_answer(&self, id: &str, answer: String) -> Result<()> {
        question::Entity::update_many()
            .col_expr(question::Column::Answer, Expr::value(answer))
            .filter(question::Column::QuestionId.eq(id))
            .exec(&self.writer)
            .await
            .map_err(failed)?;
        Ok(())
    }

    /// Takes the answer, and the question with it; `None` while there is none.
    pub async fn question_take(&self, id: &str) -> Result<Option<String>> {
        let take = Statement::from_sql_and_values(
            DatabaseBackend::Postgres,
            "DELETE FROM replica_question WHERE question_id = $1 AND answer IS NOT NULL RETURNING answer",
            [id.into()],
        );
        let taken = Taken::find_by_statement(take).one(&self.db).await.map_err(failed)?;
        Ok(taken.map(|taken| taken.answer))
    }

    /// Asks no more.
    pub async fn question_drop(&self, id: &str) -> Result<()> {
        question::Entity::delete_by_id(id).exec(&self.writer).await.map_err(failed)?;
        Ok(())
    }
}
