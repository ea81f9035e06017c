//! Several writes as one: all of them happen or none.
//!
//! To SQLite they go together, as one text. A trip to its thread and back is two changes of threads,
//! which takes longer than most statements do, and nobody else can write between the first and the last.
//! To PostgreSQL they go one after the other, in a transaction.

use sea_orm::{
    ConnectionTrait, DatabaseBackend, DbErr, QueryResult, RuntimeErr, Statement, StatementBuilder,
    TransactionTrait, Values,
};
use sea_query_sqlx::SqlxValues;
use sqlx::{AssertSqlSafe, SqlitePool};

use super::{Store, failed};
use crate::error::{Error, Result};

/// Statements that are still to be sent.
#[derive(Debug)]
pub(super) struct Batch {
    backend: DatabaseBackend,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    statement: Statement,
    /// Whether its rows are of interest.
    shown: bool,
}

impl Batch {
    /// Adds a statement that answers nothing.
    pub(super) fn then(&mut self, statement: &impl StatementBuilder) {
        self.steps.push(Step { statement: self.backend.build(statement), shown: false });
    }

    /// Adds statements that answer nothing, in their order.
    pub(super) fn then_each(&mut self, statements: Vec<Statement>) {
        self.steps.extend(statements.into_iter().map(|statement| Step { statement, shown: false }));
    }

    /// The database that the statements are for.
    pub(super) fn backend(&self) -> DatabaseBackend {
        self.backend
    }

    /// Adds a statement whose rows are the batch's answer. There is one in a batch at most.
    pub(super) fn then_show(&mut self, statement: &impl StatementBuilder) {
        self.steps.push(Step { statement: self.backend.build(statement), shown: true });
    }
}

impl Batch {
    /// Whether other writers may come between its statements.
    pub(super) fn is_for_postgres(&self) -> bool {
        self.backend == DatabaseBackend::Postgres
    }
}

impl Store {
    /// An empty batch for this database.
    pub(super) fn batch(&self) -> Batch {
        Batch { backend: self.db.get_database_backend(), steps: Vec::new() }
    }

    /// Runs a batch; gives the rows of the statement that shows some.
    pub(super) async fn run(&self, batch: Batch) -> Result<Vec<QueryResult>> {
        if batch.backend != DatabaseBackend::Sqlite {
            return self.in_turn(batch.steps).await.map_err(failed);
        }
        let pool = self.db.get_sqlite_connection_pool().clone();
        // In a task of its own: a caller that goes away between the first statement and the last would
        // leave the connection in the middle of a transaction.
        let together = tokio::spawn(async move { at_once(&pool, batch.steps).await });
        together.await.map_err(Error::internal("writing to the database"))?.map_err(failed)
    }

    async fn in_turn(&self, steps: Vec<Step>) -> std::result::Result<Vec<QueryResult>, DbErr> {
        let transaction = self.db.begin().await?;
        let mut rows = Vec::new();
        for Step { statement, shown } in steps {
            if shown {
                rows = transaction.query_all_raw(statement).await?;
            } else {
                transaction.execute_raw(statement).await?;
            }
        }
        transaction.commit().await?;
        Ok(rows)
    }
}

async fn at_once(pool: &SqlitePool, steps: Vec<Step>) -> std::result::Result<Vec<QueryResult>, DbErr> {
    let mut text = String::from("BEGIN IMMEDIATE");
    let mut values = Vec::new();
    for Step { statement, .. } in steps {
        text.push(';');
        text.push_str(&statement.sql);
        values.extend(statement.values.into_iter().flat_map(|Values(values)| values));
    }
    text.push_str(";COMMIT");
    let mut connection = pool.acquire().await.map_err(|error| DbErr::Conn(sqlx_error(error)))?;
    // The text is sea-query's and holds no value; there are as many texts as callers.
    let query = sqlx::query_with(AssertSqlSafe(text), SqlxValues(Values(values)));
    match query.fetch_all(&mut *connection).await {
        Ok(rows) => Ok(rows.into_iter().map(QueryResult::from).collect()),
        Err(error) => {
            // Closing undoes what was begun.
            let _ = connection.close().await;
            Err(DbErr::Exec(sqlx_error(error)))
        }
    }
}

fn sqlx_error(error: sqlx::Error) -> RuntimeErr {
    RuntimeErr::SqlxError(error.into())
}
