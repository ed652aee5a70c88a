//! The locks of a database's sessions in `MariaDB` or `MySQL`, looked at many times a second by one session of the client program, which ends with its
//! input. `MariaDB` tells them by a plugin, which has to be there; `MySQL` by its performance schema. Which table a session of `MariaDB` waits for it does not tell.

use std::time::Duration;

use cutover_core::rehearsal::{LockSample, SeenLock};
use futures_util::{StreamExt, stream};
use tokio::io::AsyncWriteExt as _;

use super::client::Carried;
use super::mariadb::{AT_ONCE, LETTERS, Maria};
use super::mariadb_catalogue::unescaped;
use super::mariadb_login::DATABASE;
use crate::ports::{Attached, DatabaseError, LockSamples};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// What comes last of a look, before the server's clock in milliseconds.
const END: &str = "at\t";

/// A row for each lock of a table: who, which, how, and whether it is had. Names with `#` are the server's own for what it makes beside a table.
const OF_MARIADB: &str = "select thread_id, table_name, lock_mode, 1 from information_schema.metadata_lock_info
    where lock_type = 'Table metadata lock' and table_schema = database() and thread_id <> connection_id() and table_name not like '#%';
select id, 'a table that the server does not name', '', 0 from information_schema.processlist
    where db = database() and id <> connection_id() and state = 'Waiting for table metadata lock';
";
const OF_MYSQL: &str = "select t.processlist_id, m.object_name, m.lock_type, m.lock_status = 'GRANTED' from performance_schema.metadata_locks m
    join performance_schema.threads t on t.thread_id = m.owner_thread_id
    where m.object_type = 'TABLE' and m.object_schema = database() and t.processlist_id <> connection_id() and m.object_name not like '#%';
";
const CLOCK: &str = "select 'at', cast(unix_timestamp(sysdate(3)) * 1000 as unsigned);\n";

impl Maria<'_> {
    /// What sees locks is put into a scratch server, where that is needed.
    pub(super) async fn see_locks(&self) -> Result<(), DatabaseError> {
        if !self.is_mariadb() {
            return Ok(());
        }
        self.ask_server("install soname 'metadata_lock_info';").await.map(drop)
    }

    /// Begins to look.
    ///
    /// # Errors
    /// The client program cannot be started.
    pub(super) async fn lock_samples(&self) -> Result<LockSamples, DatabaseError> {
        let words = self.talks(&[AT_ONCE, LETTERS, DATABASE]);
        let session = self.client.start(None, &words, Carried::Plain).await?;
        let question = [if self.is_mariadb() { OF_MARIADB } else { OF_MYSQL }, CLOCK].concat();
        let looks = Looks { session, question, has_begun: false };
        Ok(Box::pin(stream::unfold(looks, Looks::next)))
    }
}

/// A session that looks.
struct Looks {
    session: Attached,
    question: String,
    has_begun: bool,
}

impl Looks {
    /// The next look, from as many pieces of output as it takes; none, once the program has ended.
    async fn next(mut self) -> Option<(LockSample, Self)> {
        if std::mem::replace(&mut self.has_begun, true) {
            tokio::time::sleep(PAUSE).await;
        }
        self.session.input.write_all(self.question.as_bytes()).await.ok()?;
        self.session.input.flush().await.ok()?;
        let mut said = Vec::new();
        loop {
            if let Some(sample) = sample(&said) {
                return Some((sample, self));
            }
            let piece = self.session.output.next().await?;
            if !piece.error {
                said.extend_from_slice(&piece.bytes);
            }
        }
    }
}

/// A look, once its last line is whole.
fn sample(said: &[u8]) -> Option<LockSample> {
    let text = String::from_utf8_lossy(said);
    let last = text.strip_suffix('\n')?.rsplit('\n').next()?;
    let at_ms = last.strip_prefix(END)?.parse().ok()?;
    let lock = |line: &str| {
        let mut words = line.split('\t');
        Some(SeenLock {
            holder: words.next()?.to_owned(),
            table: unescaped(words.next()?),
            // `MariaDB` says of each that it is one of these.
            mode: words.next().map(|mode| mode.strip_prefix("MDL_").unwrap_or(mode).to_owned())?,
            granted: words.next()? == "1",
        })
    };
    Some(LockSample { at_ms, locks: text.lines().filter_map(lock).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_output_in_pieces_then_a_look_is_over_with_the_servers_clock() {
        let all = b"7\tentries\tMDL_SHARED_READ\t1\n8\tan\\tother\tEXCLUSIVE\t0\nat\t1795774751685\n";
        for end in 0..all.len() {
            assert_eq!(sample(&all[..end]), None, "{end}");
        }

        let whole = sample(all).unwrap();

        let lock = |holder: &str, table: &str, mode: &str, granted| SeenLock {
            holder: holder.to_owned(),
            table: table.to_owned(),
            mode: mode.to_owned(),
            granted,
        };
        assert_eq!(whole.at_ms, 1_795_774_751_685);
        assert_eq!(
            whole.locks,
            [lock("7", "entries", "SHARED_READ", true), lock("8", "an\tother", "EXCLUSIVE", false)]
        );
        assert_eq!(sample(b"at\t5\n"), Some(LockSample { at_ms: 5, locks: Vec::new() }));
    }
}
