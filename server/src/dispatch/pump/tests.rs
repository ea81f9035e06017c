use super::{super::scene::Scene, *};

/// Longer than anyone waits for a connection.
const LONG: Duration = Duration::from_secs(60);

/// A scene whose connections are all open: while the clock jumps there is no time to open one.
async fn scene() -> Scene {
    let scene = Scene::set().await;
    drop(scene.shared.store.hold_readers().await);
    let store = &scene.shared.store;
    while store.pool().idle < store.pool().most {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    scene
}

/// Whoever works on the host would lose it, and for nothing: the target is where it was.
#[tokio::test]
async fn a_session_outlives_a_claim_that_did_not_begin() {
    let scene = scene().await;
    let mut agent = scene.agent().await;
    let target = scene.target("pull");
    scene.accept(target.clone()).await;
    let held = scene.shared.store.hold_writer().await;
    // From here on the clock jumps whenever everybody waits.
    tokio::time::pause();
    let found = next(&scene.shared, &agent.session).await;
    tokio::time::resume();
    assert!(found.as_ref().is_err_and(Error::is_not_begun), "{found:?}");
    assert!(!agent.session.peer().end_token().is_cancelled());
    assert_eq!(scene.now(&target).await.status, "queued");
    drop(held);
    // Nobody wakes the session.
    tokio::time::pause();
    let started = agent.started.recv().await.expect("it is given in the end");
    assert_eq!(started.attempt, Attempt { target_id: target.id(), attempt: 1 });
}

/// The agent has the target then, and goes on.
#[tokio::test]
async fn a_session_outlives_a_database_that_cannot_be_asked_once_its_agent_took_a_target() {
    let scene = scene().await;
    let mut agent = scene.agent().await;
    let target = scene.given(&agent.session.fence, "pull").await;
    let held = scene.shared.store.hold_readers().await;
    let command = plan::complete(&scene.shared.store, &scene.shared.vault, &target).await;
    let command = command.unwrap().expect("no credential is needed");
    tokio::time::pause();
    let handing = hand_over(&scene.shared, &agent.session, &target, command);
    tokio::pin!(handing);
    tokio::select! {
        handed = &mut handing => panic!("{handed:?} with no connection"),
        () = tokio::time::sleep(LONG) => {}
    }
    assert_eq!(agent.started.recv().await.unwrap().attempt, attempt_of(&target));
    drop(held);
    handing.await.unwrap();
    tokio::time::resume();
    assert!(!agent.session.peer().end_token().is_cancelled());
    assert_eq!(scene.now(&target).await.status, "dispatched");
}

/// What is told of it by nobody would be with the session for ever.
#[tokio::test]
async fn a_target_that_cannot_begin_ends_when_the_database_can_be_written_again() {
    let scene = scene().await;
    let agent = scene.agent().await;
    let target = scene.given(&agent.session.fence, "testRegistry").await;
    let held = scene.shared.store.hold_writer().await;
    tokio::time::pause();
    let ending = not_prepared(&scene.shared, &agent.session, &target);
    tokio::pin!(ending);
    tokio::select! {
        ended = &mut ending => panic!("{ended:?} with no connection"),
        () = tokio::time::sleep(LONG) => {}
    }
    drop(held);
    ending.await.unwrap();
    tokio::time::resume();
    assert_eq!(scene.now(&target).await.status, "failed");
}

/// The next session gives the target out again, or calls it lost.
#[tokio::test]
async fn what_the_database_cannot_do_is_given_up_with_the_session() {
    let scene = scene().await;
    let agent = scene.agent().await;
    let target = scene.given(&agent.session.fence, "testRegistry").await;
    let _held = scene.shared.store.hold_writer().await;
    tokio::time::pause();
    agent.session.peer().cut();
    let given_up = tokio::time::timeout(LONG, not_prepared(&scene.shared, &agent.session, &target)).await;
    assert!(given_up.expect("it goes on without a session").is_err_and(|error| error.is_not_begun()));
}

/// One that its agent did not take is nobody's, and nobody would hear that it should stop.
#[tokio::test]
async fn what_is_put_back_although_somebody_asked_to_stop_it_has_ended() {
    let scene = scene().await;
    let session = scene.session().await;
    let store = &scene.shared.store;
    let (stopped, other) = (scene.given(&session, "pull").await, scene.given(&session, "pull").await);
    store.job_cancel(&scene.organization, &stopped.job(), &scene.event()).await.unwrap();
    for (target, status) in [(&stopped, "cancelled"), (&other, "queued")] {
        let put_back = store.target_put_back(&attempt_of(target), &session).await.unwrap();
        assert_eq!(put_back.is_some_and(|target| target.cancel_requested), status == "cancelled");
        assert_eq!(scene.now(target).await.status, status);
    }
}
