//! The first conversation with a server that has no `cutover-host`, or an old one: one execution of ssh tells what the server is, receives the
//! program where it lacks it, checks its sum, and begins a session of it. What nobody keeps (a dry run, a refusal, a broken line) is gone
//! with the session.

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::setup::{Distribution, place, refuse_unsupported};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout};

use super::channel::Channel;
use super::error::{HostError, Trouble};
use super::opening::Opening;
use super::program::Program;
use super::target::{Server, Target};
use super::{opening, ssh};

/// What the server's own shell carries out: as root, or by sudo. The script follows on standard input, with its length on a line before it:
/// so it need not survive the quoting of a shell that is not known.
const LOADER: &str = "exec /bin/sh -c '\
    read -r size && script=$(head -c \"$size\") || exit 1; \
    if [ \"$(id -u)\" = 0 ]; then exec /bin/sh -c \"$script\" setup \"${SSH_CONNECTION:-}\"; fi; \
    command -v sudo >/dev/null || exit 119; \
    exec sudo -n /bin/sh -c \"$script\" setup \"${SSH_CONNECTION:-}\"'";

/// Says what the server is; hears which program is wanted; receives it, where it is not there; becomes a session of it.
const SCRIPT: &str = r#"
SSH_CONNECTION=$1; export SSH_CONNECTION
umask 022
say() { printf 'cutover-setup %s\n' "$*"; }
id=unknown version=unknown name=unknown
if [ -r /etc/os-release ]; then
    id=$(. /etc/os-release; echo "${ID:-unknown}")
    version=$(. /etc/os-release; echo "${VERSION_ID:-unknown}")
    name=$(. /etc/os-release; echo "${PRETTY_NAME:-unknown}")
fi
say "$(uname -s) $(uname -m) $id $version $name"
read -r folder size sum || exit 0
sum_of() { sha256sum <"$1" | cut -d ' ' -f 1; }
there=$PROGRAMS/$folder/cutover-host
if [ -x "$there" ] && [ "$(sum_of "$there")" = "$sum" ]; then
    say have
    exec "$there" session
fi
room=$(df -Pk /usr/local | awk 'NR == 2 { print $4 }')
if [ "${room:-0}" -lt $((size / 1024 * 2 + 1024)) ]; then say room "${room:-0}"; exit 0; fi
new=$PROGRAMS/.new.$$
trap 'rm -rf "$new"; rmdir "$PROGRAMS" 2>/dev/null' EXIT
trap 'exit 1' HUP INT TERM PIPE
mkdir -p "$new" || { say unwritable; exit 0; }
say send
head -c "$size" >"$new/cutover-host" || { say unwritable; exit 0; }
if [ "$(sum_of "$new/cutover-host")" != "$sum" ]; then say damaged; exit 0; fi
chmod 0755 "$new/cutover-host"
say ready
"$new/cutover-host" session
"#;

/// The beginning of each line of ours: whatever a login script says is told apart.
const MARK: &str = "cutover-setup ";
/// Lines of others before the first of ours.
const NOISE: usize = 200;

/// A session of this machine's own `cutover-host` on the server, and where that program belongs there.
pub(crate) async fn bootstrap(server: &Server) -> Result<(Channel, String), Failure> {
    let target = Target::Server(Box::new(server.clone()));
    let begun = opening::start(ssh::command_of(server, LOADER), &target);
    let opening = begun.map_err(|why| HostError::new(target.clone(), why).failure())?;
    let Opening { target, peer, mut input, output } = opening;
    let mut output = BufReader::new(output);
    let script = SCRIPT.replace("$PROGRAMS", place::PROGRAMS);
    let talked = async {
        let text = format!("{}\n{script}", script.len());
        // Who ends before it has read says why by its exit code.
        input.write_all(text.as_bytes()).await.ok();
        let Some(words) = line(&mut output).await else { return Err(None) };
        let program = fitting(server, &words).map_err(Some)?;
        send(server, &program, &mut input, &mut output).await?;
        Ok(program)
    };
    let limit = target.greeting().saturating_mul(4);
    match tokio::time::timeout(limit, talked).await {
        Ok(Ok(program)) => {
            let opened = Channel::open(target, output, input, Some(peer)).await;
            Ok((opened.map_err(HostError::failure)?, program.folder))
        }
        Ok(Err(Some(failure))) => Err(failure),
        Ok(Err(None)) => {
            drop(input);
            let ended = peer.ended().await;
            let why = "it ended before it said what it is".to_owned();
            Err(HostError::new(target.clone(), Trouble::before_greeting(&target, &why, &ended)).failure())
        }
        Err(_) => Err(HostError::new(target, Trouble::Silent { seconds: limit.as_secs() }).failure()),
    }
}

/// The next line of ours, without its mark; `None`: it has ended.
async fn line(output: &mut BufReader<ChildStdout>) -> Option<String> {
    for _ in 0..NOISE {
        let mut text = String::new();
        if output.read_line(&mut text).await.ok()? == 0 {
            return None;
        }
        if let Some(words) = text.trim_end().strip_prefix(MARK) {
            return Some(words.to_owned());
        }
    }
    None
}

/// This machine's program for that server.
fn fitting(server: &Server, words: &str) -> Result<Program, Failure> {
    let mut words = words.splitn(5, ' ');
    let mut next = || words.next().unwrap_or("unknown").to_owned();
    let (system, machine, id, version, name) = (next(), next(), next(), next(), next());
    refuse_unsupported(&Distribution { id, version, name })?;
    if system != "Linux" {
        let what = format!("{} is no Linux server", server.name);
        return Err(Failure::new(Exit::Refused, what).because(format!("it says it is {system} on {machine}")));
    }
    Program::for_machine(&machine)
}

async fn send(
    server: &Server,
    program: &Program,
    input: &mut ChildStdin,
    output: &mut BufReader<ChildStdout>,
) -> Result<(), Option<Failure>> {
    let Program { folder, bytes, sum, .. } = program;
    input.write_all(format!("{folder} {} {sum}\n", bytes.len()).as_bytes()).await.ok();
    let not_installed =
        || Failure::new(Exit::Failed, format!("cutover-host was not installed on {}", server.name));
    let mut said = line(output).await.ok_or(None)?;
    if said == "send" {
        // Where it has no room after all it says so, and reads no more.
        input.write_all(bytes).await.ok();
        input.flush().await.ok();
        said = line(output).await.ok_or(None)?;
    }
    let (word, rest) = said.split_once(' ').unwrap_or((&said, ""));
    match word {
        "have" | "ready" => Ok(()),
        "room" => Err(Some(
            not_installed()
                .because(format!(
                    "/usr/local has room for {rest} KiB; {} KiB are needed, twice: the old one stays",
                    bytes.len() / 1024
                ))
                .next("make room on the server's disk, then try again"),
        )),
        "unwritable" => Err(Some(
            not_installed()
                .because(format!("{} cannot be written", place::PROGRAMS))
                .next("see that /usr/local on the server is writable and has room"),
        )),
        _ => Err(Some(
            not_installed()
                .because("what arrived there is not what was sent: the sums differ")
                .next("try again; if it happens again, look at the line between here and there"),
        )),
    }
}
