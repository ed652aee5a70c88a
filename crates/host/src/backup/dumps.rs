//! Databases of servers on their way into the repository: a dump is taken first, packed, on the host's disk, so that the server is not held for as
//! long as an upload takes; then its bytes, unpacked so that what did not change is stored once, go into a backup of their own beside the one that
//! names them.

use std::fs::File;
use std::io::{self, BufRead as _, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use cutover_core::backup::{DumpInBackup, ServerItem};
use cutover_core::config::settings::ServerKind;
use cutover_core::failure::Failure;
use cutover_core::hash::ContentHash;
use cutover_core::layout::BACKUP_CLIENT;
use cutover_core::names::{AppId, DatabaseName};
use cutover_core::plan::Reached;
use cutover_core::wire::Extent;
use sha2::{Digest, Sha256};

use super::drill::scratch_of;
use super::drill_record::drill_lock_name;
use super::gather::{failed, refuse_without_room};
use super::locks::Own;
use super::proof::{Amount, prove};
use super::prose::Trouble;
use super::restic::{Ended, Restic, ResticError, dumps_tag};
use super::store::{Summary, summary};
use super::undated::undate;
use crate::blocking::blocking;
use crate::files;
use crate::host::Host;
use crate::lock::ProcessLock;
use crate::meter::{Meter, Passing};
use crate::ports::{Located, Server};
use crate::stages::located::Whereabouts;

/// Where dumps wait, below the room.
const WAITING: &str = "dumps";
/// Where they lie in the repository.
const DATABASES: &str = "/databases";
/// A dump, packed and without indexes, is expected to take this part of its database at most; that it takes more is seen while it comes.
const PACKED: u64 = 3;
/// Between two looks at the disk.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes that are handed on at once.
const PIECE: usize = 256 * 1024;
/// zstd's usual level.
const LEVEL: i32 = 3;

/// A dump that waits on the disk.
#[derive(Debug)]
pub(super) struct Dump {
    pub(super) database: DatabaseName,
    kind: ServerKind,
    packed: PathBuf,
    /// Where they are known.
    tables: Option<u64>,
    roles: Vec<String>,
    /// What the server has besides, where it is the app's own.
    pub(super) others: Vec<String>,
    /// What is not of its moment, in words.
    pub(super) loose: Option<String>,
}

/// The way to a database's server.
pub(super) async fn reach(host: &Host, app: &AppId, item: &ServerItem) -> Result<Server, Failure> {
    let whereabouts = Whereabouts { ports: &host.ports, layout: &host.layout, app, client: BACKUP_CLIENT };
    let reached = whereabouts.server(&item.place).await;
    reached.map_err(|error| {
        failed("a database could not be dumped")
            .because(format!("database `{}`: {error}", item.name))
            .next("see that its server runs (`cutover status`), then try again")
    })
}

/// Takes a dump of a database, verified, onto the host's disk.
pub(super) async fn take(host: &Host, app: &AppId, item: &ServerItem, room: &Path) -> Result<Dump, Failure> {
    let server = reach(host, app, item).await?;
    let told = |error: crate::ports::DatabaseError| {
        let failure = failed("a database could not be dumped")
            .because(format!("database `{}`: {}", item.name, error.message));
        failure.next(if error.full {
            "make room on the disk, then try again"
        } else {
            "see that its server answers, then try again"
        })
    };
    let state = host.ports.database.look(&server).await.map_err(told)?;
    let left = scratch_of(&state.database);
    // Who drills now still needs it.
    if state.others.contains(&left)
        && let Ok(_nobody_drills) = ProcessLock::take(&host.layout, &drill_lock_name(app))
    {
        host.ports.database.drop_kept(&server, &left).await.map_err(told)?;
    }
    refuse_without_room(room, state.bytes / PACKED)?;
    let packed = room.join(WAITING).join(item.name.as_str());
    let roles = host.ports.database.roles(&server).await.map_err(told)?;
    let located = Located::Server(server.clone());
    let taken = tokio::select! {
        taken = host.ports.database.snapshot(&located, &packed) => taken.map_err(told)?,
        failure = filled_up(room) => return Err(failure.because(format!("database `{}` was being dumped", item.name))),
    };
    let others =
        if matches!(item.place.reached, Reached::Backing { .. }) { state.others } else { Vec::new() };
    let others = others.into_iter().filter(|other| *other != left).collect();
    let after = host.ports.database.look(&server).await.map(|after| after.tables);
    let tables = after.ok().and_then(|after| agreed(state.tables, after));
    let (database, loose) = (item.name.clone(), taken.told_loose());
    Ok(Dump { database, kind: item.place.kind, packed, tables, roles, others, loose })
}

/// The dump is of a moment between both: where tables came or went meanwhile it is not known how many it has.
fn agreed(before: u64, after: u64) -> Option<u64> {
    (before == after).then_some(before)
}

/// Ends when the disk has no room for more: the dump ends with whoever waits for it, and goes with the room that it lies in.
async fn filled_up(room: &Path) -> Failure {
    loop {
        tokio::time::sleep(LOOK).await;
        if let Err(failure) = refuse_without_room(room, 0) {
            return failure;
        }
    }
}

impl Dump {
    fn file(&self) -> String {
        let ending = match self.kind {
            ServerKind::Postgres => "dump",
            ServerKind::Mysql | ServerKind::Mariadb => "sql",
        };
        format!("{DATABASES}/{}.{ending}", self.database)
    }

    /// What the backup that names it says of it, whose mark it gets.
    pub(super) async fn described(&self, mark: &str, meter: &Meter) -> Result<DumpInBackup, Failure> {
        let (packed, passing) = (self.packed.clone(), meter.begin_file("read", &self.packed));
        let unpacked = blocking(move || unpack(passing.through(opened(&packed)?), io::sink())).await;
        let unreadable = |why: String| {
            failed("a dump on the disk cannot be read")
                .because(why)
                .next("see that the host's disk is well, then try again")
        };
        let unpacked = unpacked.map_err(|error| unreadable(error.to_string()))?;
        let Unpacked { hash, parts } = unpacked.map_err(|broken| match broken {
            Broken::Dump(error) => unreadable(error.to_string()),
            Broken::Input => unreadable("it broke off".to_owned()),
        })?;
        Ok(DumpInBackup {
            kind: self.kind,
            file: self.file(),
            mark: mark.to_owned(),
            hash: ContentHash::from_digest(&hash),
            bytes: parts.iter().sum(),
            roles: self.roles.clone(),
            tables: self.tables,
            // One part is the whole.
            parts: if parts.len() > 1 { parts } else { Vec::new() },
        })
    }

    /// Brings it into the repository as it was described, and reads it back; gives by how much that grew. On the disk it is not needed any more then.
    pub(super) async fn store(
        self,
        described: &DumpInBackup,
        restic: &Restic,
        tags: &[String],
    ) -> Result<u64, ResticError> {
        let file = &described.file;
        let mut words: Vec<String> =
            ["backup", "--json", "--stdin", "--stdin-filename"].map(str::to_owned).into();
        words.push(file.clone());
        for tag in tags {
            words.extend(["--tag".to_owned(), tag.clone()]);
        }
        let (summary, hash) =
            restic.waiting(async || self.pour(restic, &words, described.bytes).await).await?;
        if ContentHash::from_digest(&hash) != described.hash {
            return Err(ResticError::other("the dump on the disk is not what it was before".to_owned()));
        }
        let amount = Amount { files: 1, bytes: summary.total_bytes_processed };
        prove(restic, &summary.snapshot_id, amount, &[(PathBuf::from(file), hash)].into()).await?;
        if let Err(error) = std::fs::remove_file(&self.packed) {
            tracing::warn!(%error, "a dump that is in the repository stays on the disk until the backup is done");
        }
        Ok(summary.data_added)
    }

    async fn pour(
        &self,
        restic: &Restic,
        words: &[String],
        bytes: u64,
    ) -> Result<(Summary, [u8; 32]), ResticError> {
        let mut command = restic.command();
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let packed = self.packed.clone();
        let passing = restic.meter.begin("stored", Extent::Exactly { bytes });
        let own = restic.own.clone();
        let poured = blocking(move || pour(command, &packed, &own, &passing)).await;
        let poured = poured.map_err(|error| ResticError::other(format!("it broke off: {error}")))?;
        poured.map_err(|error| restic.without_secrets(&error))
    }
}

/// Unpacks a dump into the program's input. A dump that breaks off ends the program before its input ends: it stores nothing then.
fn pour(
    mut command: std::process::Command,
    packed: &Path,
    own: &Own,
    passing: &Passing,
) -> Result<(Summary, [u8; 32]), ResticError> {
    let other = |error: &io::Error| ResticError::other(error.to_string());
    let mut child = command.spawn().map_err(|error| other(&error))?;
    own.begins(child.id());
    let complaints = heard(child.stderr.take());
    let told = heard(child.stdout.take());
    let mut input = child.stdin.take();
    let poured = match &mut input {
        Some(input) => opened(packed).and_then(|packed| unpack(packed, passing.through(input))),
        None => Err(Broken::Input),
    };
    if let Err(Broken::Dump(error)) = &poured {
        child.kill().map_err(|error| other(&error))?;
        child.wait().map_err(|error| other(&error))?;
        return Err(ResticError::other(format!("the dump on the disk cannot be read: {error}")));
    }
    drop(input);
    let status = child.wait().map_err(|error| other(&error))?;
    let said = complaints.join().unwrap_or_default();
    let ended = Ended { code: status.code(), said };
    if ended.has_let_go() {
        own.ended(child.id());
    }
    let out = told.join().unwrap_or_default();
    match (poured, summary(&out)) {
        (Ok(unpacked), Some(summary)) if ended.code == Some(0) => Ok((summary, unpacked.hash)),
        _ => Err(ended.error()),
    }
}

/// All that a stream says, but of what it says anew each moment only the last.
fn heard(stream: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut said = String::new();
        let Some(stream) = stream else { return said };
        for line in io::BufRead::lines(io::BufReader::new(stream)).map_while(Result::ok) {
            if !line.contains(r#""message_type":"status""#) && said.len() < 64 * 1024 {
                said.push_str(&line);
                said.push('\n');
            }
        }
        said
    })
}

