//! The password of a user of `MariaDB` or `MySQL`: tried, and changed, for every host that the user may come from. It goes to a program's standard
//! input, and what the server would write of its statement it does not write (P6).

use cutover_core::secret::Secret;
use sha1::{Digest as _, Sha1};

use super::client::{Said, badly};
use super::mariadb_restore::literal;
use super::password::{Tried, full};
use crate::ports::{Account, DatabaseError};

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

/// Those of a user's name, by the host that they come from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Users {
    /// From where those come whose password is changed.
    pub(super) hosts: Vec<String>,
    /// Who is left as he is, or gets it whatever he has, and why, a line each.
    pub(super) told: Vec<String>,
}

/// Ways to log in by a password that `identified by` keeps, and as which it is kept.
const BY_PASSWORD: [&str; 4] = ["", NATIVE, "caching_sha2_password", "sha256_password"];
/// The one that is kept without salt, so that two can be compared.
const NATIVE: &str = "mysql_native_password";

impl Users {
    /// Reads the answer to [`users`]: who has one of these passwords.
    pub(super) fn of(role: &str, passwords: [&Secret; 2], said: &str) -> Result<Self, DatabaseError> {
        let known = passwords.map(kept_as);
        let rows = said.lines().filter_map(|line| {
            let mut words = line.split('\t');
            let (host, plugin) = (words.next()?, words.next()?);
            let kept = words.next().unwrap_or_default();
            Some((host, plugin, known.iter().any(|known| known == kept)))
        });
        let (mut hosts, mut others, mut unknown, mut left) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (host, plugin, has) in rows {
            let who = format!("`{role}`@`{host}`");
            if !BY_PASSWORD.contains(&plugin) {
                left.push(format!("{who} logs in by {plugin}, and goes on so"));
            } else if has {
                hosts.push(host.to_owned());
            } else if plugin != NATIVE && !plugin.is_empty() {
                unknown.push(format!("{who} gets the new password, whichever it has: {plugin} keeps it with salt, so that two cannot be compared"));
                hosts.push(host.to_owned());
            } else {
                others.push(host.to_owned());
            }
        }
        // Somebody gave it a third one: what is wanted is known all the same.
        if hosts.is_empty() {
            std::mem::swap(&mut hosts, &mut others);
        }
        // Of one alone it is known who is meant.
        if hosts.len() + others.len() > 1 {
            left.append(&mut unknown);
        }
        left.extend(
            others.iter().map(|host| format!("`{role}`@`{host}` has another password, and keeps it")),
        );
        match (hosts.is_empty(), left.is_empty()) {
            (false, _) => Ok(Self { hosts, told: left }),
            (true, true) => Err(DatabaseError::plain(format!("the server has no user `{role}`"))),
            (true, false) => Err(DatabaseError::plain(format!(
                "{}: only {NATIVE} and caching_sha2_password are passwords that cutover changes",
                left.join("; ")
            ))),
        }
    }
}

/// Keeps a session's statements out of the server's logs, and from servers that follow it: their users are their own.
pub(super) fn unlogged(is_mariadb: bool) -> String {
    // MySQL writes no password into its logs by itself, and has no such setting for one session.
    let slow = if is_mariadb { "set session slow_query_log = 0;\n" } else { "" };
    format!("set session sql_mode = '';\nset session sql_log_off = 1;\nset session sql_log_bin = 0;\n{slow}")
}

/// How a server keeps a password as [`NATIVE`].
fn kept_as(password: &Secret) -> String {
    let twice = Sha1::digest(Sha1::digest(password.expose().as_bytes()));
    twice.iter().fold("*".to_owned(), |text, byte| format!("{text}{byte:02X}"))
}

/// Which of its users a server knows: one that resolves no names has not taken in hosts that are some.
pub(super) const TAKEN_IN: &str =
    "@@skip_name_resolve = 0 or host = 'localhost' or host regexp '^[0-9.%_/]+$|:'";

/// What is asked for the hosts that a user may come from, how he logs in there, and how his password is kept. The passwords themselves are not in it:
/// a server may write down what it is asked.
pub(super) fn users(role: &str) -> String {
    format!(
        "select host, plugin, authentication_string from mysql.user where user = {} \
         and ({TAKEN_IN});\n",
        literal(role)
    )
}

/// Gives it its password at each of these hosts.
pub(super) fn statements(account: &Account, hosts: &[String], is_mariadb: bool) -> String {
    let (role, password) = (literal(&account.role), literal(account.password.expose()));
    let users: Vec<_> =
        hosts.iter().map(|host| format!("{role}@{} identified by {password}", literal(host))).collect();
    format!("{}alter user {};\n", unlogged(is_mariadb), users.join(", "))
}

