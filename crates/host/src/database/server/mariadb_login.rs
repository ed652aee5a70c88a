//! By what client programs of `MariaDB` and `MySQL` are told where and who. The password is a variable of the program alone (`MYSQL_PWD`); who it is and
//! which server are its options.

use cutover_core::config::settings::ServerKind;

use super::client::Login;
use super::url::{Dialect, Part, Url};

/// In the place of the database's name among a program's words.
pub(super) const DATABASE: &str = "@database";

/// Who it is, as the usual images are told: `root` where its password is known, for a dump has definitions of all users, and a scratch database has to
/// be made. Either engine's program does for the other where only that is there.
const IDENTITY: &str = r#"set -f
database=$1
shift
secret() { if [ -n "$1" ]; then printf %s "$1"; elif [ -n "$2" ]; then cat "$2"; fi; }
if [ -z "${CUTOVER_HOST:-}" ]; then
    unset MYSQL_HOST MYSQL_TCP_PORT
    user=root
    MYSQL_PWD=$(secret "${MARIADB_ROOT_PASSWORD:-${MYSQL_ROOT_PASSWORD:-}}" "${MARIADB_ROOT_PASSWORD_FILE:-${MYSQL_ROOT_PASSWORD_FILE:-}}")
    own=${MARIADB_USER:-${MYSQL_USER:-}}
    if [ -z "$MYSQL_PWD" ] && [ -n "$own" ] && [ -z "${MARIADB_ALLOW_EMPTY_ROOT_PASSWORD:-}${MYSQL_ALLOW_EMPTY_PASSWORD:-}" ]; then
        user=$own
        MYSQL_PWD=$(secret "${MARIADB_PASSWORD:-${MYSQL_PASSWORD:-}}" "${MARIADB_PASSWORD_FILE:-${MYSQL_PASSWORD_FILE:-}}")
    fi
    MYSQL_PWD=${CUTOVER_OWN:-$MYSQL_PWD}
    database=${database:-${MARIADB_DATABASE:-${MYSQL_DATABASE:-}}}
else
    user=${CUTOVER_USER:-}
    MYSQL_PWD=${CUTOVER_PASSWORD:-}
    database=${database:-$CUTOVER_DATABASE}
