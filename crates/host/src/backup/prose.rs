//! What restic says when something went wrong. Before 0.17 all of it ends with the same exit code, so that its words have to tell; the samples
//! below are its own. What is not known here is passed on as it stands.

/// What went wrong with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There is no restic on this host.
    NoProgram,
    /// There is no repository.
    NoRepository,
    /// The password opens none.
    WrongPassword,
    /// Another process works in it.
    Locked,
    /// Nobody answers there.
    Unreachable,
    /// It knows the key and the secret not.
    NotLetIn,
    /// Nothing can be written there.
    ReadOnly,
    /// There is no room.
    Full,
    /// What lies there is not what was written.
    Damaged,
    /// Not known here.
    Other,
}

/// What each is told by.
const TOLD_BY: [(&str, Trouble); 23] = [
    ("wrong password or no key found", Trouble::WrongPassword),
    ("no space left on device", Trouble::Full),
    ("disk quota exceeded", Trouble::Full),
    ("read-only file system", Trouble::ReadOnly),
    ("permission denied", Trouble::ReadOnly),
    ("Access Denied", Trouble::ReadOnly),
    // They come with the question whether there is a repository.
    ("signature we calculated does not match", Trouble::NotLetIn),
    ("account is not signed up", Trouble::NotLetIn),
    ("Access Key Id you provided does not exist", Trouble::NotLetIn),
    ("already locked", Trouble::Locked),
    ("connection refused", Trouble::Unreachable),
    ("Connection refused", Trouble::Unreachable),
    ("no such host", Trouble::Unreachable),
    ("i/o timeout", Trouble::Unreachable),
    ("unable to start the sftp session", Trouble::Unreachable),
    ("no route to host", Trouble::Unreachable),
    ("Host key verification failed", Trouble::Unreachable),
    ("ciphertext verification failed", Trouble::Damaged),
    ("invalid data returned", Trouble::Damaged),
    ("hash does not match", Trouble::Damaged),
    ("does not match id", Trouble::Damaged),
    ("repository contains errors", Trouble::Damaged),
    ("Is there a repository at the following location?", Trouble::NoRepository),
];

/// What went wrong, by the exit code and what was said on the error stream.
pub(super) fn trouble(code: Option<i32>, said: &str) -> Trouble {
    match code {
        Some(10) => Trouble::NoRepository,
        Some(11) => Trouble::Locked,
        Some(12) => Trouble::WrongPassword,
        _ => TOLD_BY.iter().find(|(words, _)| said.contains(words)).map_or(Trouble::Other, |(_, it)| *it),
    }
}

/// The line that tells most: restic ends with it.
pub(super) fn last_words(said: &str) -> String {
    let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('{'));
    let fatal = lines.clone().find(|line| line.starts_with("Fatal:"));
    fatal.or_else(|| lines.next_back()).unwrap_or("it said nothing").trim_start_matches("Fatal: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restic_of_before_is_understood_by_its_words_and_later_ones_by_their_codes() {
        let absent = "Fatal: unable to open config file: stat nope/config: no such file or directory\nIs there a repository at the following location?\nnope\n";
        let refused = "subprocess ssh: ssh: connect to host 127.0.0.1 port 22: Connection refused\nFatal: unable to open repository at sftp:root@127.0.0.1:/x: unable to start the sftp session, error: EOF\n";
        let secret = "Fatal: unable to open config file: Stat: The request signature we calculated does not match the signature you provided. Check your key and signing method.\nIs there a repository at the following location?\ns3:http://127.0.0.1:39871/backups\n";
        let wrong = "Fatal: wrong password or no key found\n";
        assert_eq!(trouble(Some(1), absent), Trouble::NoRepository);
        assert_eq!(trouble(Some(1), refused), Trouble::Unreachable);
        assert_eq!(trouble(Some(1), wrong), Trouble::WrongPassword);
        assert_eq!(trouble(Some(1), secret), Trouble::NotLetIn);
        assert_eq!(trouble(Some(12), "whatever"), Trouble::WrongPassword);
        assert_eq!(trouble(Some(1), "Fatal: something new\n"), Trouble::Other);
        assert_eq!(
            last_words(refused),
            "unable to open repository at sftp:root@127.0.0.1:/x: unable to start the sftp session, error: EOF"
        );
    }
}