enum Broken {
    /// The dump cannot be read.
    Dump(io::Error),
    /// Whoever should have it takes no more.
    Input,
}

/// What went through while a dump was unpacked.
struct Unpacked {
    hash: [u8; 32],
    /// The bytes of each part.
    parts: Vec<u64>,
}

fn opened(packed: &Path) -> Result<File, Broken> {
    File::open(packed).map_err(Broken::Dump)
}

fn unpack(packed: impl Read, mut input: impl Write) -> Result<Unpacked, Broken> {
    let mut source = io::BufReader::new(packed);
    let mut hasher = Sha256::new();
    let mut piece = Vec::with_capacity(PIECE);
    let mut parts = Vec::new();
    while !source.fill_buf().map_err(Broken::Dump)?.is_empty() {
        let mut part = zstd::Decoder::with_buffer(&mut source).map_err(Broken::Dump)?.single_frame();
        let mut bytes = 0;
        loop {
            piece.clear();
            // As much as there is room for: the first has all of an archive's head.
            match part.by_ref().take(PIECE as u64).read_to_end(&mut piece).map_err(Broken::Dump)? {
                0 => break,
                read => {
                    if bytes == 0 && parts.is_empty() {
                        undate(&mut piece);
                    }
                    hasher.update(&piece);
                    input.write_all(&piece).map_err(|_| Broken::Input)?;
                    bytes += read as u64;
                }
            }
        }
        parts.push(bytes);
    }
    Ok(Unpacked { hash: hasher.finalize().into(), parts })
}

