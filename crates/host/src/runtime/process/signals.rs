//! Signals by the names that configurations use.

use rustix::process::Signal;

/// The signal of a name with or without `SIG`, or of a number; `None`: there is no such signal.
pub(super) fn parse(name: &str) -> Option<Signal> {
    let upper = name.trim().to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Ok(number) = short.parse() {
        return Signal::from_named_raw(number);
    }
    Some(match short {
        "TERM" => Signal::TERM,
        "INT" => Signal::INT,
        "QUIT" => Signal::QUIT,
        "HUP" => Signal::HUP,
        "KILL" => Signal::KILL,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "ABRT" => Signal::ABORT,
        "ALRM" => Signal::ALARM,
        "WINCH" => Signal::WINCH,
        _ => return None,
    })
}

/// What stops a process where nothing else is said.
pub(super) fn stop(name: Option<&str>) -> Signal {
    name.and_then(parse).unwrap_or(Signal::TERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read() {
        assert_eq!(parse("SIGQUIT"), Some(Signal::QUIT));
        assert_eq!(parse("int"), Some(Signal::INT));
        assert_eq!(parse("15"), Some(Signal::TERM));
        assert_eq!(parse("NONSENSE"), None);
        assert_eq!(stop(None), Signal::TERM);
    }
}
