//! `behaviour.json`: how a release misbehaves on purpose, for demonstrations and tests. Absent in a good release.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BehaviourError {
    #[error("behaviour.json cannot be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("behaviour.json is not understood: {0}")]
    Parse(#[from] serde_json::Error),
}

/// Where the entries are kept.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Database {
    /// The file that `DATABASE_FILE` names.
    #[default]
    File,
    /// In memory, migrated at the start, gone at the end: for tests that are about something else.
    Memory,
}

/// The knobs. README.md says what each is for; an unknown one is refused, so that a typing error in a
/// demonstration does not show a healthy release.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Behaviour {
    pub(crate) database: Database,
    pub(crate) requires: Vec<String>,
    pub(crate) log_at_start: Option<String>,
    pub(crate) tells: Vec<String>,
    pub(crate) start_delay_ms: u64,
    pub(crate) exit_at_start: Option<u8>,
    pub(crate) allocate_mib: usize,
    pub(crate) listen: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    pub(crate) silent: bool,
    pub(crate) hosts: Vec<String>,
    pub(crate) health_status: Option<u16>,
    pub(crate) slow_ms: u64,
    pub(crate) fail_after_requests: Option<u64>,
    pub(crate) fail_after_seconds: Option<f64>,
    pub(crate) exit_after_ms: Option<u64>,
    pub(crate) ignore_stop: bool,
    pub(crate) stop_delay_ms: u64,
}

impl Behaviour {
    /// From the working folder; without the file a release simply behaves.
    pub(crate) fn load(folder: &Path) -> Result<Self, BehaviourError> {
        match std::fs::read(folder.join("behaviour.json")) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a page asked for now is answered with 500: `asked` counts this request too.
    pub(crate) fn fails(&self, asked: u64, since_start: Duration) -> bool {
        self.fail_after_requests.is_some_and(|good| asked > good)
            || self.fail_after_seconds.is_some_and(|good| since_start.as_secs_f64() >= good)
    }

    /// Whether a request for this `Host` is refused, as frameworks with a list of allowed hosts do.
    pub(crate) fn refuses_host(&self, host: &str) -> bool {
        let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
        !self.hosts.is_empty() && !self.hosts.iter().any(|allowed| allowed == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_no_file_then_nothing_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let behaviour = Behaviour::load(folder.path()).unwrap();
        assert!(!behaviour.fails(1_000_000, Duration::from_hours(24)));
        assert!(!behaviour.refuses_host("anything:80"));
    }

    #[test]
    fn given_an_unknown_knob_then_it_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("behaviour.json"), r#"{"helth_status": 500}"#).unwrap();
        let error = Behaviour::load(folder.path()).unwrap_err();
        assert!(error.to_string().contains("helth_status"), "{error}");
    }

    #[test]
    fn given_fail_after_requests_then_exactly_so_many_are_answered() {
        let behaviour = Behaviour { fail_after_requests: Some(2), ..Behaviour::default() };
        let failing: Vec<bool> = (1..=4).map(|asked| behaviour.fails(asked, Duration::ZERO)).collect();
        assert_eq!(failing, [false, false, true, true]);
    }

    #[test]
    fn given_allowed_hosts_then_others_are_refused_whatever_the_port() {
        let behaviour = Behaviour { hosts: vec!["guestbook.localhost".into()], ..Behaviour::default() };
        assert!(!behaviour.refuses_host("guestbook.localhost:8080"));
        assert!(behaviour.refuses_host("127.0.0.1:8080"));
    }
}
