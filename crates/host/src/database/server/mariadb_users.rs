//! The users of a server of `MariaDB` or `MySQL`, made once more in a scratch server: with what they may, and with their passwords as the server keeps
//! them, so that whoever knows one gets in. That goes from one to the other on no command line, into no log, and into no error (P6).

use std::collections::BTreeMap;

use super::mariadb::Maria;
use super::mariadb_catalogue::unescaped;
use super::mariadb_password::{TAKEN_IN, unlogged};
use super::mariadb_restore::quoted;
use super::port::ANSWER;
use crate::ports::DatabaseError;

/// Each server has its own.
const OF_THE_SERVER: &str = "'mariadb.sys', 'mysql.sys', 'mysql.session', 'mysql.infoschema'";
/// So that definitions and grants are told in one way, whatever the server's settings.
const TELLING: &str = "set session sql_mode = '';
set session sql_quote_show_create = 1;
/*!80017 set session print_identified_with_as_hex = 1 */;
";
/// Databases that each server has, with tables that something may be granted on.
const OF_EACH_SERVER: [&str; 3] = ["mysql", "sys", "performance_schema"];
/// From where a client comes to a server in whose network it is.
const LOOPBACK: &str = "127.0.0.1";

/// A user or a role, with the statements that make one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Grantee {
    user: String,
    host: String,
    is_role: bool,
    /// `CREATE USER …`.
    made: String,
    granted: Vec<String>,
}

impl Grantee {
    fn who(&self) -> String {
        match (self.is_role, self.user.as_str()) {
            (true, "PUBLIC") => "public".to_owned(),
            (true, name) => quoted(name),
            (false, name) => format!("{}@{}", quoted(name), quoted(&self.host)),
        }
    }

    fn is_from_a_network(&self) -> bool {
        !self.is_role && !["localhost", LOOPBACK, "::1"].contains(&self.host.as_str())
    }

    /// The same for whoever comes from the server's own network.
    fn twin(&self) -> Self {
        let twin = Self { host: LOOPBACK.to_owned(), ..self.clone() };
        // Some statements have names in the one quotes, some in the other.
        let plain = |grantee: &Self| format!("'{}'@'{}'", grantee.user, grantee.host);
        let moved =
            |text: &String| text.replace(&self.who(), &twin.who()).replace(&plain(self), &plain(&twin));
        Self { made: moved(&self.made), granted: self.granted.iter().map(moved).collect(), ..twin }
    }
}

/// A statement, and whom it is about.
pub(super) type Statement = (String, String);

impl Maria<'_> {
    /// All users and roles of the server but its own.
    pub(super) async fn grantees(&self) -> Result<Vec<Grantee>, DatabaseError> {
        let is_role = if self.is_mariadb() { "is_role" } else { "'N'" };
        let asked = format!(
            "select user, host, {is_role} from mysql.user where user not in ({OF_THE_SERVER}) and (host = '' or {TAKEN_IN}) order by user, host;"
        );
        let listed = self.ask_server(&asked).await.map_err(|error| {
            DatabaseError::plain(format!(
                "the users of the live server cannot be read ({}): its `root` may, whose password is said by `MARIADB_ROOT_PASSWORD` (MySQL: `MYSQL_ROOT_PASSWORD`) of the backing service",
                error.message
            ))
        })?;
        let mut found = listed_in(&listed);
        let asked: String = found.iter().enumerate().map(|(number, one)| question(number, one)).collect();
        read(&mut found, &self.ask_server(&format!("{TELLING}{asked}")).await?);
        Ok(found)
    }

    /// Tells the server statements that hold passwords as servers keep them.
    pub(super) async fn tell_of_users(&self, statements: &[Statement]) -> Result<(), DatabaseError> {
        let words = [self.talker(), "--batch", "--connect-timeout=10", "--default-character-set=utf8mb4"];
        let first = unlogged(self.is_mariadb());
        let input = statements.iter().fold(first.clone(), |text, (_, statement)| text + statement + ";\n");
        let words = words.map(str::to_owned);
        let said = self.client.run(Some("information_schema"), &words, &input, ANSWER).await?;
        if said.exit.code == Some(0) {
            return Ok(());
        }
        Err(DatabaseError::plain(format!(
            "the users of the live server could not be made in the scratch server{}",
            refused(&said.errors, first.lines().count(), statements)
        )))
    }
}

