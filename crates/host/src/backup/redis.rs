//! Redis among the backing services: it is told to save before its volume is taken, and what it wrote is read by its own tool. What it wrote before
//! is renamed over by it, so a file that is taken is whole.

use std::time::Duration;

use cutover_core::backup::Items;
use cutover_core::failure::Failure;
use cutover_core::names::{AppId, ServiceName};

use super::gather::{Gathered, failed};
use super::work::doing;
use crate::host::Host;
use crate::ports::{Exec, Finished};
use crate::stages::located;

/// For a save: of many gigabytes, on a slow disk.
const SAVE: Duration = Duration::from_hours(1);
/// Where no Redis answers.
const NONE: i32 = 3;
/// It wants a password that its instance's variables do not have.
const PASSWORD: i32 = 4;

/// Where nothing of Redis is there, or nobody answers, it ends with 3. Its password is where the usual images have it.
const SCRIPT: &str = r#"cli=$(command -v redis-cli || command -v valkey-cli) || exit 3
REDISCLI_AUTH="${REDISCLI_AUTH:-${REDIS_PASSWORD:-${VALKEY_PASSWORD:-}}}"
if [ -n "$REDISCLI_AUTH" ]; then export REDISCLI_AUTH; else unset REDISCLI_AUTH; fi
case $("$cli" ping 2>&1) in
    PONG) ;;
    *NOAUTH*|*WRONGPASS*|*denied*) exit 4 ;;
    *) exit 3 ;;
esac
saved() { "$cli" info persistence | tr -d '\r' | grep -q "^$1$"; }
while ! saved rdb_bgsave_in_progress:0; do sleep 0.1; done
"$cli" bgsave >/dev/null || exit 1
while ! saved rdb_bgsave_in_progress:0; do sleep 0.1; done
saved rdb_last_bgsave_status:ok || { echo "its last save failed: see its log"; exit 1; }
check=$(command -v redis-check-rdb || command -v valkey-check-rdb) || exit 0
value() { "$cli" config get "$1" | sed -n 2p; }
"$check" "$(value dir)/$(value dbfilename)""#;

/// Has each Redis that keeps something in a volume of the backup save it.
pub(super) async fn save(
    host: &Host,
    app: &AppId,
    items: &Items,
    gathered: &mut Gathered,
) -> Result<(), Failure> {
    for volume in &items.volumes {
        for service in &volume.backing {
            let told = |why: String| {
                failed("Redis did not save what it has")
                    .because(format!("backing service `{service}`: {why}"))
                    .next("see its log (`cutover logs`), then try again")
            };
            let asked = async {
                let runtime = host.ports.runtime(volume.spec.runtime)?;
                let instance = located::backing(&host.ports, app, service, volume.spec.runtime).await?;
                let words = ["sh", "-c", SCRIPT].map(str::to_owned).to_vec();
                Ok::<_, crate::journal::Trouble>(
                    runtime.exec(app, &instance, &Exec { words, timeout: SAVE }).await?,
                )
            };
            match asked.await {
                Ok(finished) => heard(&finished, service, gathered).map_err(told)?,
                // It does not run, or has no shell: what it left in its volume is taken as it is.
                Err(error) => tracing::info!(%service, %error, "a backing service was not asked to save"),
            }
        }
    }
    Ok(())
}

fn heard(finished: &Finished, service: &ServiceName, gathered: &mut Gathered) -> Result<(), String> {
    match finished.exit.code {
        Some(0) => {
            doing(format!("Redis `{service}` has saved"));
            gathered.items.push(format!("Redis {service}"));
            Ok(())
        }
        // Nor where there is no shell.
        Some(NONE | 126 | 127) => Ok(()),
        Some(PASSWORD) => {
            gathered.left_out.push(format!(
                "what Redis `{service}` has not saved by itself: it wants a password, and `REDIS_PASSWORD` among its variables is not it"
            ));
            Ok(())
        }
        _ => Err(format!("{}; {}", finished.exit, finished.output.join("; "))),
    }
}
