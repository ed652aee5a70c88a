//! A server's URL taken apart, into the variables by which its client programs are told: never words of a command (P6).

use crate::ports::DatabaseError;

/// Where a database is, and as whom. `Debug` is left out: it holds a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Url {
    host: String,
    port: Option<u16>,
    user: String,
    password: String,
    pub(super) database: String,
    /// Variables for what stands behind the `?`.
    more: Vec<(&'static str, String)>,
}

impl Url {
    /// `postgres://user:password@host:port/database?sslmode=…`; a driver's name in the scheme (`postgresql+asyncpg`) means nothing here.
    ///
    /// # Errors
    /// What is missing, without any of the values.
    pub(super) fn parse(text: &str) -> Result<Self, DatabaseError> {
        let wrong = |what: &str| {
            DatabaseError::plain(format!(
                "the database's url {what}: postgres://user:password@host:5432/name is expected"
            ))
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("has no scheme"))?;
        if !matches!(scheme.split('+').next(), Some("postgres" | "postgresql")) {
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
            match key {
                "host" => url.host = value,
                "user" => url.user = value,
                "password" => url.password = value,
                "dbname" => url.database = value,
                "port" => url.port = value.parse().ok(),
                "sslmode" => url.more.push(("PGSSLMODE", value)),
                "sslrootcert" => url.more.push(("PGSSLROOTCERT", value)),
                "sslcert" => url.more.push(("PGSSLCERT", value)),
                "sslkey" => url.more.push(("PGSSLKEY", value)),
                // A driver's own.
                _ => {}
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

    /// What its client programs read.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        let own = [
            ("PGHOST", Some(self.host.clone())),
            ("PGPORT", self.port.map(|port| port.to_string())),
            ("PGUSER", Some(self.user.clone()).filter(|user| !user.is_empty())),
            ("PGPASSWORD", Some(self.password.clone()).filter(|password| !password.is_empty())),
            ("PGDATABASE", Some(self.database.clone())),
        ];
        let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
        own.chain(self.more.iter().cloned()).collect()
    }

    /// As words of a command for a person, who is asked for the password.
    pub(super) fn words(&self) -> String {
        let port = self.port.map(|port| format!("-p {port} ")).unwrap_or_default();
        format!("-h {} {port}-U {} -d {}", self.host, self.user, self.database)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_becomes_what_client_programs_read() {
        let url = Url::parse(
            "postgresql+asyncpg://ann:p%40ss%3Aword@db.example.com:6432/shop?sslmode=require&schema=x",
        );
        let url = url.ok().unwrap();

        assert_eq!(
            url.variables(),
            [
                ("PGHOST", "db.example.com".to_owned()),
                ("PGPORT", "6432".to_owned()),
                ("PGUSER", "ann".to_owned()),
                ("PGPASSWORD", "p@ss:word".to_owned()),
                ("PGDATABASE", "shop".to_owned()),
                ("PGSSLMODE", "require".to_owned()),
            ]
        );
        assert_eq!(url.words(), "-h db.example.com -p 6432 -U ann -d shop");
    }

    #[test]
    fn addresses_and_sockets_are_understood() {
        let url = |text: &str| Url::parse(text).ok().map(|url| url.words());
        assert_eq!(url("postgres://a:b@[::1]:5433/x").as_deref(), Some("-h ::1 -p 5433 -U a -d x"));
        assert_eq!(url("postgres://a@/x?host=/run/db").as_deref(), Some("-h /run/db -U a -d x"));
    }

    #[test]
    fn what_is_missing_is_told_without_a_value() {
        let told = |text: &str| Url::parse(text).err().unwrap().message;
        assert!(told("mysql://a:secret@h/x").contains("another engine"));
        assert!(told("postgres://a:secret@h").contains("names no database"));
        assert!(told("postgres://a:secret@/x").contains("names no host"));
        assert!(!told("postgres://a:secret@h:x/x").contains("secret"));
    }
}
