//! Snapshots that lie here: listed, and read whole. They are looked at without the lock: nothing of them changes once they are there.

use std::sync::Arc;

use cutover_core::config::settings::ServerKind;
use cutover_core::defaults::ROWS_CHANGED;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::layout;
use cutover_core::names::AppId;
use cutover_core::plan::database_place;
use cutover_core::retention::KnownSnapshot;
use cutover_core::wire::{PutBack, Reply, RowsChanged, SnapshotAsk, SnapshotReply};
use futures_util::future::join_all;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::frames::Stop;
use super::serve::{Session, untold};
use crate::blocking::blocking;
use crate::host::Host;
use crate::journal::Trouble;
use crate::leftovers::{Going, Place};
use crate::lock::AppLock;
use crate::meter;
use crate::observe::observe_again;
use crate::ports::Located;
use crate::snapshots;
use crate::stages::located::Whereabouts;

impl<R, W> Session<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    pub(super) async fn snapshots(&mut self, ask: SnapshotAsk) -> Result<(), Stop> {
        let reply = match ask {
            SnapshotAsk::List { app, since } => {
                let snapshots = self.known_snapshots(&app).await?;
                let host = self.host().await?;
                let asked = since.iter().filter(|one| snapshots.iter().any(|known| known.name == one.name));
                let told = asked.map(async |one| (one.database.clone(), changed(&host, &app, one).await));
                SnapshotReply::Listed { since: join_all(told).await.into_iter().collect(), snapshots }
            }
            SnapshotAsk::Unneeded { app } => {
                let host = self.host().await?;
                let place = Place { layout: &host.layout, store: &host.store, ports: &host.ports, app: &app };
                // No release goes with them, so that what each of them needs stays.
                let leftovers = place.look(&Going::default()).await.map_err(|trouble| untold(&trouble))?;
                SnapshotReply::Unneeded { leftovers }
            }
            SnapshotAsk::Verify { app, name } => {
                let all = self.known_snapshots(&app).await?;
                let Some(found) = all.into_iter().find(|one| one.name == name) else {
                    return Err(unknown(&app, &name).into());
                };
                let doing = Reply::Doing { what: format!("reads {name}") };
                self.outgoing.send(&doing).await?;
                let lines = self.verify_snapshot(&app, &found).await?;
                SnapshotReply::Verified { found, lines }
            }
        };
        Ok(self.outgoing.send(&Reply::Snapshots(reply)).await?)
    }

    async fn known_snapshots(&mut self, app: &AppId) -> Result<Vec<KnownSnapshot>, Stop> {
        let host = self.host().await?;
        let (host, app) = (Arc::clone(&host), app.clone());
        let looked = blocking(move || snapshots::known(&host.layout, &host.store, &app)).await;
        let looked = looked.unwrap_or_else(|error| Err(Trouble::plain(error.to_string())));
        looked.map_err(|trouble| {
            Failure::new(Exit::Failed, "the snapshots on this host cannot be looked at")
                .because(trouble.message)
                .while_serving("what was serving goes on")
                .next("see that the disk is well, then try again")
                .into()
        })
    }

    async fn verify_snapshot(&mut self, app: &AppId, found: &KnownSnapshot) -> Result<Vec<String>, Stop> {
        let host = self.host().await?;
        let path = host.layout.snapshots(app).join(&found.name);
        let told = |what: &str, why: String| {
            Failure::new(Exit::Failed, format!("the snapshot {} {what}", found.name))
                .because(why)
                .while_serving("what was serving goes on")
        };
        let read = async {
            let mut lines = snapshots::unchanged(&path, found.hash.clone(), &host.ports.meter)
                .await
                .map_err(|trouble| {
                    told("cannot be trusted", trouble.message).next(
                        "`cutover snapshot list` shows the others; `cutover snapshot create` takes one now",
                    )
                })?;
            let unread = |why: String| {
                told("could not be read back", why)
                    .next("see that what is live has this database, and that its server runs; its file is as it was")
            };
            let state = observe_again(&host, app).await?;
            let place = database_place(&state, &found.database)
                .ok_or_else(|| unread(format!("what is live has no database `{}`", found.database)))?;
            let client = layout::OWN_CLIENT;
            let here = Whereabouts { ports: &host.ports, layout: &host.layout, app, client };
            let checked = async {
                let of = here.find(&place).await?;
                Ok::<_, Trouble>(host.ports.database.check(&path, &of).await?)
            };
            let checked = checked.await.map_err(|trouble| unread(here.redacted(&state, &trouble.message)))?;
            lines.extend(checked);
            Ok::<_, Failure>(lines)
        };
        tokio::pin!(read);
        let mut looks = meter::looks();
        loop {
            tokio::select! {
                lines = &mut read => return Ok(lines?),
                error = self.incoming.left() => return Err(error.into()),
                _ = looks.tick() => if let Some(progress) = host.ports.meter.now() {
                    self.progress(progress).await?;
                },
            }
        }
    }
}

/// How much was changed in a database since a snapshot of it. One that does not answer keeps nobody: then that is not known.
async fn changed(host: &Host, app: &AppId, asked: &PutBack) -> RowsChanged {
    let file = layout::in_snapshots(app, &asked.name);
    let here = Whereabouts { ports: &host.ports, layout: &host.layout, app, client: layout::OWN_CLIENT };
    let counted = async {
        match here.find(&asked.place).await? {
            // Nobody has it open while it is migrated or put back (P8). A run that comes later sees that we have.
            Located::File(_) if AppLock::peek(&host.layout, app).is_some() => {
                Ok((None, "a run works on it".to_owned()))
            }
            // What is said of a file has no values in it.
            Located::File(path) => {
                Ok(match host.ports.database.differing(&host.layout.snapshot(&file), &path).await {
                    Ok(rows) => (Some(rows), COMPARED.to_owned()),
                    Err(error) => (None, error.message),
                })
            }
            Located::Server(server) if server.kind != ServerKind::Postgres => {
                Ok((None, format!("{} keeps no count of them", server.kind.as_str())))
            }
            Located::Server(server) => {
                let Some(then) = host.store.row_counts(&file)? else {
                    return Ok((None, "what its server had counted by then is on no record".to_owned()));
                };
                let Some(now) = host.ports.database.look(&server).await?.counts else {
                    return Ok((None, "its server keeps no count of them any more".to_owned()));
                };
                Ok::<_, Trouble>(match now.since(&then) {
                    Some(rows) => (Some(rows), COUNTED.to_owned()),
                    None => (None, "its server began to count anew meanwhile".to_owned()),
                })
            }
        }
    };
    let (rows, how) = match timeout(ROWS_CHANGED, counted).await {
        Ok(Ok(told)) => told,
        // What a client program says may: so it is told nowhere (P6).
        Ok(Err(_)) => (None, "it could not be asked".to_owned()),
        Err(_) => (None, format!("it did not answer within {} s", ROWS_CHANGED.as_secs())),
    };
    RowsChanged { rows, how }
}

/// What is compared of two files of `SQLite`.
const COMPARED: &str = "the two were compared, without virtual tables and columns that came since; of a table that lost a column every row counts";
/// What `PostgreSQL` counts.
const COUNTED: &str = "as its server counts them, which may lack the last seconds, and what connections that are idle have not told yet: one that was changed twice is two, and one that went with its table or a TRUNCATE is none";

fn unknown(app: &AppId, name: &str) -> Failure {
    Failure::new(Exit::Refused, format!("there is no snapshot `{name}`"))
        .because(format!("nothing of that name lies among the snapshots of {app}"))
        .while_serving("what was serving goes on")
        .next("`cutover snapshot list` shows those that there are")
}
