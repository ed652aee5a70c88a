//! Redis among the backing services: it is told to save before its volume is taken, and what it wrote is read by its own tool. What it wrote before
//! is renamed over by it, so a file that is taken is whole.

use std::time::Duration;

use cutover_core::backup::Items;
use cutover_core::failure::Failure;
use cutover_core::names::{AppId, ServiceName, VolumeName};

use super::gather::{Gathered, failed};
use super::work::doing;
use crate::host::Host;
use crate::ports::{Exec, Finished};
use crate::stages::located;

/// For a save: of many gigabytes, on a slow disk.
const SAVE: Duration = Duration::from_hours(1);
/// Where nothing of Redis is there.
const NONE: i32 = 3;
/// It wants a password that its instance's variables do not have.
const PASSWORD: i32 = 4;
/// It cannot be asked now.
const BUSY: i32 = 5;
/// It saved, and how its file is called it does not say.
const UNREAD: i32 = 6;
/// It saved, and on its next start reads other files.
const APPENDS: i32 = 7;
/// It does not answer where it usually does.
const SILENT: i32 = 8;

/// Its password is where the usual images have it. An error that Redis tells is no
/// error of its client: what counts is that it says that it saves, and has saved since.
const SCRIPT: &str = r#"cli=$(command -v redis-cli || command -v valkey-cli) || exit 3
REDISCLI_AUTH="${REDISCLI_AUTH:-${REDIS_PASSWORD:-${VALKEY_PASSWORD:-}}}"
if [ -n "$REDISCLI_AUTH" ]; then export REDISCLI_AUTH; else unset REDISCLI_AUTH; fi
case $("$cli" ping 2>&1) in
    PONG) ;;
    *NOAUTH*|*WRONGPASS*|*denied*) exit 4 ;;
    *LOADING*) exit 5 ;;
    *) exit 8 ;;
esac
is() { "$cli" info persistence | tr -d '\r' | grep -q "^$1$"; }
left=35000
over() { until is "$1"; do left=$((left - 1)); [ "$left" -gt 0 ] || exit 5; sleep 0.1; done; }
over rdb_bgsave_in_progress:0
over aof_rewrite_in_progress:0
told=$("$cli" bgsave 2>&1)
case $told in *"aving"*) ;; *) echo "$told"; exit 1 ;; esac
over rdb_bgsave_in_progress:0
is rdb_last_bgsave_status:ok || { echo "its last save failed: see its log"; exit 1; }
if check=$(command -v redis-check-rdb || command -v valkey-check-rdb); then
    file=$("$cli" config get dbfilename 2>/dev/null | sed -n 2p)
    [ -n "$file" ] || exit 6
    "$check" "$("$cli" config get dir | sed -n 2p)/$file" || exit 1
fi
if is aof_enabled:1; then exit 7; fi"#;

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
            let runtime = host.ports.runtime(volume.spec.runtime).map_err(|error| told(error.to_string()))?;
            // What one that does not run has left in its volume is whole.
            let Ok(instance) = located::backing(&host.ports, app, service, volume.spec.runtime).await else {
                continue;
            };
            let words = ["sh", "-c", SCRIPT].map(str::to_owned).to_vec();
            match runtime.exec(app, &instance.name, &Exec { words, timeout: SAVE }).await {
                Ok(finished) => heard(&finished, service, &volume.name, gathered).map_err(told)?,
                // It has no shell, most likely, so that it is none of the usual images of Redis.
                Err(error) => gathered.left_out.push(format!(
                    "what `{service}` has not saved by itself, should it be Redis: it could not be asked ({error})"
                )),
            }
        }
    }
    Ok(())
}

fn heard(
    finished: &Finished,
    service: &ServiceName,
    volume: &VolumeName,
    gathered: &mut Gathered,
) -> Result<(), String> {
    let mut saved = |but: Option<String>| {
        doing(format!("Redis `{service}` has saved"));
        gathered.items.push(format!("Redis {service}"));
        gathered.left_out.extend(but);
        Ok(())
    };
    match finished.exit.code {
        Some(0) => saved(None),
        Some(UNREAD) => saved(Some(format!(
            "a look at what Redis `{service}` saved: it does not say how its file is called"
        ))),
        Some(APPENDS) => saved(Some(format!(
            "the append-only files of Redis `{service}` are taken while it writes them; what it saved, `dump.rdb`, is whole"
        ))),
        // Nor where there is no shell.
        Some(NONE | 126 | 127) => {
            gathered.left_out.push(format!(
                "one moment of all of volume `{volume}`: `{service}` writes on while it is taken, and a database in it that `databases:` does not name may not open from this backup"
            ));
            Ok(())
        }
        Some(SILENT) => {
            gathered.left_out.push(format!(
                "what Redis `{service}` has not saved by itself: it does not answer at its usual port"
            ));
            Ok(())
        }
        Some(BUSY) => {
            gathered.left_out.push(format!("what Redis `{service}` has not saved by itself: it was busy"));
            Ok(())
        }
        Some(PASSWORD) => {
            gathered.left_out.push(format!(
                "what Redis `{service}` has not saved by itself: it wants a password, and `REDIS_PASSWORD` among its variables is not it"
            ));
            Ok(())
        }
        _ => Err(format!("{}; {}", finished.exit, finished.output.join("; "))),
    }
}
