//! The password of a role of `PostgreSQL`: tried, and changed. It goes to a program's standard input, and what the server would write of its statement
//! it does not write (P6).

use super::postgres_restore::{literal, quoted};
use crate::ports::Account;

/// Tries an account by the way that apps come; its password is the first line that is read. `psql` asks for none.
pub(super) const LOG_IN: &str = r#"IFS= read -r PGPASSWORD
export PGPASSWORD PGUSER="$1" PGHOST="$2" PGPORT="${3:-5432}"
unset PGHOSTADDR PGSERVICE PGPASSFILE
exec psql -XAtqw -c 'select 1' >/dev/null"#;

/// What is asked for the limit by which there is no room for one more session of an account, besides who asks; nothing where there is room.
pub(super) fn without_room(account: &Account) -> String {
    format!(
        "with others as (select usename, datname from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()),
         room as (select current_setting('max_connections')::int total, current_setting('superuser_reserved_connections')::int
             + coalesce(current_setting('reserved_connections', true), '0')::int reserved)
         select case
             when (select count(*) from others) >= total - case when rolsuper then 0 else reserved end then 'max_connections'
             when not rolsuper and rolconnlimit between 0 and (select count(*) from others where usename = rolname) then 'CONNECTION LIMIT of the role'
             when not rolsuper and datconnlimit between 0 and (select count(*) from others o where o.datname = d.datname) then 'CONNECTION LIMIT of the database'
         end
         from room, pg_roles, pg_database d where rolname = {} and d.datname = current_database()",
        literal(&account.role)
    )
}

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
