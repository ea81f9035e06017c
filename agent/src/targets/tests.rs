use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const LONG: Duration = Duration::from_secs(3600);

fn attempt(name: &str, attempt: u32) -> Attempt {
    Attempt { target_id: TargetId::from_stored(name.to_owned()), attempt }
}

fn done() -> Outcome {
    Outcome::Image { digest: "sha256:0".to_owned(), size_bytes: None }
}

fn accepted(reply: &StartReply) -> bool {
    matches!(reply, StartReply::Accepted)
}

async fn verdict(targets: &Targets) -> VerdictReport {
    timeout(Duration::from_secs(5000), targets.until_ended()).await.unwrap();
    targets.unacknowledged().pop().unwrap()
}

#[tokio::test]
async fn the_same_try_runs_once_also_after_it_ended() {
    let targets = Arc::new(Targets::default());
    let runs = Arc::new(AtomicUsize::new(0));
    for _ in 0..3 {
        let runs = Arc::clone(&runs);
        let reply = targets.start(attempt("t", 1), LONG, |_| async move {
            runs.fetch_add(1, Ordering::SeqCst);
            Ok(done())
        });
        assert!(accepted(&reply));
    }
    verdict(&targets).await;
    let again = targets.start(attempt("t", 1), LONG, |_| async { Ok(done()) });
    assert!(matches!(again, StartReply::Duplicate { verdict: Verdict::Succeeded { .. } }), "{again:?}");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(targets.resume().unacknowledged_verdicts, [attempt("t", 1)]);
    targets.acknowledged(&attempt("t", 1));
    assert!(targets.resume().unacknowledged_verdicts.is_empty());
}

#[tokio::test]
async fn a_newer_try_replaces_the_older_one() {
    let targets = Arc::new(Targets::default());
    targets.start(attempt("t", 1), LONG, |_| pending());
    targets.start(attempt("t", 2), LONG, |_| async { Ok(done()) });
    assert_eq!(verdict(&targets).await.attempt, attempt("t", 2));
    // An older try that comes late changes nothing.
    targets.start(attempt("u", 2), LONG, |_| pending());
    assert!(accepted(&targets.start(attempt("u", 1), LONG, |_| async { Ok(done()) })));
    tokio::task::yield_now().await;
    assert_eq!(targets.resume().running_targets, [attempt("u", 2)]);
    assert_eq!(targets.unacknowledged().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn overdue_broken_and_cancelled_work_gets_a_verdict() {
    let targets = Arc::new(Targets::default());
    let code = |report: VerdictReport| match report.verdict {
        Verdict::Failed { failure, .. } => failure.diagnosis.code,
        other => panic!("{other:?}"),
    };
    targets.start(attempt("late", 1), Duration::from_secs(60), |_| pending());
    assert_eq!(code(verdict(&targets).await), DiagnosisCode::Timeout);
    targets.start(attempt("broken", 1), LONG, |_| async { panic!("on purpose") });
    assert_eq!(code(verdict(&targets).await), DiagnosisCode::Other);
    targets.start(attempt("unwanted", 1), LONG, |_| pending());
    targets.cancel(&attempt("unwanted", 2));
    assert_eq!(targets.resume().running_targets.len(), 1);
    targets.cancel(&attempt("unwanted", 1));
    assert!(matches!(verdict(&targets).await.verdict, Verdict::Cancelled));
}

#[tokio::test]
async fn the_table_is_bounded_with_what_is_not_acknowledged() {
    let targets = Arc::new(Targets::default());
    targets.start(attempt("ended", 1), LONG, |_| async { Ok(done()) });
    verdict(&targets).await;
    for n in 1..MAX_TARGETS_PER_AGENT {
        assert!(accepted(&targets.start(attempt(&format!("t{n}"), 1), LONG, |_| pending())));
    }
    assert!(matches!(targets.start(attempt("more", 1), LONG, |_| pending()), StartReply::Busy));
    targets.acknowledged(&attempt("ended", 1));
    assert!(accepted(&targets.start(attempt("more", 1), LONG, |_| pending())));
}

#[tokio::test]
async fn no_more_runs_than_the_server_said_it_would_ask_for() {
    let targets = Arc::new(Targets::default());
    targets.limit(Agreed { tests: 1, transfers: 2, ..Agreed::default() });
    for name in ["a", "b", "c"] {
        assert!(accepted(&targets.start(attempt(name, 1), LONG, |_| pending())));
    }
    assert!(matches!(targets.start(attempt("d", 1), LONG, |_| pending()), StartReply::Busy));
    assert!(accepted(&targets.start(attempt("c", 2), LONG, |_| pending())), "in place of the earlier try");
    targets.cancel(&attempt("a", 1));
    verdict(&targets).await;
    assert!(accepted(&targets.start(attempt("d", 1), LONG, |_| pending())));
}

#[tokio::test]
async fn what_is_forgotten_leaves_no_verdict() {
    let targets = Arc::new(Targets::default());
    targets.start(attempt("t", 1), LONG, |_| pending());
    targets.forget(&[attempt("t", 1)]);
    targets.stop().await;
    assert!(targets.unacknowledged().is_empty());
    assert!(targets.resume().running_targets.is_empty());
}

#[tokio::test]
async fn the_newest_progress_is_reported_once_with_a_rising_number() {
    let targets = Arc::new(Targets::default());
    let mut sink = None;
    targets.start(attempt("t", 1), LONG, |progress| {
        sink = Some(progress);
        pending()
    });
    let sink = sink.unwrap();
    let at = |downloaded_bytes| Progress { downloaded_bytes, ..Progress::default() };
    sink.report(at(1));
    sink.report(at(2));
    targets.until_moved().await;
    let reports = targets.progress();
    assert_eq!((reports.len(), reports[0].seq, reports[0].snapshot.downloaded_bytes), (1, 1, 2));
    sink.report(at(2));
    assert!(targets.progress().is_empty());
    sink.report(at(3));
    assert_eq!(targets.progress()[0].seq, 2);
}

#[tokio::test(start_paused = true)]
async fn work_that_does_not_get_on_ends_and_says_where_it_stood() {
    let targets = Arc::new(Targets::default());
    let limits = Limits { deadline: LONG, stall: Some(Duration::from_secs(600)) };
    let at = |phase: &str, downloaded_bytes| Progress {
        phase: phase.to_owned(),
        downloaded_bytes,
        total_bytes: Some(48),
        ..Progress::default()
    };
    targets.start(attempt("t", 1), limits, |progress| async move {
        // The same again is a sign of life: a large layer is unpacked.
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(599)).await;
            progress.report(at("extracting", 12));
        }
        // Waiting to begin anew is none.
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            progress.report(at("retrying", 12));
        }
    });
    let started = Instant::now();
    let Verdict::Failed { failure, .. } = verdict(&targets).await.verdict else { panic!("no failure") };
    assert_eq!(started.elapsed().as_secs(), 3 * 599 + 600);
    assert_eq!(failure.diagnosis.code, DiagnosisCode::Timeout);
    let said = "there was no progress for 600 s; it stood at retrying, 12 of 48 bytes";
    assert_eq!(failure.diagnosis.message, said);
}