/// In which form a dump comes out of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fetched {
    /// As the server's own tool wrote it, but for the date in it: for people.
    AsItIs,
    /// As cutover keeps dumps: where it has parts, so many bytes in each.
    Packed(Vec<u64>),
}

/// Brings a dump out of the repository into a file that is not there yet; every byte of it is compared with what went in.
pub(super) async fn fetch(
    restic: &Restic,
    app: &AppId,
    dump: &DumpInBackup,
    fetched: Fetched,
    to: &Path,
) -> Result<(), ResticError> {
    let backups = restic.list(&format!("{},{}", dumps_tag(app), dump.mark)).await?;
    let path = Path::new(&dump.file);
    let backup = backups.iter().find(|backup| backup.paths.iter().any(|found| found == path));
    let backup = backup.ok_or_else(|| ResticError {
        trouble: Trouble::Damaged,
        words: format!("the dump {} is not in the repository any more", dump.file),
    })?;
    let of = Extent::Exactly { bytes: dump.bytes };
    let hash = fetch_file(restic, &backup.id, path, of, fetched, to).await?;
    if hash == dump.hash {
        return Ok(());
    }
    files::discard(to);
    Err(ResticError {
        trouble: Trouble::Damaged,
        words: format!("{} came out otherwise than it went in", dump.file),
    })
}

