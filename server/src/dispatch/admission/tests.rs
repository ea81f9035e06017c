use super::{
    super::{ADMISSIONS, LONG_ADMISSIONS, LONG_WAITING, scene::Scene},
    *,
};

fn is_busy(error: &ChannelError) -> bool {
    matches!(error, ChannelError::Closed { code, .. } if *code == CloseCode::Busy.number())
}

#[tokio::test]
async fn a_long_hello_does_not_wait_behind_the_whole_fleet() {
    let scene = Scene::set().await;
    let _fleet = scene.shared.admissions.try_acquire_many(ADMISSIONS as u32).unwrap();
    scene.dial(true).await.unwrap();
}

/// The reader's place among the few that may send so much is somebody else's then.
#[tokio::test]
async fn who_waits_to_be_looked_up_may_send_nothing_more() {
    let scene = Scene::set().await;
    let all = scene.shared.long_admissions.try_acquire_many(LONG_ADMISSIONS as u32).unwrap();
    let mut ration = scene.ration.subscribe();
    let waits = async {
        let nothing = Ration::Bytes { bytes: 0, more: 0 };
        timeout(FAREWELL * 30, ration.wait_for(|ration| *ration == nothing)).await.unwrap().unwrap();
        drop(all);
    };
    let (agent, ()) = tokio::join!(scene.dial(true), waits);
    agent.unwrap();
    assert_eq!(*scene.ration.borrow(), Ration::Endless);
}

#[tokio::test]
async fn no_more_long_hellos_are_held_than_there_is_room_for() {
    let scene = Scene::set().await;
    let all = scene.shared.long_waiting.try_acquire_many(LONG_WAITING as u32).unwrap();
    assert!(scene.dial(true).await.is_err_and(|error| is_busy(&error)));
    scene.dial(false).await.unwrap();
    drop(all);
    scene.dial(true).await.unwrap();
    assert_eq!(scene.shared.long_waiting.available_permits(), LONG_WAITING, "the room is given back");
}

#[tokio::test]
async fn an_older_session_does_not_take_over_from_a_newer_one() {
    let scene = Scene::set().await;
    let older = scene.agent().await;
    let newer = scene.agent().await;
    // As if it had been admitted first, and gets to it only now.
    let late = take_over(&scene.shared, &older.session);
    assert_eq!(late, Err(CloseCode::Superseded));
    let present = scene.shared.session(&scene.server).unwrap();
    assert!(Arc::ptr_eq(&present, &newer.session));
    let ended = older.peer.ended().await;
    assert!(ended.to_string().contains(CloseCode::Superseded.reason()), "{ended}");
    assert!(!newer.peer.end_token().is_cancelled());
}