/// Users and roles, by the answer to who there is.
fn listed_in(told: &str) -> Vec<Grantee> {
    let row = |line: &str| {
        let mut words = line.split('\t').map(unescaped);
        let (user, host) = (words.next()?, words.next()?);
        Some(Grantee { user, host, is_role: words.next()? == "Y", ..Grantee::default() })
    };
    told.lines().filter_map(row).collect()
}

/// What asks for the statements that make one, after a line that says which it is.
fn question(number: usize, one: &Grantee) -> String {
    let who = one.who();
    let made = if one.is_role { String::new() } else { format!("show create user {who};\n") };
    format!("select 'grantee', {number};\n{made}show grants for {who};\n")
}

/// Takes the answers to these questions.
fn read(found: &mut [Grantee], told: &str) {
    let mut of = None;
    for line in told.lines() {
        if let Some(number) = line.strip_prefix("grantee\t") {
            of = number.parse::<usize>().ok();
            continue;
        }
        let Some(one) = of.and_then(|number| found.get_mut(number)) else { continue };
        let statement = unescaped(line);
        if statement.starts_with("CREATE USER ") {
            one.made = statement;
        } else {
            one.granted.push(statement);
        }
    }
}

/// Those, and who is let in from a network once more for whoever comes from within the server's own: there the migration comes from. Of several of a name
/// it is who may come from everywhere, as the usual images make one.
pub(super) fn with_loopback(mut all: Vec<Grantee>) -> Vec<Grantee> {
    let mut twins: BTreeMap<String, (usize, Grantee)> = BTreeMap::new();
    for one in all.iter().filter(|one| one.is_from_a_network()) {
        let rank = match one.host.as_str() {
            "%" | "" => 0,
            host if host.contains('%') => 1,
            _ => 2,
        };
        let is_better = twins.get(&one.user).is_none_or(|(other, _)| rank < *other);
        if is_better {
            twins.insert(one.user.clone(), (rank, one.twin()));
        }
    }
    all.retain(|one| one.is_role || one.host != LOOPBACK || !twins.contains_key(&one.user));
    all.extend(twins.into_values().map(|(_, twin)| twin));
    all
}

/// The statements that make all of them in a server in which we are `own`, who is not taken away; what is granted on one table or routine comes later.
pub(super) fn made(all: &[Grantee], own: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut defaults = Vec::new();
    for one in all {
        let who = one.who();
        if one.is_role {
            if who != "public" {
                statements.push((who.clone(), format!("create role if not exists {who}")));
            }
            continue;
        }
        let (made, roles) = without_default_role(&one.made);
        let how = made.strip_prefix("CREATE USER ").unwrap_or(&made);
        let all = if format!("{}@{}", one.user, one.host) == own {
            [format!("create user if not exists {how}"), format!("alter user {how}")]
        } else {
            [format!("drop user if exists {who}"), format!("create user {how}")]
        };
        statements.extend(all.map(|statement| (who.clone(), statement)));
        defaults.extend(roles.map(|roles| (who.clone(), format!("set default role {roles} to {who}"))));
    }
    let granted = all.iter().flat_map(|one| one.granted.iter().map(|grant| (one.who(), grant.clone())));
    statements.extend(granted.filter(|(_, grant)| database_of_object(grant).is_none()));
    statements.extend(defaults);
    statements
}

/// What is granted on one table or routine that this server has, once its database is there.
pub(super) fn granted_on_objects(all: &[Grantee], database: &str) -> Vec<Statement> {
    let granted = all.iter().flat_map(|one| one.granted.iter().map(|grant| (one.who(), grant.clone())));
    let is_here = |grant: &str| {
        database_of_object(grant).is_some_and(|of| of == database || OF_EACH_SERVER.contains(&of.as_str()))
    };
    granted.filter(|(_, grant)| is_here(grant)).collect()
}