/// Brings a file of a backup, of such a size, into one that is not there yet; gives the hash of what came.
pub(super) async fn fetch_file(
    restic: &Restic,
    id: &str,
    file: &Path,
    of: Extent,
    fetched: Fetched,
    to: &Path,
) -> Result<ContentHash, ResticError> {
    let mut command = restic.command();
    command.args(["dump", "--no-lock", id]).arg(file).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (to, passing) = (to.to_owned(), restic.meter.begin("fetched", of));
    let taken = blocking(move || {
        let taken = write(command, fetched, &to, &passing);
        if taken.is_err() {
            files::discard(&to);
        }
        taken
    })
    .await;
    let taken = taken.map_err(|error| ResticError::other(format!("it broke off: {error}")))?;
    taken.map_err(|error| restic.without_secrets(&error))
}

fn write(
    mut command: std::process::Command,
    fetched: Fetched,
    to: &Path,
    passing: &Passing,
) -> Result<ContentHash, ResticError> {
    let other = |error: io::Error| ResticError {
        trouble: if error.kind() == io::ErrorKind::StorageFull { Trouble::Full } else { Trouble::Other },
        words: format!("{}: {error}", to.display()),
    };
    let file = files::private(to).map_err(other)?;
    let mut child = command.spawn().map_err(other)?;
    let complaints = heard(child.stderr.take());
    let copied = match (child.stdout.take(), fetched) {
        (None, _) => Err(io::ErrorKind::BrokenPipe.into()),
        (Some(out), Fetched::AsItIs) => hashed_copy(passing.through(out), &file),
        (Some(out), Fetched::Packed(parts)) => packed_copy(passing.through(out), &file, &parts),
    };
    // Of who cannot write nobody reads: restic ends by that.
    let status = child.wait().map_err(other)?;
    let said = complaints.join().unwrap_or_default();
    let hash = copied.map_err(other)?;
    Ended { code: status.code(), said }.good()?;
    file.sync_all().map_err(other)?;
    Ok(ContentHash::from_digest(&hash))
}

/// Packs each part so that it can be unpacked without those before it.
fn packed_copy(mut from: impl Read, file: &File, parts: &[u64]) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let (_, before) = parts.split_last().unwrap_or((&0, &[]));
    // The last one has whatever there is: what was counted is in a backup, and may be wrong.
    for most in before.iter().copied().chain([u64::MAX]) {
        let mut packed = zstd::Encoder::new(file, LEVEL)?;
        packed.include_checksum(true)?;
        copy_into(&mut (&mut from).take(most), &mut packed, &mut hasher)?;
        packed.finish()?;
    }
    Ok(hasher.finalize().into())
}

fn hashed_copy(mut from: impl Read, mut to: impl Write) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    copy_into(&mut from, &mut to, &mut hasher)?;
    Ok(hasher.finalize().into())
}

fn copy_into(from: &mut impl Read, to: &mut impl Write, hasher: &mut Sha256) -> io::Result<()> {
    let mut piece = vec![0_u8; PIECE];
    loop {
        match from.read(&mut piece)? {
            0 => return Ok(()),
            read => {
                hasher.update(&piece[..read]);
                to.write_all(&piece[..read])?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_a_table_that_was_made_meanwhile_then_their_number_is_not_known() {
        assert_eq!(agreed(30, 30), Some(30));
        assert_eq!(agreed(30, 31), None);
    }

    #[test]
    fn a_dump_comes_back_in_the_parts_that_it_had() {
        let folder = tempfile::tempdir().unwrap();
        let (was, is) = (folder.path().join("was"), folder.path().join("is"));
        let packed: Vec<u8> = ["rows", "", "events"]
            .iter()
            .flat_map(|part| zstd::encode_all(part.as_bytes(), LEVEL).unwrap())
            .collect();
        std::fs::write(&was, packed).unwrap();
        let mut text = Vec::new();
        let Ok(before) = unpack(File::open(&was).unwrap(), &mut text) else { panic!("it is whole") };
        assert_eq!(
            (before.parts.as_slice(), text.as_slice()),
            ([4, 0, 6].as_slice(), b"rowsevents".as_slice())
        );

        let hash = packed_copy(text.as_slice(), &File::create(&is).unwrap(), &before.parts).unwrap();

        let Ok(after) = unpack(File::open(&is).unwrap(), io::sink()) else { panic!("it is whole") };
        assert_eq!((after.parts, after.hash), (before.parts, hash));
    }
}
