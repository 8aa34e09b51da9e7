//! Callers as they are stored, each as a word.

use hearth_model::{Caller, KnownBy};

/// The word for a caller.
#[must_use]
pub fn caller_word(caller: Caller) -> String {
    match caller {
        Caller::User { uid, known_by: KnownBy::PeerCredentials } => {
            format!("user {uid} peer-credentials")
        }
        Caller::User { uid, known_by: KnownBy::SocketOwner } => format!("user {uid} socket-owner"),
        Caller::DesiredFile => "desired-file".to_owned(),
        Caller::Hearth => "hearth".to_owned(),
        Caller::Unknown => "unknown".to_owned(),
    }
}

/// The caller of a word. One that this version does not know is unknown.
#[must_use]
pub fn caller_of_word(word: &str) -> Caller {
    let parts: Vec<&str> = word.split(' ').collect();
    let user = |uid: &str, known_by| match uid.parse() {
        Ok(uid) => Caller::User { uid, known_by },
        Err(_) => Caller::Unknown,
    };
    match parts[..] {
        ["user", uid, "peer-credentials"] => user(uid, KnownBy::PeerCredentials),
        ["user", uid, "socket-owner"] => user(uid, KnownBy::SocketOwner),
        ["desired-file"] => Caller::DesiredFile,
        ["hearth"] => Caller::Hearth,
        _ => Caller::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::{caller_of_word, caller_word};
    use hearth_model::{Caller, KnownBy};

    #[test]
    fn each_caller_is_read_as_it_was_stored() {
        for caller in [
            Caller::User { uid: 0, known_by: KnownBy::PeerCredentials },
            Caller::User { uid: u32::MAX, known_by: KnownBy::SocketOwner },
            Caller::DesiredFile,
            Caller::Hearth,
            Caller::Unknown,
        ] {
            assert_eq!(caller_of_word(&caller_word(caller)), caller);
        }
    }

    #[test]
    fn words_of_newer_versions_are_unknown_callers() {
        for word in ["", "token ci", "user", "user x peer-credentials", "user 1 by-magic"] {
            assert_eq!(caller_of_word(word), Caller::Unknown, "{word}");
        }
    }
}
