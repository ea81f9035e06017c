use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn token() -> JoinToken {
    JoinToken::generate(ServerId::generate(), fingerprint(b"server")).unwrap()
}

fn again(token: &JoinToken) -> Option<JoinToken> {
    Some(JoinToken::decode(token.encode().unwrap().expose_secret()).unwrap())
}

#[test]
fn folder_and_files_are_private_and_the_key_stays() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("state");
    let token = token();
    let mut state = State::open(&path, again(&token)).unwrap();
    state.welcomed().unwrap();
    let public = *state.key().public();
    drop(state);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for file in std::fs::read_dir(&path).unwrap() {
        let file = file.unwrap().path();
        assert_eq!(mode(&file), 0o600, "{}", file.display());
        let content = std::fs::read_to_string(&file).unwrap();
        assert!(!content.contains(token.secret.expose()), "{}", file.display());
    }
    assert_eq!(*State::open(&path, None).unwrap().key().public(), public);
}

#[test]
fn two_agents_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let _first = State::open(folder.path(), Some(token())).unwrap();
    assert!(matches!(State::open(folder.path(), Some(token())), Err(AgentError::StateInUse(_))));
}

#[test]
fn a_host_without_membership_needs_a_token() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(State::open(folder.path(), None), Err(AgentError::NotJoined)));
}

#[test]
fn a_spent_token_is_not_presented_again_until_the_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let token = token();
    let mut state = State::open(folder.path(), again(&token)).unwrap();
    assert!(state.introduction().join_secret.is_some());
    state.welcomed().unwrap();
    assert!(state.introduction().join_secret.is_none());
    drop(state);

    let mut state = State::open(folder.path(), again(&token)).unwrap();
    assert!(state.introduction().join_secret.is_none());
    state.refused(RefusalCode::Busy);
    assert!(state.introduction().join_secret.is_none());
    state.refused(RefusalCode::UnknownKey);
    assert!(state.introduction().join_secret.is_some());
    state.refused(RefusalCode::InvalidJoinToken);
    assert!(state.introduction().join_secret.is_none());
}

#[test]
fn a_new_token_wins_over_the_membership_and_is_kept_only_when_welcomed() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (token(), token());
    State::open(folder.path(), again(&first)).unwrap().welcomed().unwrap();

    let mut state = State::open(folder.path(), again(&second)).unwrap();
    assert_eq!(state.introduction().server_id, second.server_id);
    // Another server's row: no way back to the first by itself.
    state.refused(RefusalCode::InvalidJoinToken);
    assert_eq!(state.introduction().server_id, second.server_id);
    drop(state);
    assert_eq!(State::open(folder.path(), None).unwrap().introduction().server_id, first.server_id);
}

#[test]
fn a_damaged_key_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(IDENTITY), "not a key").unwrap();
    assert!(matches!(State::open(folder.path(), Some(token())), Err(AgentError::StateDamaged(_))));
}
