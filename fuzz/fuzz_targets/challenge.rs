//! Values of `WWW-Authenticate`: no panic; a Bearer challenge has a realm, and nothing in it that wasn't said.

#![no_main]

use libfuzzer_sys::fuzz_target;
use purser_registry_client::{Challenge, parse_challenge};

fuzz_target!(|value: &str| {
    match parse_challenge(value) {
        Some(Challenge::Bearer { realm, service }) => {
            assert!(!realm.is_empty() && realm.len() <= value.len());
            assert!(service.is_none_or(|service| !service.is_empty() && service.len() <= value.len()));
            assert!(value.to_ascii_lowercase().contains("bearer"));
        }
        Some(Challenge::Basic) => assert!(value.to_ascii_lowercase().contains("basic")),
        None => {}
    }
});
