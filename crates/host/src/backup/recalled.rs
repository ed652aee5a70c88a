//! Databases of a backup, brought out of the repository as snapshots: `cutover snapshot restore` puts one in its database's place as it does with
//! any other, after one of the present.

use std::io;
use std::path::{Path, PathBuf};

use cutover_core::failure::Failure;
use cutover_core::layout;
use cutover_core::names::{AppId, DatabaseName, ReleaseId};
use cutover_core::wire::Extent;

use super::dumps::{self, Fetched};
use super::gather::{failed, trouble};
use super::manifest;
use super::restic::{Listed, Restic, ResticError};
use super::restore;
use super::work::doing;
use crate::database::sqlite;
use crate::files::{self, FileError};
use crate::host::Host;
use crate::snapshots::hash_counted;

/// What each database of the backup came to lie as; a line each.
pub(super) async fn as_snapshots(
    host: &Host,
    app: &AppId,
    restic: &Restic,
    backup: &Listed,
) -> Result<Vec<String>, Failure> {
    let what = "the databases of the backup were not brought here";
    let because = |error: ResticError| error.failure(what, restic.target());
    let found = manifest::read(restic, backup).await.map_err(because)?;
    if found.manifest.databases.is_empty() && found.manifest.dumps.is_empty() {
        return Err(failed(what)
            .because("it has volumes only: what is in use is not replaced")
            .next("`cutover backup restore --to /srv/scratch` puts them beside"));
    }
    restore::refuse_without_room(restic, backup, &found, &host.layout.snapshots(app)).await?;
    let name = |database: &DatabaseName, ending: &str| {
        layout::snapshot_file(app, database, backup.time, &found.manifest.release, ending)
    };
    let mut lines = Vec::new();
    for (database, file) in &found.manifest.databases {
        let name = name(database, layout::SQLITE);
        let path = found.folder.join(file);
        let fetch = async |to: PathBuf| {
            dumps::fetch_file(restic, &backup.id, &path, Extent::Not, Fetched::AsItIs, &to)
                .await
                .map_err(because)?;
            sqlite::verify(&to).map_err(|error| failed(what).because(error.message))
        };
        lines.push(brought(host, app, database, (&name, &found.manifest.release), fetch).await?);
    }
    for (database, dump) in &found.manifest.dumps {
        let name = name(database, layout::DUMP);
        let fetch = async |to: PathBuf| {
            let packed = Fetched::Packed(dump.parts.clone());
            dumps::fetch(restic, app, dump, packed, &to).await.map_err(because)
        };
        lines.push(brought(host, app, database, (&name, &found.manifest.release), fetch).await?);
    }
    Ok(lines)
}

async fn brought(
    host: &Host,
    app: &AppId,
    database: &DatabaseName,
    (file, release): (&str, &ReleaseId),
    fetch: impl AsyncFnOnce(PathBuf) -> Result<(), Failure>,
) -> Result<String, Failure> {
    doing(format!("database {database} comes"));
    let to = host.layout.snapshot(file);
    let next = files::beside(&to);
    let fetched = async {
        files::ensure_folder(files::folder_of(&to), 0o700).map_err(|error| trouble(&error))?;
        fetch(next.clone()).await?;
        let hash = hash_counted(&next, &host.ports.meter).await.map_err(|error| unread(&next, &error))?;
        put_in_place(&next, &to).map_err(|error| trouble(&error))?;
        Ok(hash)
    };
    let hash = match fetched.await {
        Ok(hash) => hash,
        Err(failure) => {
            files::discard(&next);
            return Err(failure);
        }
    };
    // Whoever takes old snapshots away leaves those alone that are on record as new.
    host.store.put_recalled(app, file, &hash, release).map_err(|error| {
        failed("a snapshot that came out of a backup is not on record").because(error.to_string())
    })?;
    let name = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(format!("database {database}: `cutover snapshot restore {name}` puts it in place"))
}

fn unread(next: &Path, error: &io::Error) -> Failure {
    failed("a snapshot that came out of a backup cannot be read")
        .because(format!("{}: {error}", next.display()))
}

fn put_in_place(next: &Path, to: &Path) -> Result<(), FileError> {
    std::fs::rename(next, to).map_err(|error| FileError::new("replace", to, &error))?;
    files::sync_folder(files::folder_of(to))
}
