//! A server as a host: the same session, started through the system's own ssh. People's configuration, agents, jump hosts and hardware keys
//! apply; what is laid over them is that nobody's key is taken unseen, and that a dead link is noticed.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use cutover_core::variables;

use super::target::Server;

/// What runs on the server, in whatever shell its user has. A key with a forced command ignores it.
///
/// The state there belongs to root. Exit codes tell apart what would else be another program's prose: 127, there is no `cutover-host`;
/// [`NO_SUDO`], there is no `sudo`.
const COMMAND: &str = "exec /bin/sh -c '\
    command -v cutover-host >/dev/null || exit 127; \
    if [ \"$(id -u)\" = 0 ]; then exec cutover-host session; fi; \
    command -v sudo >/dev/null || exit 119; \
    exec sudo -n cutover-host session'";
/// The exit code of a server on which we are not root, and cannot become it.
pub(super) const NO_SUDO: i32 = 119;
/// The exit code of a server without `cutover-host`.
pub(super) const ABSENT: i32 = 127;
/// ssh's own exit code, for everything that goes wrong before there is a command.
pub(super) const OWN_FAILURE: i32 = 255;

/// What is laid over the user's own configuration: first one wins, and a command line comes first.
const OPTIONS: [&str; 10] = [
    // An unknown or changed key is refused; how a known one gets there is the user's decision.
    "StrictHostKeyChecking=yes",
    // A dead link is noticed within 15 s.
    "ServerAliveInterval=5",
    "ServerAliveCountMax=2",
    "ConnectTimeout=15",
    // A connection that is shared already is used; ours ends with us.
    "ControlMaster=no",
    // What is meant for people who log in.
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
];

/// What starts a session on a server.
pub(super) fn command(server: &Server) -> Command {
    command_of(server, COMMAND)
}

/// The same by a connection of its own, where others are shared.
pub(super) fn command_anew(server: &Server) -> Command {
    let mut command = with_options(server);
    command.args(["-o", "ControlPath=none"]).args(destination(server)).arg(COMMAND);
    command
}

/// What executes a line of a shell on a server.
pub(super) fn command_of(server: &Server, line: &str) -> Command {
    let mut command = with_options(server);
    command.args(destination(server)).arg(line);
    command
}

/// What writes the key that a server shows into `file`, on whatever way the user's configuration leads there, and goes no further: nobody is let
/// in. The keys of those on the way are checked as ever.
pub(super) fn command_for_key(server: &Server, file: &Path) -> Command {
    const OPTIONS: [&str; 9] = [
        "StrictHostKeyChecking=accept-new",
        "GlobalKnownHostsFile=none",
        "HashKnownHosts=no",
        "UpdateHostKeys=no",
        "PreferredAuthentications=none",
        "ConnectTimeout=15",
        "ControlPath=none",
        "ClearAllForwardings=yes",
        "PermitLocalCommand=no",
    ];
    let mut command = with(server, &OPTIONS);
    command.args(["-o", &format!("UserKnownHostsFile={}", quoted(file))]);
    command.args(destination(server)).arg("true").stdin(Stdio::null());
    command
}

fn with(server: &Server, options: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.arg("-T");
    for option in options {
        command.args(["-o", option]);
    }
    if !server.asks {
        command.args(["-o", "BatchMode=yes"]);
    }
    command
}

fn with_options(server: &Server) -> Command {
    let mut command = with(server, &OPTIONS);
    if server.known_hosts.is_file() {
        command.arg("-o").arg(known_hosts(&ssh_knows_globally(server), &server.known_hosts));
    }
    command
}

/// The ssh program.
fn program() -> OsString {
    std::env::var_os(variables::SSH).filter(|named| !named.is_empty()).unwrap_or_else(|| "ssh".into())
}

fn destination(server: &Server) -> Vec<String> {
    let port = server.name.port().map(|port| ["-p".to_owned(), port.to_string()]);
    let user = server.name.user().map(|user| ["-l".to_owned(), user.to_owned()]);
    let mut words: Vec<String> = port.into_iter().chain(user).flatten().collect();
    words.extend(["--".to_owned(), server.name.address().to_owned()]);
    words
}

/// The files of keys that ssh would read beside the user's own: naming ours replaces them.
fn ssh_knows_globally(server: &Server) -> Vec<String> {
    const ITS_OWN: [&str; 2] = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"];
    let text = configuration(server).unwrap_or_default();
    let files = text.lines().find_map(|line| line.strip_prefix("globalknownhostsfile "));
    // An ssh that cannot say it says why when it is to connect.
    files.map_or_else(
        || ITS_OWN.map(str::to_owned).to_vec(),
        |files| files.split_whitespace().filter(|file| *file != "none").map(str::to_owned).collect(),
    )
}

/// What ssh's own configuration says of a server; it connects to nobody.
pub(super) fn configuration(server: &Server) -> Result<String, String> {
    let mut command = Command::new(program());
    command.arg("-G").args(destination(server)).stdin(Stdio::null());
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// The option that names them and ours.
fn known_hosts(globally: &[String], ours: &Path) -> OsString {
    let files = globally.iter().map(|file| format!("\"{file}\"")).chain([quoted(ours)]);
    format!("GlobalKnownHostsFile={}", files.collect::<Vec<_>>().join(" ")).into()
}

/// A path as ssh reads it in an option.
fn quoted(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    format!("\"{}\"", path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str) -> Server {
        Server {
            name: name.parse().unwrap(),
            environment: "production".parse().unwrap(),
            known_hosts: "/nowhere/cutover.known_hosts".into(),
            asks: false,
        }
    }

    fn words(name: &str) -> Vec<String> {
        command(&server(name)).get_args().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn user_and_port_are_options_and_nothing_of_a_name_can_be_one() {
        let with = words("deploy@[2001:db8::1]:2222");
        let end = &with[with.len() - 7..];
        assert_eq!(end, ["-p", "2222", "-l", "deploy", "--", "2001:db8::1", COMMAND]);
        let without = words("web1");
        assert!(!without.contains(&"-p".to_owned()) && !without.contains(&"-l".to_owned()));
        assert!(without.contains(&"StrictHostKeyChecking=yes".to_owned()));
        assert!(without.contains(&"BatchMode=yes".to_owned()));
    }

    #[test]
    fn our_file_of_keys_is_read_beside_the_others() {
        let option =
            known_hosts(&["/etc/ssh/ssh_known_hosts".to_owned()], Path::new("/a b/cutover.known_hosts"));
        assert_eq!(option, "GlobalKnownHostsFile=\"/etc/ssh/ssh_known_hosts\" \"/a b/cutover.known_hosts\"");
    }
}