fi
if [ -n "$MYSQL_PWD" ]; then export MYSQL_PWD; else unset MYSQL_PWD; fi
case $1 in
mariadb | mysql | mariadb-dump | mysqldump)
    program=$1
    shift
    command -v "$program" >/dev/null || case $program in
        mariadb) program=mysql ;;
        mysql) program=mariadb ;;
        mariadb-dump) program=mysqldump ;;
        mysqldump) program=mariadb-dump ;;
    esac
    for word; do
        shift
        if [ "$word" = @database ]; then word=$database; fi
        set -- "$@" "$word"
    done
    case ${CUTOVER_TLS:-} in
        '') ;;
        [Dd]*) set -- --loose-ssl-mode=DISABLED --loose-skip-ssl "$@" ;;
        [Vv]*) set -- --loose-ssl-mode="$CUTOVER_TLS" --loose-ssl --loose-ssl-verify-server-cert "$@" ;;
        [Rr]* | true) set -- --loose-ssl-mode=REQUIRED --loose-ssl "$@" ;;
    esac
    [ -z "${CUTOVER_TLS_CA:-}" ] || set -- --ssl-ca="$CUTOVER_TLS_CA" "$@"
    [ -z "${CUTOVER_TLS_CERT:-}" ] || set -- --ssl-cert="$CUTOVER_TLS_CERT" "$@"
    [ -z "${CUTOVER_TLS_KEY:-}" ] || set -- --ssl-key="$CUTOVER_TLS_KEY" "$@"
    [ -z "${CUTOVER_PORT:-}" ] || set -- --port="$CUTOVER_PORT" "$@"
    [ -z "$user" ] || set -- --user="$user" "$@"
    case ${CUTOVER_HOST:-} in
        '') ;;
        /*) set -- --no-defaults --socket="$CUTOVER_HOST" "$@" ;;
        *) set -- --no-defaults --host="$CUTOVER_HOST" --protocol=tcp "$@" ;;
    esac
    set -- "$program" "$@"
    ;;
esac
unset CUTOVER_PASSWORD
"#;

pub(super) const LOGIN: Login = Login { identity: IDENTITY, dialect: &DIALECT, variables };

const DIALECT: Dialect = Dialect {
    schemes: ServerKind::Mysql.schemes(),
    expected: "mysql://user:password@host:3306/name",
    parts: &[
        ("host", Part::Host),
        ("user", Part::User),
        ("password", Part::Password),
        ("port", Part::Port),
        ("socket", Part::Host),
        ("unix_socket", Part::Host),
        ("ssl-mode", Part::Variable("CUTOVER_TLS")),
        ("ssl_mode", Part::Variable("CUTOVER_TLS")),
        ("sslmode", Part::Variable("CUTOVER_TLS")),
        ("sslMode", Part::Variable("CUTOVER_TLS")),
        ("ssl-ca", Part::Variable("CUTOVER_TLS_CA")),
        ("ssl_ca", Part::Variable("CUTOVER_TLS_CA")),
        ("ssl-cert", Part::Variable("CUTOVER_TLS_CERT")),
        ("ssl_cert", Part::Variable("CUTOVER_TLS_CERT")),
        ("ssl-key", Part::Variable("CUTOVER_TLS_KEY")),
        ("ssl_key", Part::Variable("CUTOVER_TLS_KEY")),
    ],
};

fn variables(url: &Url) -> Vec<(&'static str, String)> {
    let own = [
        ("CUTOVER_HOST", Some(url.host.clone())),
        ("CUTOVER_PORT", url.port.map(|port| port.to_string())),
        ("CUTOVER_USER", Some(url.user.clone()).filter(|user| !user.is_empty())),
        ("CUTOVER_PASSWORD", Some(url.password.clone()).filter(|password| !password.is_empty())),
        ("CUTOVER_DATABASE", Some(url.database.clone())),
    ];
    own.into_iter().filter_map(|(name, value)| Some((name, value?))).chain(url.more.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What a program is started with, and the password that it reads.
    fn started(variables: &[(&str, &str)], words: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let script = format!("PATH={}:$PATH\n{IDENTITY}exec \"$@\"", folder.path().display());
        for name in ["mysql", "mysqldump"] {
            let path = folder.path().join(name);
            std::fs::write(&path, "#!/bin/sh\necho \"${0##*/} $* (${MYSQL_PWD-none})\"\n").unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, mode).unwrap();
        }
        let ran = Command::new("/bin/sh")
            .args(["-c", &script, "sh"])
            .args(words)
            .env_clear()
            .env("PATH", "/bin")
            .envs(variables.iter().copied())
            .output();
        String::from_utf8(ran.unwrap().stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn the_usual_images_say_who_it_is() {
        let root = [("MYSQL_ROOT_PASSWORD", "r"), ("MYSQL_USER", "ann"), ("MYSQL_DATABASE", "shop")];
        assert_eq!(
            started(&root, &["", "mysqldump", "--quick", DATABASE]),
            "mysqldump --user=root --quick shop (r)"
        );
        let own = [("MARIADB_USER", "ann"), ("MARIADB_PASSWORD", "a"), ("MARIADB_DATABASE", "shop")];
        assert_eq!(started(&own, &["other", "mysql", DATABASE]), "mysql --user=ann other (a)");
        assert_eq!(started(&[], &["x", "mysql", DATABASE]), "mysql --user=root x (none)");
    }

    #[test]
    fn a_url_says_it_too_and_its_password_is_no_word() {
        let url = Url::parse(
            "mysql+pymysql://ann:p%40ss@[::1]:3307/shop?ssl-mode=REQUIRED&charset=utf8mb4",
            &DIALECT,
        );
        let url = url.ok().unwrap();
        let variables = variables(&url);
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();

        assert_eq!(
            started(&variables, &["", "mysql", "--batch", DATABASE]),
            "mysql --no-defaults --host=::1 --protocol=tcp --user=ann --port=3307 --loose-ssl-mode=REQUIRED --loose-ssl \
             --batch shop (p@ss)"
        );
        let told = |text: &str| Url::parse(text, &DIALECT).err().unwrap().message;
        assert!(told("postgres://a:secret@h/x").contains("mysql://user:password@host:3306/name is expected"));
    }
}
