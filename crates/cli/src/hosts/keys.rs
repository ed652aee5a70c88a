//! The keys that a server shows to whoever asks, and the file beside cutover.yml in which a person keeps those that were compared. Nothing is
//! taken into it here without having been asked for.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;

use super::ssh;
use super::target::Server;

/// A key that a server has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShownKey {
    /// As `known_hosts` has it: name, type, key.
    pub(crate) line: String,
    /// `SHA256:…`.
    pub(crate) fingerprint: String,
    /// `ED25519` …
    pub(crate) kind: String,
}

/// Asks a server for its keys, where the user's own configuration says it is.
pub(crate) fn shown_by(server: &Server) -> Result<Vec<ShownKey>, Failure> {
    let place = Place::of(server)?;
    let unread = |why: String| {
        Failure::new(Exit::Failed, format!("the keys of {} could not be read", server.name)).because(why)
    };
    let (text, said) = if place.by_way { by_ssh(server) } else { by_scan(&place) }.map_err(unread)?;
    let keys = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (kind, key) = line.split_once(' ')?.1.split_once(' ')?;
        fingerprint(line).map(|(fingerprint, name)| ShownKey {
            line: format!("{} {kind} {key}", place.known_as),
            fingerprint,
            kind: name,
        })
    });
    let keys: Vec<ShownKey> = keys.collect();
    if keys.is_empty() {
        let said = said.lines().rfind(|line| !line.starts_with('#')).unwrap_or("it showed none").to_owned();
        let next = if place.by_way {
            format!("`{}` by hand shows what is in its way", server.by_hand())
        } else {
            format!("see that {} answers on port {}", place.address, place.port)
        };
        return Err(unread(said).next(next));
    }
    Ok(keys)
}

/// The keys that a server shows, a line each, and what was said meanwhile.
fn by_scan(place: &Place) -> Result<(String, String), String> {
    let mut scan = Command::new("ssh-keyscan");
    scan.args(["-T", "10", "-p", &place.port, "--", &place.address]).stdin(Stdio::null());
    let scanned = scan.output().map_err(|error| format!("ssh-keyscan: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((text(&scanned.stdout), text(&scanned.stderr)))
}

/// The same where only ssh itself knows the way, through a jump host say: the one key on which both agree.
fn by_ssh(server: &Server) -> Result<(String, String), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = folder.path().join("shown");
    let mut command = ssh::command_for_key(server, &file);
    // It always fails: nobody is let in.
    let output = command.output().map_err(|error| format!("ssh: {error}"))?;
    let text = fs::read_to_string(&file).unwrap_or_default();
    Ok((text, String::from_utf8_lossy(&output.stderr).replace('\r', "")))
}

/// Where a server is, as the user's configuration has it.
struct Place {
    address: String,
    port: String,
    /// The name that ssh looks for in `known_hosts`.
    known_as: String,
    /// Whether ssh goes there by way of another machine, or of a command.
    by_way: bool,
}

impl Place {
    fn of(server: &Server) -> Result<Self, Failure> {
        let told = ssh::configuration(server).map_err(|why| {
            Failure::new(Exit::Failed, "ssh's configuration could not be read").because(why)
        })?;
        let value = |name: &str| {
            told.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
                .filter(|text| *text != "none")
        };
        let by_way = value("proxyjump").or_else(|| value("proxycommand")).is_some();
        let address = value("hostname").unwrap_or_else(|| server.name.address()).to_owned();
        let port = value("port").unwrap_or("22").to_owned();
        let known_as = match (value("hostkeyalias"), port.as_str()) {
            (Some(alias), _) => alias.to_owned(),
            (None, "22") => address.clone(),
            (None, _) => format!("[{address}]:{port}"),
        };
        Ok(Self { address, port, known_as, by_way })
    }
}

/// Its fingerprint and its kind, by ssh's own tool: `256 SHA256:… name (ED25519)`.
fn fingerprint(line: &str) -> Option<(String, String)> {
    let mut command = Command::new("ssh-keygen");
    command.args(["-l", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    child.stdin.take()?.write_all(format!("{line}\n").as_bytes()).ok()?;
    let output = child.wait_with_output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words: Vec<&str> = text.split_whitespace().collect();
    let fingerprint = words.iter().find(|word| word.starts_with("SHA256:"))?;
    Some(((*fingerprint).to_owned(), words.last()?.trim_matches(['(', ')']).to_owned()))
}

/// Keeps these keys in the file, which is replaced as a whole. A key of the same name and kind that differs is a person's to take away.
pub(crate) fn keep(file: &Path, keys: &[&ShownKey]) -> Result<(), Failure> {
    let failed = |what: &str| Failure::new(Exit::Failed, format!("{} {what}", file.display()));
    let before = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed("cannot be read").because(error.to_string())),
    };
    let mut text = before.clone();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for key in keys {
        if let Some(other) = before.lines().find(|line| is_another(line, &key.line)) {
            return Err(Failure::new(Exit::Refused, "another key of this server is trusted already")
                .because(format!("{} has the line `{other}`", file.display()))
                .next("ask who runs the server whether its key was changed; then take the old line out, and try again"));
        }
        if !before.lines().any(|line| line.trim() == key.line) {
            text.push_str(&key.line);
            text.push('\n');
        }
    }
    replace(file, &text).map_err(|error| failed("cannot be written").because(error.to_string()))
}

/// Of the same name and kind, and not the same key.
fn is_another(line: &str, key: &str) -> bool {
    let words = |text: &str| text.split_whitespace().take(3).map(str::to_owned).collect::<Vec<_>>();
    let (line, key) = (words(line), words(key));
    line.len() == 3 && line[..2] == key[..2] && line != key
}

/// Durably: whoever reads it finds the old text or the new.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(text.as_bytes())?;
    new.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    new.as_file().sync_all()?;
    new.persist(file).map_err(|error| error.error)?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ShownKey {
        ShownKey { line: text.to_owned(), fingerprint: String::new(), kind: String::new() }
    }

    #[test]
    fn a_key_is_added_once_and_another_is_never_put_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cutover.known_hosts");
        std::fs::write(&file, "# ours\n[web1]:2222 ssh-ed25519 AAAA").unwrap();
        let new = key("web2 ssh-ed25519 BBBB");
        keep(&file, &[&new]).unwrap();
        keep(&file, &[&new]).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text, "# ours\n[web1]:2222 ssh-ed25519 AAAA\nweb2 ssh-ed25519 BBBB\n");
        let failure = keep(&file, &[&key("[web1]:2222 ssh-ed25519 CCCC")]).unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }
}
