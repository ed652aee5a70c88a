//! By what `PostgreSQL`'s client programs are told where and who: its variables, which are also those of the usual image.

use cutover_core::config::settings::ServerKind;

use super::client::Login;
use super::url::{Dialect, Part, Url};

/// Who it is: what the usual image is told by, where nothing else says so. A database's name is the first word.
const IDENTITY: &str = r#"set -f
if [ -n "${CUTOVER_OWN:-}" ]; then
    export PGPASSWORD="$CUTOVER_OWN"
elif [ -z "${PGPASSWORD:-}" ]; then
    if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE"); else PGPASSWORD=${POSTGRES_PASSWORD:-}; fi
    export PGPASSWORD
fi
export PGUSER="${PGUSER:-${POSTGRES_USER:-postgres}}"
export PGDATABASE="${1:-${PGDATABASE:-${POSTGRES_DB:-$PGUSER}}}" PGCONNECT_TIMEOUT=10 PGAPPNAME="$CUTOVER_CLIENT"
shift
"#;

pub(super) const LOGIN: Login = Login { identity: IDENTITY, dialect: &DIALECT, variables };

pub(super) const DIALECT: Dialect = Dialect {
    schemes: ServerKind::Postgres.schemes(),
    expected: "postgres://user:password@host:5432/name",
    parts: &[
        ("host", Part::Host),
        ("user", Part::User),
        ("password", Part::Password),
        ("dbname", Part::Database),
        ("port", Part::Port),
        ("sslmode", Part::Variable("PGSSLMODE")),
        ("sslrootcert", Part::Variable("PGSSLROOTCERT")),
        ("sslcert", Part::Variable("PGSSLCERT")),
        ("sslkey", Part::Variable("PGSSLKEY")),
    ],
};

fn variables(url: &Url) -> Vec<(&'static str, String)> {
    let own = [
        ("PGHOST", Some(url.host.clone())),
        ("PGPORT", url.port.map(|port| port.to_string())),
        ("PGUSER", Some(url.user.clone()).filter(|user| !user.is_empty())),
        ("PGPASSWORD", Some(url.password.clone()).filter(|password| !password.is_empty())),
        ("PGDATABASE", Some(url.database.clone())),
    ];
    own.into_iter().filter_map(|(name, value)| Some((name, value?))).chain(url.more.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_becomes_what_client_programs_read() {
        let url = Url::parse(
            "postgresql+asyncpg://ann:p%40ss%3Aword@db.example.com:6432/shop?sslmode=require&schema=x",
            &DIALECT,
        );
        let url = url.ok().unwrap();

        assert_eq!(
            variables(&url),
            [
                ("PGHOST", "db.example.com".to_owned()),
                ("PGPORT", "6432".to_owned()),
                ("PGUSER", "ann".to_owned()),
                ("PGPASSWORD", "p@ss:word".to_owned()),
                ("PGDATABASE", "shop".to_owned()),
                ("PGSSLMODE", "require".to_owned()),
            ]
        );
    }

    #[test]
    fn addresses_and_sockets_are_understood() {
        let place = |text: &str| Url::parse(text, &DIALECT).ok().map(|url| (url.host, url.port));
        assert_eq!(place("postgres://a:b@[::1]:5433/x"), Some(("::1".to_owned(), Some(5433))));
        assert_eq!(place("postgres://a@/x?host=/run/db"), Some(("/run/db".to_owned(), None)));
    }

    #[test]
    fn what_is_missing_is_told_without_a_value() {
        let told = |text: &str| Url::parse(text, &DIALECT).err().unwrap().message;
        assert!(told("mysql://a:secret@h/x").contains("another engine"));
        assert!(told("postgres://a:secret@h").contains("names no database"));
        assert!(told("postgres://a:secret@/x").contains("names no host"));
        assert!(!told("postgres://a:secret@h:x/x").contains("secret"));
    }
}
