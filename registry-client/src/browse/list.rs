//! Walking through a paged list of names.

use http::StatusCode;

use super::cursor::Position;
use super::document::{Verdict, Window, read};
use super::{BrowseError, Page};
use crate::connection::Answer;
use crate::diagnosis::{Diagnosis, DiagnosisCode as Code};
use crate::link::next_page;
use crate::session::{Session, Want};

/// The most that is read of one page, in bytes.
pub(super) const MAX_PAGE_BYTES: usize = 8 * 1024 * 1024;

/// A list of a registry.
pub(super) struct List<'l> {
    /// Path without a query.
    pub(super) path: String,
    pub(super) scope: String,
    /// Where the names are in the document.
    pub(super) key: &'static str,
    /// How many names to ask for at once; a registry that doesn't like it is asked for fewer.
    pub(super) at_once: usize,
    /// What people call it.
    pub(super) what: String,
    pub(super) keep: &'l (dyn Fn(&str) -> Verdict + Sync),
}

/// What became of asking for a page.
enum Asked {
    Page(Answer, String),
    Refused(Answer),
}

/// A walk that ended: with a page, or at an answer that the caller has to make sense of.
pub(super) enum Walk {
    Page(Page),
    Refused(Answer),
}

/// Collects up to `limit` names from `cursor` on, over at most `pages` pages of the registry.
pub(super) async fn walk(
    session: &mut Session<'_>,
    list: &List<'_>,
    cursor: Option<&str>,
    limit: usize,
    pages: usize,
) -> Result<Walk, BrowseError> {
    let mut position = cursor.map(|cursor| Position::decode(cursor, &list.path)).transpose()?;
    let mut page = Page::default();
    for _ in 0..pages.max(1) {
        let (answer, asked) = match ask(session, list, position.as_ref()).await? {
            Asked::Page(answer, asked) => (answer, asked),
            // What was collected is not thrown away for a later page's sake.
            Asked::Refused(answer) if page.items.is_empty() => return Ok(Walk::Refused(answer)),
            Asked::Refused(answer) => {
                page.warnings.push(session.refusal(&answer, &list.what).message);
                break;
            }
        };
        let offset = position.as_ref().map_or(0, |position| position.offset);
        let mut window = Window::new(offset, limit.saturating_sub(page.items.len()), list.keep);
        let cut = match read(&answer.body, list.key, &mut window) {
            Ok(()) => !window.found,
            Err(_) if answer.truncated && window.found => false,
            Err(_) => true,
        };
        if cut {
            return Err(session.nonsense(&answer, &list.what).into());
        }
        page.items.append(&mut window.items);
        if window.improper > 0 {
            note(&mut page, "Names that aren't valid in Docker's grammar were left out.");
        }
        if let Some(offset) = window.next {
            position = Some(Position { page: asked, offset });
            page.next_cursor = position.as_ref().map(Position::encode);
            return Ok(Walk::Page(page));
        }
        if answer.truncated {
            note(
                &mut page,
                "The registry's answer was longer than 8 MiB and was cut; the list is incomplete.",
            );
        }
        let Some(authority) = session.authority() else { break };
        let next = next_page(&answer.headers, &asked, authority);
        let Some(next) = next.map_err(|diagnosis| session.advise(diagnosis))? else {
            page.next_cursor = None;
            return Ok(Walk::Page(page));
        };
        if next == asked {
            note(&mut page, "The registry says that the list goes on where it is; it is taken to end here.");
            page.next_cursor = None;
            return Ok(Walk::Page(page));
        }
        let next = Position { page: next, offset: 0 };
        page.next_cursor = Some(next.encode());
        position = Some(next);
        if page.items.len() >= limit {
            break;
        }
    }
    Ok(Walk::Page(page))
}

fn note(page: &mut Page, warning: &str) {
    if !page.warnings.iter().any(|known| known == warning) {
        page.warnings.push(warning.to_owned());
    }
}

/// Asks for one page. The first one is asked for with `n`; 400 means that it was too large (distribution's
/// PAGINATION_NUMBER_INVALID), so smaller ones follow, and at last none.
async fn ask(
    session: &mut Session<'_>,
    list: &List<'_>,
    position: Option<&Position>,
) -> Result<Asked, Diagnosis> {
    if let Some(position) = position {
        let answer = fetch(session, list, position.page.clone()).await?;
        return Ok(sort(answer, position.page.clone()));
    }
    let sizes = [list.at_once, 100, 50, 10].into_iter().enumerate();
    let smaller = sizes.filter(|(at, n)| *at == 0 || *n < list.at_once).map(|(_, n)| n);
    let mut pages: Vec<String> = smaller.map(|n| format!("{}?n={n}", list.path)).collect();
    pages.push(list.path.clone());
    let mut refused = None;
    for page in pages {
        let answer = fetch(session, list, page.clone()).await?;
        if answer.status != StatusCode::BAD_REQUEST {
            return Ok(sort(answer, page));
        }
        refused = Some(answer);
    }
    refused.map(Asked::Refused).ok_or_else(|| Diagnosis::new(Code::Other, "nothing was asked", ""))
}

fn sort(answer: Answer, page: String) -> Asked {
    if answer.status == StatusCode::OK { Asked::Page(answer, page) } else { Asked::Refused(answer) }
}

async fn fetch(session: &mut Session<'_>, list: &List<'_>, page: String) -> Result<Answer, Diagnosis> {
    let want = Want {
        method: http::Method::GET,
        path: page,
        accept: "application/json",
        max_body: MAX_PAGE_BYTES,
        scope: list.scope.clone(),
    };
    session.ask(&want).await
}
