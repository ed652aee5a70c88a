//! Waiting for something that happens elsewhere: asked again and again, until a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// On every wait of a test for what should come at once: a deploy takes a second, and a machine on which everything is tried at once is slow.
/// Only a test that fails waits so long, so nothing counts on its speed.
pub const SOON: Duration = Duration::from_mins(2);

/// How long to wait before asking again.
const AGAIN: Duration = Duration::from_millis(5);

#[derive(Debug, thiserror::Error)]
#[error("not in time: {what} (waited {waited:?})")]
pub struct NotInTime {
    pub what: String,
    pub waited: Duration,
}

/// Asks `look` until it gives something; an error that names `what` once `deadline` has passed. A `look` that hangs is
/// dropped at the deadline.
pub async fn wait_until<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Result<T, NotInTime> {
    let end = Instant::now() + deadline;
    let asking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(AGAIN).await;
        }
    };
    tokio::time::timeout_at(end, asking)
        .await
        .map_err(|_| NotInTime { what: what.to_owned(), waited: deadline })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn given_something_that_comes_then_it_is_given_back() {
        let mut asked = 0;
        let found = wait_until("the third time", Duration::from_secs(1), async || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!(found.await.unwrap(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn given_a_look_that_hangs_then_the_deadline_still_holds() {
        let never = wait_until("the end of days", Duration::from_secs(1), async || {
            std::future::pending::<Option<()>>().await
        });
        assert!(never.await.unwrap_err().to_string().contains("the end of days"));
    }
}