/// `MySQL` names roles where it makes a user, who has none yet.
fn without_default_role(made: &str) -> (String, Option<String>) {
    let (mark, end) = (" DEFAULT ROLE ", " REQUIRE ");
    let Some(at) = outside_of_quotes(made, mark) else { return (made.to_owned(), None) };
    let (before, after) = (&made[..at], &made[at + mark.len()..]);
    let to = outside_of_quotes(after, end).unwrap_or(after.len());
    (format!("{before}{}", &after[to..]), Some(after[..to].to_owned()))
}

/// Where something is granted on one table or routine, its database.
fn database_of_object(grant: &str) -> Option<String> {
    let on = " ON ";
    let rest = &grant[outside_of_quotes(grant, on)? + on.len()..];
    let rest = &rest[rest.find('`')?..];
    let end = outside_of_quotes(rest, ".`")?;
    let is_name = |text: &str| text.len() > 1 && text.starts_with('`') && text.ends_with('`');
    let database = Some(&rest[..end]).filter(|text| is_name(text))?;
    Some(database[1..database.len() - 1].replace("``", "`"))
}

/// Where this begins for the first time, not within quotes.
fn outside_of_quotes(text: &str, what: &str) -> Option<usize> {
    let mut within: Option<char> = None;
    for (at, letter) in text.char_indices() {
        match within {
            None if text[at..].starts_with(what) => return Some(at),
            None if ['`', '\'', '"'].contains(&letter) => within = Some(letter),
            // Two of them are one in the text: what is between is empty.
            Some(quote) if quote == letter => within = None,
            _ => {}
        }
    }
    None
}

