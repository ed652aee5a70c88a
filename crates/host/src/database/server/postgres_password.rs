//! The password of a role of `PostgreSQL`: tried, and changed. It goes to a program's standard input, and what the server would write of its statement
//! it does not write (P6).

use super::postgres_restore::{literal, quoted};
use crate::ports::Account;

/// Tries an account by the way that apps come; its password is the first line that is read. `psql` asks for none.
pub(super) const LOG_IN: &str = r#"IFS= read -r PGPASSWORD
export PGPASSWORD PGUSER="$1" PGHOST="$2" PGPORT="${3:-5432}"
unset PGHOSTADDR PGSERVICE PGPASSFILE
exec psql -XAtqw -c 'select 1' >/dev/null"#;

/// Gives it its password. How that is kept, as SCRAM or by MD5, is the server's choice.
pub(super) fn statements(account: &Account) -> String {
    format!(
        "set log_statement = 'none';\nset log_min_duration_statement = -1;\nset log_min_error_statement = 'panic';\n\
         set log_min_duration_sample = -1;\nset log_transaction_sample_rate = 0;\n\
         set pg_stat_statements.track = 'none';\nset standard_conforming_strings = on;\n\
         set lock_timeout = '10s';\nset statement_timeout = '20s';\n\
         alter role {} with password {};\n",
        quoted(&account.role),
        literal(account.password.expose())
    )
}

#[cfg(test)]
mod tests {
    use cutover_core::secret::Secret;

    use super::*;

    #[test]
    fn whatever_stands_in_a_password_is_part_of_it() {
        let account = Account {
            role: r#"a"b"#.to_owned(),
            password: Secret::new(r"it's \ :x"),
            host: "postgres".to_owned(),
            port: None,
        };
        let said = statements(&account);
        assert_eq!(said.lines().last(), Some(r#"alter role "a""b" with password 'it''s \ :x';"#));
    }
}
