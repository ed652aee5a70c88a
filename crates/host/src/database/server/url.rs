//! A server's URL taken apart, into the variables by which its client programs are told: never words of a command (P6).

use crate::ports::DatabaseError;

/// How an engine writes its URLs.
pub(super) struct Dialect {
    /// What may stand before `://`; a driver's name behind a `+` means nothing here.
    pub(super) schemes: &'static [&'static str],
    /// One as it should be.
    pub(super) expected: &'static str,
    /// What of that behind the `?` is known. The rest is a driver's own.
    pub(super) parts: &'static [(&'static str, Part)],
}

/// What a word behind the `?` says.
pub(super) enum Part {
    Host,
    User,
    Password,
    Database,
    Port,
    /// A variable of the client programs.
    Variable(&'static str),
}

/// Where a database is, and as whom. `Debug` is left out: it holds a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) database: String,
    /// Variables for what stands behind the `?`.
    pub(super) more: Vec<(&'static str, String)>,
}

impl Url {
    /// `scheme://user:password@host:port/database?sslmode=…`.
    ///
    /// # Errors
    /// What is missing, without any of the values.
    pub(super) fn parse(text: &str, dialect: &Dialect) -> Result<Self, DatabaseError> {
        let wrong = |what: &str| {
            DatabaseError::plain(format!("the database's url {what}: {} is expected", dialect.expected))
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("has no scheme"))?;
        if !scheme.split('+').next().is_some_and(|scheme| dialect.schemes.contains(&scheme)) {
            return Err(wrong("is of another engine"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        let port = port.filter(|port| !port.is_empty()).map(str::parse).transpose();
        let mut url = Self {
            host: decoded(host),
            port: port.map_err(|_| wrong("has a port that is no number"))?,
            user: decoded(user),
            password: decoded(password),
            database: decoded(database),
            more: Vec::new(),
        };
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = decoded(value);
            let Some((_, part)) = dialect.parts.iter().find(|(name, _)| *name == key) else { continue };
            match part {
                Part::Host => url.host = value,
                Part::User => url.user = value,
                Part::Password => url.password = value,
                Part::Database => url.database = value,
                Part::Port => url.port = value.parse().ok(),
                Part::Variable(name) => url.more.push((name, value)),
            }
        }
        if url.host.is_empty() {
            return Err(wrong("names no host"));
        }
        if url.database.is_empty() {
            return Err(wrong("names no database"));
        }
        Ok(url)
    }
}

/// `%40` and the like are what they stand for.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let code = (*first == b'%')
            .then(|| more.get(..2))
            .flatten()
            .and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &more[2..] } else { more };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
