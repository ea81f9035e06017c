//! Values of `Link`: no panic; the target is a part of what was said, between angle brackets, with `next` behind it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use purser_registry_client::parse_link;

fuzz_target!(|value: &str| {
    let Some(target) = parse_link(value) else { return };
    assert!(!target.contains('>') && target.trim() == target);
    let at = target.as_ptr() as usize - value.as_ptr() as usize;
    assert_eq!(&value[at..at + target.len()], target);
    assert!(value[..at].contains('<'));
    assert!(value[at + target.len()..].to_ascii_lowercase().contains("next"));
});
