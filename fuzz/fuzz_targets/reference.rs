//! Image references: no panic; what is accepted is written so that it is read back as the same, fully qualified and in
//! Docker's short form; and its parts are what they claim to be.

#![no_main]

use libfuzzer_sys::fuzz_target;
use purser_registry_client::{Reference, canonical_registry_host};

fuzz_target!(|text: &str| {
    let Ok(read) = Reference::parse(text) else { return };
    let written = read.to_string();
    let again = Reference::parse(&written).expect("what was written can be read");
    assert_eq!(again, read, "{written}");
    assert_eq!(again.to_string(), written);
    assert!(again.explicit_registry());
    let short = read.familiar();
    assert_eq!(Reference::parse(&short).expect("Docker's short form can be read"), read, "{short}");
    assert!(read.tag().is_some() || read.digest().is_some());
    assert!(read.repository().len() <= 255 && !read.repository().contains([':', '@']));
    assert!(!written.contains(|c: char| c.is_whitespace() || c.is_control() || !c.is_ascii()));
    let host = canonical_registry_host(read.registry());
    assert_eq!(canonical_registry_host(&host), host);
    // Below another registry it is a reference of that registry, or of its own.
    if let Ok(moved) = read.with_registry_and_prefix("ghcr.io", Some("org/team")) {
        assert_eq!(moved.explicit_registry(), true);
        let stays = read.explicit_registry();
        assert_eq!(moved.registry(), if stays { read.registry() } else { "ghcr.io" });
        assert!(stays || moved.repository().starts_with("org/team/"));
    }
});
