//! What the engines have in common of passwords: an account is tried until the answer is one, and a password is told to no session that the server
//! does not know yet (S9).

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::alone::answer;
use super::client::{Carried, Client, Said, badly, said};
use super::port::ANSWER;
use crate::ports::{Account, Attached, Certainty, DatabaseError};

/// So often an account is tried that is neither let in nor refused.
pub(super) const TRIES: u32 = 5;
/// Between two tries.
pub(super) const PAUSE: Duration = Duration::from_millis(300);

/// How a try to log in ended.
pub(in crate::database) enum Tried {
    In,
    Refused,
    /// That is no answer yet: the server has no room for one more, say.
    Neither(DatabaseError),
}

/// What a shell's words say that read a password and log in.
pub(super) async fn log_in(
    client: &Client<'_>,
    script: &str,
    account: &Account,
) -> Result<Said, DatabaseError> {
    let port = account.port.map(|port| port.to_string()).unwrap_or_default();
    let words = ["sh", "-c", script, "sh", &account.role, &account.host, &port].map(str::to_owned);
    let said = client.run(None, &words, &format!("{}\n", account.password.expose()), ANSWER).await?;
    if said.exit.code == Some(127) {
        return Err(badly(&words, &said.exit, &said.errors));
    }
    Ok(said)
}

/// There is no room for one more session; `limit` is what keeps it out.
pub(super) fn full(account: &Account, limit: &str) -> DatabaseError {
    DatabaseError::plain(format!(
        "the server has no connection left for `{}`, so that it cannot be told which password is let in: too many are open ({limit})",
        account.role
    ))
}

/// Tells a session statements, once it has answered others with `1`: then it is known to the server, and whoever ends it there leaves no client
/// program behind that could still begin with them.
pub(super) async fn tell(
    client: &Client<'_>,
    database: Option<&str>,
    words: &[String],
    first: &str,
    statements: &str,
) -> Result<(), DatabaseError> {
    let telling = async {
        let mut session = client.start(database, words, Carried::Plain).await?;
        if answer(&mut session, first).await? != "1" {
            return Err(DatabaseError::plain("another session is changing a password"));
        }
        let Attached { output, mut input, exit, .. } = session;
        let feeding = async move {
            if input.write_all(statements.as_bytes()).await.is_ok() {
                input.shutdown().await.unwrap_or_default();
            }
        };
        let ((), said) = tokio::join!(feeding, said(output, exit));
        let said = said?;
        if said.exit.code == Some(0) { Ok(()) } else { Err(badly(words, &said.exit, &said.errors)) }
    };
    let late = |_| DatabaseError {
        certainty: Certainty::Unknown,
        ..DatabaseError::plain(format!("the server did not change it within {} s", ANSWER.as_secs()))
    };
    tokio::time::timeout(ANSWER, telling).await.map_err(late)?
}
