//! Sessions in `MariaDB` and `MySQL` whose client is gone. A client cannot be told by a name there, as in `PostgreSQL`: the server knows its address. But a
//! server that still carries out a statement for nobody has not noticed yet that the connection was closed, and its kernel has: that socket waits to be closed.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::mariadb::Maria;
use super::mariadb_password::PASSWORD_LOCK;
use super::mariadb_restore::literal;
use super::port::{AGAIN, ANSWER, LET_GO};
use crate::ports::{DatabaseError, Way};

/// As the kernel's table has it: the other side has closed the connection.
const CLOSED_THERE: &str = "08";

/// Statements that may change something.
const WRITING: &str = "select id, concat(user, ' at ', host), time, left(replace(replace(info, '\\n', ' '), '\\t', ' '), 60) from information_schema.processlist
    where db = database() and id <> connection_id() and command in ('Query', 'Execute')
    and (trim(info) not regexp '^(select|show|explain|with|analyze|optimize)' or trim(info) regexp '^with' and info regexp 'update|delete');";

impl Maria<'_> {
    /// Ends the sessions whose client is gone, and sees them gone; how many there were.
    pub(super) async fn end_those_of_nobody(&self) -> Result<u64, DatabaseError> {
        if let Way::Outside { .. } = self.client.server.way {
            return self.nobody_writes().await.map(|()| 0);
        }
        let mut ended = BTreeSet::new();
        let end = Instant::now() + LET_GO;
        loop {
            let left = self.of_nobody().await?;
            if left == OfNobody::default() {
                return Ok(ended.len() as u64);
            }
            if Instant::now() >= end {
                return Err(DatabaseError::plain(if left.hidden {
                    "a session of a migration that was stopped goes on in the server; which one is not to be seen, for the server tells its clients by names that are too long: with `skip-name-resolve`, as the usual images have it, it is"
                } else {
                    "a session of a migration that was stopped goes on in the server, and does not end"
                }));
            }
            for session in left.sessions.difference(&ended) {
                // It may have ended by itself: then there is none of that number.
                if let Err(error) = self.ask_server(&format!("kill {session};")).await {
                    tracing::warn!(%error, "a session without a client was not ended");
                }
            }
            ended.extend(left.sessions);
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The numbers of sessions whose client is gone, and of the one that changes a password, which comes by the server's socket: nobody who asks is
    /// changing one himself.
    async fn of_nobody(&self) -> Result<OfNobody, DatabaseError> {
        let words = ["sh", "-c", "cat /proc/net/tcp /proc/net/tcp6 2>/dev/null || true"].map(str::to_owned);
        let sockets = self.output(None, &words, "", ANSWER).await?;
        let lock = literal(PASSWORD_LOCK);
        let asked = format!(
            "select 0, @@port; select id, host from information_schema.processlist where id <> connection_id(); select is_used_lock({lock}), {lock};"
        );
        Ok(without_client(&sockets, &self.ask_server(&asked).await?))
    }

    /// From here nobody sees the server's sockets. What writes there all the while may be a migration that was stopped, or not: no guess is made.
    async fn nobody_writes(&self) -> Result<(), DatabaseError> {
        let end = Instant::now() + LET_GO;
        let mut all_the_while: Option<BTreeSet<String>> = None;
        loop {
            let told = self.ask(None, WRITING).await?;
            let session = |row: &&str| row.split('\t').next().unwrap_or_default().to_owned();
            let was = |row: &&str| all_the_while.as_ref().is_none_or(|before| before.contains(&session(row)));
            let still: Vec<&str> = told.lines().filter(was).collect();
            let Some(first) = still.first() else { return Ok(()) };
            if Instant::now() >= end {
                return Err(still_writes(first));
            }
            all_the_while = Some(still.iter().map(session).collect());
            tokio::time::sleep(AGAIN).await;
        }
    }
}

fn still_writes(row: &str) -> DatabaseError {
    let mut words = row.split('\t');
    let mut word = || words.next().unwrap_or_default();
    let (session, of, seconds, statement) = (word(), word(), word(), word());
    DatabaseError::plain(format!(
        "session {session} of {of} has been changing the database for {seconds} s (`{statement}`), which may be a migration that was stopped: wait for its end, or end it there with `KILL {session}`"
    ))
}

/// Sessions whose client is gone.
#[derive(Debug, Default, PartialEq, Eq)]
struct OfNobody {
    /// Their numbers.
    sessions: BTreeSet<u64>,
    /// There is one more, whose number is not to be seen.
    hidden: bool,
}

/// So many letters the server tells of a client's address. Behind a long name its port is cut off.
const TOLD_ADDRESS: usize = 64;

/// Sessions, by number and the client's address, whose sockets the other side has closed. An address may be told by name; its port is a number always.
fn without_client(sockets: &str, told: &str) -> OfNobody {
    let mut rows = told.lines().filter_map(|line| line.split_once('\t'));
    let Some(own) = rows.next().and_then(|(_, port)| port.trim().parse::<u16>().ok()) else {
        return OfNobody::default();
    };
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    let (mut gone, mut there) = (BTreeSet::new(), BTreeSet::new());
    for line in sockets.lines() {
        let words: Vec<&str> = line.split_whitespace().take(4).collect();
        let [_, at, from, state] = words[..] else { continue };
        if let (Some(at), Some(from)) = (port(at), port(from))
            && at == own
        {
            if state == CLOSED_THERE {
                gone.insert(from)
            } else {
                there.insert(from)
            };
        }
    }
    gone.retain(|port| !there.contains(port));
    let (mut found, mut has_cut) = (OfNobody::default(), false);
    for (session, host) in rows {
        if host == PASSWORD_LOCK {
            // `NULL` where nobody has it.
            found.sessions.extend(session.parse::<u64>());
            continue;
        }
        if host.chars().count() + 1 >= TOLD_ADDRESS {
            has_cut = true;
            continue;
        }
        let port = host.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_some_and(|port| gone.remove(&port)) {
            found.sessions.extend(session.parse::<u64>());
        }
    }
    found.hidden = has_cut && !gone.is_empty();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_whose_socket_the_other_side_closed_has_no_client() {
        let sockets = "  sl  local_address rem_address   st\n\
            \x20  0: 00000000:0CEA 00000000:0000 0A 00000000:00000000\n\
            \x20  1: 02FD1FAC:0CEA 03FD1FAC:D51C 08 00000000:00000001\n\
            \x20  2: 02FD1FAC:0CEA 04FD1FAC:CA54 01 00000000:00000000\n\
            \x20  3: 02FD1FAC:1F90 04FD1FAC:CA55 08 00000000:00000000\n";
        let told =
            "0\t3306\n21\tweb.shop:54556\n22\t172.31.253.4:51796\n23\tlocalhost\n24\t172.31.253.4:51797\n";
        let seen = |sockets: &str| without_client(sockets, told).sessions.into_iter().collect::<Vec<_>>();
        assert_eq!(seen(sockets), [21]);
        assert_eq!(seen(&sockets.replace(" 01 ", " 08 ")), [21, 22]);
        assert_eq!(without_client(sockets, ""), OfNobody::default());
        assert_eq!(without_client(sockets, "0\t3306\n25\t172.31.253.4:51796\n"), OfNobody::default());
        let changing = without_client("", "0\t3306\n30\tlocalhost\nNULL\tcutover password\n");
        assert_eq!(changing, OfNobody::default());
        let changing = without_client("", "0\t3306\n30\tlocalhost\n30\tcutover password\n");
        assert_eq!(changing.sessions.into_iter().collect::<Vec<_>>(), [30]);
        let cut = format!("0\t3306\n21\t{}\n", "x".repeat(63));
        assert_eq!(without_client(sockets, &cut), OfNobody { sessions: BTreeSet::new(), hidden: true });
    }
}
