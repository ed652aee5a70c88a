//! The password of a user of `MariaDB` or `MySQL`: tried, and changed, for every host that the user may come from. It goes to a program's standard
//! input, and what the server would write of its statement it does not write (P6).

use super::mariadb_restore::literal;
use crate::ports::Account;

/// Tries an account by the way that apps come, and by the socket, for one that may come by nothing else; its password is the first line that is read.
pub(super) const LOG_IN: &str = r#"IFS= read -r MYSQL_PWD
export MYSQL_PWD
user=$1 host=$2 port=${3:-3306}
unset MYSQL_HOST MYSQL_TCP_PORT
program=mariadb
command -v "$program" >/dev/null || program=mysql
log_in() {
    "$program" --no-defaults --user="$user" "$@" --connect-timeout=10 --batch --execute='select 1' information_schema </dev/null >/dev/null
}
log_in --host="$host" --port="$port" --protocol=tcp --loose-skip-ssl-verify-server-cert --loose-get-server-public-key || log_in"#;

/// What is asked for the hosts that a user may come from. A server that resolves no names has not taken in those that are some.
pub(super) fn hosts(role: &str) -> String {
    format!(
        "select host from mysql.user where user = {} and (@@skip_name_resolve = 0 or host = 'localhost' or host regexp '^[0-9.%_/]+$|:')",
        literal(role)
    )
}

/// Gives it its password at each of these hosts. Other servers do not hear of it: their users are their own.
pub(super) fn statements(account: &Account, hosts: &[&str], is_mariadb: bool) -> String {
    let (role, password) = (literal(&account.role), literal(account.password.expose()));
    let users: Vec<_> =
        hosts.iter().map(|host| format!("{role}@{} identified by {password}", literal(host))).collect();
    // MySQL writes no password into its logs by itself, and has no such setting for one session.
    let slow = if is_mariadb { "set session slow_query_log = 0;\n" } else { "" };
    format!(
        "set session sql_mode = '';\nset session sql_log_off = 1;\nset session sql_log_bin = 0;\n{slow}alter user {};\n",
        users.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use cutover_core::secret::Secret;

    use super::*;

    #[test]
    fn a_user_has_one_password_wherever_he_comes_from() {
        let account = Account {
            role: "ann".to_owned(),
            password: Secret::new(r"it's \"),
            host: "db".to_owned(),
            port: None,
        };
        let said = statements(&account, &["%", "localhost"], true);
        assert_eq!(
            said.lines().last(),
            Some(
                r"alter user 'ann'@'%' identified by 'it''s \\', 'ann'@'localhost' identified by 'it''s \\';"
            )
        );
    }
}
