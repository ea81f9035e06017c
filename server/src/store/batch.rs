//! Several writes as one: all of them happen or none.
//!
//! To SQLite they go together, as one text. A trip to its thread and back is two changes of threads,
//! which takes longer than most statements do, and nobody else can write between the first and the last.
//! To PostgreSQL they go one after the other, in a transaction.

use futures_util::{Stream, TryStreamExt as _};
use sea_orm::{
    ConnectionTrait, DatabaseBackend, DbErr, QueryResult, RuntimeErr, Statement, StatementBuilder, Values,
};
use sea_query_sqlx::SqlxValues;
use sqlx::{
    AssertSqlSafe, Either, Executor as _, SqlitePool,
    sqlite::{SqliteQueryResult, SqliteRow},
};

use super::{Store, deadlock::undisturbed, failed};
use crate::error::{Error, Result};

/// The longest text that a connection keeps prepared.
const MAX_KEPT_TEXT: usize = 16 * 1024;

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

impl Store {
    /// An empty batch for this database.
    pub(super) fn batch(&self) -> Batch {
        Batch { backend: self.db.get_database_backend(), steps: Vec::new() }
    }

    /// Runs a batch; gives the rows of the statement that shows some.
    pub(super) async fn run(&self, batch: Batch) -> Result<Vec<QueryResult>> {
        if batch.backend != DatabaseBackend::Sqlite {
            return undisturbed(|| self.in_turn(&batch.steps)).await;
        }
        let pool = self.writer.get_sqlite_connection_pool().clone();
        // In a task of its own: a caller that goes away between the first statement and the last would
        // leave the connection in the middle of a transaction.
        let together = tokio::spawn(async move { at_once(&pool, batch.steps).await });
        together.await.map_err(Error::internal("writing to the database"))?.map_err(failed)
    }

    async fn in_turn(&self, steps: &[Step]) -> Result<Vec<QueryResult>> {
        let transaction = self.write().await?;
        let mut rows = Vec::new();
        for Step { statement, shown } in steps {
            let statement = statement.clone();
            if *shown {
                rows = transaction.query_all_raw(statement).await.map_err(failed)?;
            } else {
                transaction.execute_raw(statement).await.map_err(failed)?;
            }
        }
        transaction.commit().await.map_err(failed)?;
        Ok(rows)
    }
}

/// How many rows of so many are written by each statement: few enough for the parameters that both
/// databases take, and of few different sizes, since each is a text of its own that they prepare.
pub(super) fn chunks(mut rows: usize) -> Vec<usize> {
    let mut sizes = Vec::new();
    for size in [1_000, 100, 10, 1] {
        sizes.extend(std::iter::repeat_n(size, rows / size));
        rows %= size;
    }
    sizes
}

async fn at_once(pool: &SqlitePool, steps: Vec<Step>) -> std::result::Result<Vec<QueryResult>, DbErr> {
    let mut text = String::from("BEGIN IMMEDIATE");
    // BEGIN is the first statement.
    let shown = steps.iter().position(|step| step.shown).map(|place| place + 1);
    let mut values = Vec::new();
    for Step { statement, .. } in steps {
        text.push(';');
        text.push_str(&statement.sql);
        values.extend(statement.values.into_iter().flat_map(|Values(values)| values));
    }
    text.push_str(";COMMIT");
    let mut connection = pool.acquire().await.map_err(|error| DbErr::Conn(sqlx_error(error)))?;
    // The text is sea-query's and holds no value; there are as many texts as callers.
    // What is long is rare, and not worth its room among the statements that a connection keeps prepared.
    let is_kept = text.len() <= MAX_KEPT_TEXT;
    let query = sqlx::query_with(AssertSqlSafe(text), SqlxValues(Values(values))).persistent(is_kept);
    match rows_of(connection.fetch_many(query), shown).await {
        Ok(rows) => Ok(rows),
        Err(error) => {
            // Closing undoes what was begun.
            let _ = connection.close().await;
            Err(DbErr::Exec(sqlx_error(error)))
        }
    }
}

/// The rows of one of the statements that an answer is of.
async fn rows_of(
    mut answer: impl Stream<Item = sqlx::Result<Either<SqliteQueryResult, SqliteRow>>> + Unpin,
    statement: Option<usize>,
) -> sqlx::Result<Vec<QueryResult>> {
    let (mut rows, mut ended) = (Vec::new(), 0);
    while let Some(part) = answer.try_next().await? {
        match part {
            Either::Left(_) => ended += 1,
            Either::Right(row) if Some(ended) == statement => rows.push(row.into()),
            Either::Right(_) => {}
        }
    }
    Ok(rows)
}

fn sqlx_error(error: sqlx::Error) -> RuntimeErr {
    RuntimeErr::SqlxError(error.into())
}

#[cfg(test)]
mod tests {
    use sea_orm::sea_query::{Alias, Expr, Query};

    use super::*;

    /// A statement of which the database answers one row, `answer`.
    fn answering(answer: &str) -> sea_orm::sea_query::SelectStatement {
        Query::select().expr_as(Expr::value(answer), Alias::new("answer")).to_owned()
    }

    #[tokio::test]
    async fn only_the_rows_of_the_shown_statement_are_given() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(None, folder.path()).await.unwrap();
        let run = async |shown: Option<usize>| {
            let mut batch = store.batch();
            for (place, answer) in ["first", "second", "third"].into_iter().enumerate() {
                if shown == Some(place) {
                    batch.then_show(&answering(answer));
                } else {
                    batch.then(&answering(answer));
                }
            }
            let rows = store.run(batch).await.unwrap();
            rows.iter().map(|row| row.try_get::<String>("", "answer").unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(Some(0)).await, ["first"]);
        assert_eq!(run(Some(2)).await, ["third"]);
        assert_eq!(run(None).await, [""; 0]);
    }
}
