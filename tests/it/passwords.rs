//! A password survives every step unchanged: storing, testing from both ends, pushing, pulling.
//!
//! Every registry here compares the whole password, byte for byte (see `Kind::is_long`), and the engine
//! pulls anonymously when it cannot decode the header it is given: so an image that only its user may
//! have proves that the password arrived.

use purser_tests::{
    Engine, Road, Testbed, User,
    image::{self, Local},
    road::succeeded,
    unique,
    user::Kind,
};
use serde_json::json;

on_each_engine!(
    every_password_walks_the_road_to_a_basic_registry,
    every_password_walks_the_road_to_a_token_registry,
    every_one_time_password_pulls_a_private_image,
    a_password_that_lost_its_last_character_is_refused_by_both_ends,
);

/// Stores `user` for `registry`, tests from both ends, pushes and pulls.
async fn walk(road: &Road, engine: &Engine, user: &User, registry: &str) {
    let (bed, kind) = (Testbed::get(), user.kind);
    let entry = road.entry(registry, user).await;
    let auth = if registry == bed.registries.token { "bearer" } else { "basic" };
    for server in [None, Some(road.host())] {
        let tested = road.test(&entry, server).await.data();
        assert_eq!(tested["credentials"], "verified", "{kind:?} at {registry}: {tested:#}");
        assert_eq!(tested["auth"], auth, "{kind:?}: {tested:#}");
    }
    let reference = if kind == Kind::Reader && auth == "bearer" {
        // May not push there: somebody else did.
        image::in_registry(&bed.host_b(), registry, "password", 100, Some(bed.user(Kind::Plain)))
            .await
            .reference()
    } else {
        let local = Local::make(engine, "password", 100).await;
        let repository = unique("password");
        let pushed = road.push(&local.repository, &entry, json!({"repository": repository})).await;
        let pushed = succeeded(&pushed);
        assert_eq!(pushed["credentials"], "entry", "{kind:?}");
        pushed["image"].as_str().unwrap().to_owned()
    };
    let pulled = road.pull(&reference, json!({"registryId": entry})).await;
    assert_eq!(succeeded(&pulled)["credentials"], "entry", "{kind:?} at {registry}");
    assert!(engine.inspect(&reference).await.is_some(), "{kind:?} at {registry}");
    engine.remove(&reference).await;
}

async fn every_password_walks_the_road_to_a_basic_registry(engine: Engine) {
    let (bed, road) = (Testbed::get(), Road::on(&engine).await);
    for user in &bed.users {
        walk(&road, &engine, user, bed.basic_for(user)).await;
    }
}

async fn every_password_walks_the_road_to_a_token_registry(engine: Engine) {
    let (bed, road) = (Testbed::get(), Road::on(&engine).await);
    for user in &bed.users {
        walk(&road, &engine, user, &bed.registries.token).await;
    }
}

async fn every_one_time_password_pulls_a_private_image(engine: Engine) {
    let (bed, road) = (Testbed::get(), Road::on(&engine).await);
    let owner = bed.user(Kind::Plain);
    let image = image::in_registry(&bed.host_b(), &bed.registries.token, "one-time", 100, Some(owner)).await;
    for user in &bed.users {
        let auth = json!({"auth": {"username": user.username, "password": user.password}});
        let pulled = road.pull(&image.reference(), auth).await;
        assert_eq!(succeeded(&pulled)["credentials"], "oneTime", "{:?}", user.kind);
        assert!(engine.remove(&image.reference()).await, "{:?}", user.kind);
    }
}

/// The other way round: a password that is damaged by one character is no password.
async fn a_password_that_lost_its_last_character_is_refused_by_both_ends(engine: Engine) {
    let (bed, road) = (Testbed::get(), Road::on(&engine).await);
    for user in &bed.users {
        let mut damaged = user.password.clone();
        damaged.pop();
        let entry = road.entry_with(bed.basic_for(user), &user.username, &damaged).await;
        for server in [None, Some(road.host())] {
            let tested = road.test(&entry, server).await;
            assert_eq!(tested.diagnosis(), "unauthorized", "{:?} from {server:?}", user.kind);
        }
    }
}
