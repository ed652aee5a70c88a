//! Whether what an instance is told by its author leads to a host by one of its names: its variables as they are filled in, and the words of its
//! command.

use std::collections::BTreeSet;

/// What the name of a variable has that holds the name of a host and nothing else.
const OF_A_HOST: [&str; 7] = ["HOST", "SERVER", "ADDR", "ENDPOINT", "URL", "URI", "DSN"];

/// Whether a variable leads to one of these hosts.
pub fn variable_names(variable: &str, value: &str, hosts: &BTreeSet<String>) -> bool {
    let variable = variable.to_ascii_uppercase();
    let is_of_a_host = OF_A_HOST.iter().any(|part| variable.contains(part));
    text_names(value, hosts) || (is_of_a_host && is_one(value, hosts))
}

/// Whether words of a command lead to one of these hosts.
pub fn words_name(words: &[String], hosts: &BTreeSet<String>) -> bool {
    let parts = |word: &'_ String| word.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let parts: Vec<String> = words.iter().flat_map(parts).collect();
    let after_a_flag = parts.windows(2).any(|pair| {
        let is_flag = matches!(pair[0].as_str(), "-h" | "--host" | "-host" | "-H");
        is_flag && is_one(pair[1].trim_matches(['"', '\'']), hosts)
    });
    after_a_flag || parts.iter().any(|part| text_names(part, hosts))
}

/// A URL of one of them, also several hosts in one, or `host=NAME`.
fn text_names(text: &str, hosts: &BTreeSet<String>) -> bool {
    let after = |mark: &'static str| text.match_indices(mark).map(move |(at, _)| &text[at + mark.len()..]);
    let by_url = after("://").any(|rest| {
        let authority = rest.split(['/', '?', '#', ' ', '"', '\'']).next().unwrap_or_default();
        let places = authority.rsplit_once('@').map_or(authority, |(_, places)| places);
        places.split(',').any(|place| is_one(place, hosts))
    });
    let by_key = after("host=").any(|rest| {
        rest.split(['&', ' ', ';', '"', '\''])
            .next()
            .unwrap_or_default()
            .split(',')
            .any(|host| is_one(host, hosts))
    });
    by_url || by_key
}

/// One of these hosts, with or without a port.
fn is_one(place: &str, hosts: &BTreeSet<String>) -> bool {
    let (host, port) = place.trim().split_once(':').unwrap_or((place.trim(), ""));
    port.bytes().all(|digit| digit.is_ascii_digit()) && hosts.iter().any(|one| one.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> BTreeSet<String> {
        ["postgres", "cutover-shop-local-postgres"].map(str::to_owned).into()
    }

    #[test]
    fn a_variable_leads_there_by_a_url_or_as_the_name_itself() {
        for (variable, value) in [
            ("DATABASE_URL", "postgresql://shop:p%40ss@postgres/shop"),
            ("DATABASE_URL", "postgres://shop@POSTGRES:5432/shop?sslmode=disable"),
            ("DATABASE_URL", "postgresql://shop@elsewhere,cutover-shop-local-postgres:5432/shop"),
            ("JDBC_URL", "jdbc:postgresql://postgres:5432/shop"),
            ("DSN", "host=postgres user=shop"),
            ("PGHOST", "postgres"),
            ("DATABASE_HOST", "postgres:5432"),
        ] {
            assert!(variable_names(variable, value, &hosts()), "{variable}={value}");
        }
    }

    #[test]
    fn what_is_called_alike_and_is_no_host_does_not_lead_there() {
        for (variable, value) in [
            ("DATABASE_URL", "postgres://postgres:postgres@10.0.0.5/postgres"),
            ("DATABASE_URL", "postgresql://shop@postgres.example.com/shop"),
            ("DATABASE_URL", "postgresql:///shop?host=/run/postgresql"),
            ("PGUSER", "postgres"),
            ("POSTGRES_DB", "postgres"),
            ("PGHOST", "/run/postgres"),
            ("PGHOST", "localhost"),
        ] {
            assert!(!variable_names(variable, value, &hosts()), "{variable}={value}");
        }
    }

    #[test]
    fn words_lead_there_by_a_url_or_a_flag() {
        let words = |text: &[&str]| text.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert!(words_name(
            &words(&["migrate", "-database", "postgres://shop@postgres/shop", "up"]),
            &hosts()
        ));
        assert!(words_name(&words(&["sh", "-c", "psql -h 'postgres' -f /up.sql"]), &hosts()));
        assert!(words_name(&words(&["psql", "--host=postgres"]), &hosts()));
        assert!(!words_name(&words(&["psql", "-U", "postgres", "-h", "10.0.0.5"]), &hosts()));
        assert!(!words_name(&words(&["./migrate"]), &hosts()));
    }
}
