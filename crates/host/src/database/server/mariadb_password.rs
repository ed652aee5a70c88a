//! The password of a user of `MariaDB` or `MySQL`: tried, and changed, for every host that the user may come from. It goes to a program's standard
//! input, and what the server would write of its statement it does not write (P6).

use super::client::{Said, badly};
use super::mariadb_restore::literal;
use super::password::{Tried, full};
use crate::ports::Account;

/// What a session that changes a password holds in the server. By it it is found by whoever comes after a run that was killed: it may wait there for
/// a lock of tables, and go on once that is free.
pub(super) const PASSWORD_LOCK: &str = "cutover password";

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

/// The server's own numbers: too many connections; those of a user; more than the user may have, in an hour or at once.
const FULL: [u32; 3] = [1040, 1203, 1226];
/// Access denied, for a user who comes with a password, and without one.
const DENIED: [u32; 2] = [1045, 1698];

/// How a try ended. Client programs say the number of an error in all languages.
pub(super) fn tried(account: &Account, said: &Said) -> Tried {
    if said.exit.code == Some(0) {
        return Tried::In;
    }
    let number =
        |line: &str| -> Option<u32> { line.strip_prefix("ERROR ")?.split([' ', ':']).next()?.parse().ok() };
    let numbers: Vec<u32> = said.errors.lines().filter_map(number).collect();
    if let Some(number) = numbers.iter().find(|number| FULL.contains(number)) {
        return Tried::Neither(full(
            account,
            &format!("error {number}: `max_connections`, or `MAX_USER_CONNECTIONS` of the user"),
        ));
    }
    if numbers.iter().any(|number| DENIED.contains(number)) {
        return Tried::Refused;
    }
    Tried::Neither(badly(&["the login".to_owned()], &said.exit, &said.errors))
}

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