/// The same for a user who is not there, which asks for the same rights and changes nothing.
pub(super) fn trial(account: &Account, is_mariadb: bool) -> String {
    let password = literal(account.password.expose());
    format!(
        "{}alter user if exists 'cutover nobody'@'localhost' identified by {password};\n",
        unlogged(is_mariadb)
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
        let said = statements(&account, &["%".to_owned(), "localhost".to_owned()], true);
        assert_eq!(
            said.lines().last(),
            Some(
                r"alter user 'ann'@'%' identified by 'it''s \\', 'ann'@'localhost' identified by 'it''s \\';"
            )
        );
    }

    #[test]
    fn a_password_is_known_by_how_it_is_kept_and_no_question_says_it() {
        // By the server's own `password('secret')`.
        assert_eq!(kept_as(&Secret::new("secret")), "*14E65567ABDB5135D0CFD9A70B3032C179A49EE7");
        assert!(!users("ann").contains("sha1"));
    }

    #[test]
    fn who_has_the_password_gets_the_other_and_nobody_else() {
        let (from, to) = (Secret::new("from before"), Secret::new("the new one"));
        let of = |said: &str| {
            let said = said.replace("\t1", &format!("\t{}", kept_as(&from)));
            Users::of("ann", [&from, &to], &said).map_err(|error| error.message)
        };
        let users = |hosts: &[&str], told: &[&str]| {
            let all = |texts: &[&str]| texts.iter().copied().map(str::to_owned).collect();
            Ok(Users { hosts: all(hosts), told: all(told) })
        };
        let two = "%\tmysql_native_password\t1\nlocalhost\tmysql_native_password\t";
        assert_eq!(of(&format!("{two}1")), users(&["%", "localhost"], &[]));
        assert_eq!(
            of(&format!("{two}0")),
            users(&["%"], &["`ann`@`localhost` has another password, and keeps it"])
        );
        assert_eq!(
            of("%\tcaching_sha2_password\t0\nlocalhost\tunix_socket\t0"),
            users(&["%"], &["`ann`@`localhost` logs in by unix_socket, and goes on so"])
        );
        assert_eq!(of("%\tmysql_native_password\t0"), users(&["%"], &[]), "somebody gave it a third one");
        let unseen = |host| {
            format!(
                "`ann`@`{host}` gets the new password, whichever it has: caching_sha2_password keeps it with salt, so that two cannot be compared"
            )
        };
        let (everywhere, local) = (unseen("%"), unseen("localhost"));
        assert_eq!(
            of("%\tcaching_sha2_password\t0\nlocalhost\tcaching_sha2_password\t0"),
            users(&["%", "localhost"], &[&everywhere, &local])
        );
        assert_eq!(
            of("%\tmysql_native_password\t1\nlocalhost\tcaching_sha2_password\t0"),
            users(&["%", "localhost"], &[&local])
        );
        assert_eq!(of("").unwrap_err(), "the server has no user `ann`");
        insta::assert_snapshot!(of("%\ted25519\t0").unwrap_err(), @"`ann`@`%` logs in by ed25519, and goes on so: only mysql_native_password and caching_sha2_password are passwords that cutover changes");
    }

    #[test]
    fn a_refusal_is_told_from_a_server_that_is_full() {
        let account =
            Account { role: "ann".to_owned(), password: Secret::new("x"), host: "db".to_owned(), port: None };
        let of = |errors: &str| {
            let exit = cutover_core::state::ExitStatus {
                code: Some(1),
                signal: None,
                out_of_memory: false,
                error: None,
                at: None,
            };
            let said = Said { exit, output: Vec::new(), cut: false, errors: errors.to_owned() };
            match tried(&account, &said) {
                Tried::In => "in".to_owned(),
                Tried::Refused => "refused".to_owned(),
                Tried::Neither(error) => error.message,
            }
        };
        let denied = "ERROR 1045 (28000): Access denied for user 'ann'@'localhost' (using password: YES)";
        assert_eq!(of(denied), "refused");
        let away = "ERROR 2002 (HY000): Can't connect to server on 'db' (115)";
        assert_eq!(of(&format!("{away}\n{denied}")), "refused", "by the socket");
        let full = of(&format!("ERROR 1040 (08004): Too many connections\n{denied}"));
        assert!(full.contains("too many are open (error 1040: `max_connections`"), "{full}");
        assert!(of(away).contains("ERROR 2002"), "{}", of(away));
    }
}