/// Whose statement was refused and by which number, in no word of the program's own: that may repeat the statement.
fn refused(errors: &str, before: usize, statements: &[Statement]) -> String {
    let error = errors.lines().find_map(|line| line.strip_prefix("ERROR "));
    let Some(number) = error.and_then(|error| error.split([' ', ':']).next()?.parse::<u32>().ok()) else {
        return String::new();
    };
    let line =
        error.and_then(|error| error.split_once(" at line ")?.1.split(':').next()?.parse::<usize>().ok());
    let mut last = before;
    let whose = statements.iter().find(|(_, statement)| {
        last += statement.lines().count();
        line.is_some_and(|line| line > before && line <= last)
    });
    let whose = whose.map(|(who, _)| format!(" of {who}")).unwrap_or_default();
    format!(": it refuses a statement{whose} with error {number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `MariaDB` 10.11 tells them.
    const TOLD: &str = "grantee\t0\nCREATE USER `ann`@`%` IDENTIFIED BY PASSWORD '*B69027'\nGRANT `clerk` TO `ann`@`%`\n\
        GRANT USAGE ON *.* TO `ann`@`%` IDENTIFIED BY PASSWORD '*B69027'\nGRANT ALL PRIVILEGES ON `shop`.* TO `ann`@`%`\n\
        GRANT SELECT (`a ON `), INSERT ON `shop`.`entries` TO `ann`@`%`\nGRANT SELECT ON `blog`.`posts` TO `ann`@`%`\n\
        GRANT EXECUTE ON PROCEDURE `shop`.`p` TO `ann`@`%` WITH GRANT OPTION\nSET DEFAULT ROLE `clerk` FOR `ann`@`%`\n\
        grantee\t1\nGRANT USAGE ON *.* TO `clerk`\n\
        grantee\t2\nCREATE USER `root`@`localhost` IDENTIFIED BY PASSWORD '*14E655'\nGRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION\n\
        GRANT PROXY ON ''@'%' TO 'root'@'localhost' WITH GRANT OPTION\n";

    fn found() -> Vec<Grantee> {
        let mut found = listed_in("ann\t%\tN\nclerk\t\tY\nroot\tlocalhost\tN\n");
        read(&mut found, TOLD);
        found
    }

    fn statements(told: Vec<Statement>) -> String {
        told.into_iter().map(|(_, statement)| statement + "\n").collect()
    }

    #[test]
    fn users_are_made_as_they_are_and_whoever_makes_them_stays() {
        insta::assert_snapshot!(statements(made(&found(), "root@localhost")), @"
        drop user if exists `ann`@`%`
        create user `ann`@`%` IDENTIFIED BY PASSWORD '*B69027'
        create role if not exists `clerk`
        create user if not exists `root`@`localhost` IDENTIFIED BY PASSWORD '*14E655'
        alter user `root`@`localhost` IDENTIFIED BY PASSWORD '*14E655'
        GRANT `clerk` TO `ann`@`%`
        GRANT USAGE ON *.* TO `ann`@`%` IDENTIFIED BY PASSWORD '*B69027'
        GRANT ALL PRIVILEGES ON `shop`.* TO `ann`@`%`
        SET DEFAULT ROLE `clerk` FOR `ann`@`%`
        GRANT USAGE ON *.* TO `clerk`
        GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION
        GRANT PROXY ON ''@'%' TO 'root'@'localhost' WITH GRANT OPTION
        ");
        insta::assert_snapshot!(statements(granted_on_objects(&found(), "shop")), @"
        GRANT SELECT (`a ON `), INSERT ON `shop`.`entries` TO `ann`@`%`
        GRANT EXECUTE ON PROCEDURE `shop`.`p` TO `ann`@`%` WITH GRANT OPTION
        ");
    }

    #[test]
    fn who_comes_from_a_network_comes_from_the_servers_own_there() {
        let user = |host: &str, made: &str| Grantee {
            user: "ann".to_owned(),
            host: host.to_owned(),
            made: format!("CREATE USER `ann`@`{host}` {made}"),
            granted: vec![
                format!("GRANT PROXY ON ''@'%' TO 'ann'@'{host}'"),
                format!("GRANT USAGE ON *.* TO `ann`@`{host}`"),
            ],
            ..Grantee::default()
        };
        let all = with_loopback(vec![
            user("10.%", "a"),
            user("%", "b"),
            user(LOOPBACK, "c"),
            user("localhost", "d"),
        ]);

        let hosts: Vec<&str> = all.iter().map(|one| one.host.as_str()).collect();
        assert_eq!(hosts, ["10.%", "%", "localhost", LOOPBACK]);
        assert_eq!(all.last(), Some(&user(LOOPBACK, "b")));
        let local = with_loopback(vec![user("localhost", "d")]);
        assert_eq!(local, [user("localhost", "d")], "who comes from nowhere else");
    }

    #[test]
    fn roles_that_mysql_names_where_it_makes_a_user_come_after_they_are_granted() {
        let made = "CREATE USER `a`@`%` IDENTIFIED WITH 'caching_sha2_password' AS 0x2441 DEFAULT ROLE `r`@`%`,`s`@`%` REQUIRE NONE ACCOUNT UNLOCK";
        assert_eq!(
            without_default_role(made),
            (
                "CREATE USER `a`@`%` IDENTIFIED WITH 'caching_sha2_password' AS 0x2441 REQUIRE NONE ACCOUNT UNLOCK".to_owned(),
                Some("`r`@`%`,`s`@`%`".to_owned())
            )
        );
    }

    #[test]
    fn a_statement_that_is_refused_is_told_by_whose_it_is_and_by_its_number_alone() {
        let all = [("`ann`@`%`", "create user x"), ("`bob`@`%`", "create user y")];
        let all = all.map(|(who, statement)| (who.to_owned(), statement.to_owned()));
        let said = "ERROR 1524 (HY000) at line 5: Plugin '*B69027' is not loaded";
        assert_eq!(refused(said, 3, &all), ": it refuses a statement of `bob`@`%` with error 1524");
        assert_eq!(
            refused("ERROR 1045 (28000): Access denied", 3, &all),
            ": it refuses a statement with error 1045"
        );
        assert_eq!(refused("*B69027", 3, &all), "");
    }
}
