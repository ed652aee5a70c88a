//! sshd, as it says itself: the one place that knows its words.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cutover_core::failure::Failure;
use cutover_core::setup::{Listener, SshFound};

use super::system::{ask, failed, run};
use crate::up::port;

const SSHD: &str = "/usr/sbin/sshd";
const SOCKET: [&str; 4] = ["systemctl", "show", "--property=ActiveState,Listen", "ssh.socket"];

/// For it to listen again after it was told to read its settings: milliseconds, on a server with much to do a second. Past that who comes
/// in tells.
const ANEW: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(10);

/// Who came in, and by which port, as the first words of the session say; sudo keeps who called it.
pub(super) fn login() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    named.unwrap_or_else(|| "root".to_owned())
}

pub(super) async fn look() -> SshFound {
    let login = login();
    let mut found =
        SshFound { login: login.clone(), installed: Path::new(SSHD).exists(), ..SshFound::default() };
    found.ports.extend(connected());
    // Its settings say nothing of where systemd listens in its place.
    found.ports.extend(by_socket(&ask(&SOCKET).await.out));
    found.tunnel = tunnel().await;
    if let Some(tunnel) = &found.tunnel {
        found.tunnel_port = tunnel_port(tunnel).await;
    }
    if !found.installed {
        return found;
    }
    // Where it has never been started, this folder is not there, and it says nothing.
    std::fs::create_dir_all("/run/sshd").ok();
    let said = ask(&[SSHD, "-T"]).await;
    let value = |key: &str| said.out.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    found.ports.extend(ports(&said.out));
    let open = ["passwordauthentication", "kbdinteractiveauthentication", "challengeresponseauthentication"];
    found.passwords = open.into_iter().any(|key| value(key) == Some("yes"));
    value("permitrootlogin").unwrap_or_default().clone_into(&mut found.root_login);
    let patterns =
        value("authorizedkeysfile").unwrap_or(".ssh/authorized_keys .ssh/authorized_keys2").to_owned();
    found.has_key = home(&login).is_some_and(|home| has_key(&home, &login, &patterns));
    if found.passwords {
        found.by_password = by_password(&found, &patterns);
    }
    found
}

/// Accounts but the one that came in, which may log in, have a password, and no key. Whom the system knows from elsewhere (LDAP) is not seen.
fn by_password(found: &SshFound, patterns: &str) -> BTreeSet<String> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let all = with_password(&read("/etc/passwd"), &read("/etc/shadow"));
    let others = all.into_iter().filter(|(user, home)| {
        let comes_in = user != "root" || found.root_login == "yes";
        *user != found.login && comes_in && !has_key(home, user, patterns)
    });
    others.map(|(user, _)| user).collect()
}

/// Accounts with a shell to log in by and a password that is not locked, and where they are at home.
fn with_password(passwd: &str, shadow: &str) -> Vec<(String, PathBuf)> {
    let has_password = |user: &str| {
        let of = shadow.lines().find_map(|line| line.strip_prefix(user)?.strip_prefix(':'));
        let password = of.and_then(|rest| rest.split(':').next()).unwrap_or_default();
        !password.is_empty() && !password.starts_with(['!', '*'])
    };
    let accounts = passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (user, home, shell) = (*fields.first()?, *fields.get(5)?, *fields.get(6)?);
        let logs_in = !shell.ends_with("/nologin") && !shell.ends_with("/false");
        (logs_in && has_password(user)).then(|| (user.to_owned(), PathBuf::from(home)))
    });
    accounts.collect()
}

fn ports(settings: &str) -> BTreeSet<u16> {
    let all = settings.lines().filter_map(|line| line.strip_prefix("port ")?.trim().parse().ok());
    all.collect()
}

/// Where one of them listens, whichever settings it was started with: what it says itself is of one of several.
pub(super) fn heard(listeners: &BTreeSet<Listener>) -> BTreeSet<u16> {
    let all = listeners.iter().filter(|one| !one.udp && one.name == "sshd");
    all.map(|one| one.port).collect()
}

/// Where systemd listens in its place, as its socket's unit says: `Listen=[::]:22 (Stream)`.
fn by_socket(unit: &str) -> BTreeSet<u16> {
    if !unit.lines().any(|line| line == "ActiveState=active") {
        return BTreeSet::new();
    }
    let listens = unit.lines().filter_map(|line| line.strip_prefix("Listen="));
    let addresses = listens.flat_map(str::split_whitespace);
    addresses.filter_map(|address| address.rsplit_once(':')?.1.parse().ok()).collect()
}

/// The port of the connection by which we were called.
fn connected() -> Option<u16> {
    std::env::var("SSH_CONNECTION").ok()?.split(' ').nth(3)?.parse().ok()
}

/// The interface by which we were called, where it is a tunnel of this machine.
async fn tunnel() -> Option<String> {
    let connection = std::env::var("SSH_CONNECTION").ok()?;
    let ours = connection.split(' ').nth(2)?;
    let said = ask(&["ip", "-o", "address", "show", "to", ours]).await;
    let interface = said.out.split_whitespace().nth(1)?.split('@').next()?.to_owned();
    let folder = Path::new("/sys/class/net").join(&interface);
    let kind = std::fs::read_to_string(folder.join("type")).unwrap_or_default();
    (is_tunnel(&kind) || folder.join("tun_flags").exists()).then_some(interface)
}

/// `WireGuard` says where it listens; of other tunnels it is not known.
async fn tunnel_port(interface: &str) -> Option<u16> {
    let said = ask(&["wg", "show", interface, "listen-port"]).await;
    let port = said.out.trim().parse().ok().filter(|port| *port != 0);
    if said.ok { port } else { None }
}

/// By the kernel's numbers: none (`WireGuard`, tun), IP in IP, IP in IPv6, sit, GRE.
fn is_tunnel(kind: &str) -> bool {
    matches!(kind.trim(), "65534" | "768" | "769" | "776" | "778" | "823")
}

fn home(user: &str) -> Option<PathBuf> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.first() == Some(&user)).then(|| PathBuf::from(fields.get(5).copied().unwrap_or("/")))
    })
}

fn has_key(home: &Path, user: &str, patterns: &str) -> bool {
    patterns.split_whitespace().any(|pattern| {
        let named = pattern.replace("%u", user).replace("%h", &home.to_string_lossy()).replace("%%", "%");
        let text = std::fs::read_to_string(home.join(named)).unwrap_or_default();
        text.lines().map(str::trim).any(|line| !line.is_empty() && !line.starts_with('#'))
    })
}

/// Whether it could start with what its files say now.
pub(super) async fn check() -> Result<(), Failure> {
    std::fs::create_dir_all("/run/sshd").ok();
    run("let sshd read its settings", &[SSHD, "-t"]).await.map(drop)
}

/// Why it would not let a user in by the keys in this file; `None`: it would, or does not say.
pub(super) async fn keeps_out(user: &str, keys: &str) -> Option<String> {
    let login = format!("user={user},host=localhost,addr=127.0.0.1");
    let said = ask(&[SSHD, "-T", "-C", &login]).await;
    let groups = ask(&["id", "-Gn", user]).await;
    let groups: Vec<&str> = groups.out.split_whitespace().collect();
    if said.ok { kept_out(&said.out, user, &groups, keys) } else { None }
}

/// By the settings that hold for that login.
fn kept_out(settings: &str, user: &str, groups: &[&str], keys: &str) -> Option<String> {
    let values = |key: &str| -> Vec<&str> {
        let lines = settings.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        lines.flat_map(str::split_whitespace).collect()
    };
    // A pattern may limit it to an address: from some it is let in, or kept out.
    let named = |patterns: &[&str], names: &[&str]| {
        let users = patterns.iter().map(|pattern| pattern.split('@').next().unwrap_or_default());
        users.into_iter().any(|pattern| names.iter().any(|name| fits(pattern.as_bytes(), name.as_bytes())))
    };
    for (key, word, names) in [("denyusers", "DenyUsers", &[user][..]), ("denygroups", "DenyGroups", groups)]
    {
        if named(&values(key), names) {
            return Some(format!("its `{word}` names it"));
        }
    }
    for (key, word, names) in
        [("allowusers", "AllowUsers", &[user][..]), ("allowgroups", "AllowGroups", groups)]
    {
        let allowed = values(key);
        if !allowed.is_empty() && !named(&allowed, names) {
            return Some(format!("its `{word}` names others: {}", allowed.join(", ")));
        }
    }
    let read = values("authorizedkeysfile");
    if !read.is_empty() && !read.contains(&keys) {
        return Some(format!(
            "a `Match` or `AuthorizedKeysFile` before ours lets it read keys from {} only",
            read.join(", ")
        ));
    }
    (values("pubkeyauthentication") == ["no"]).then(|| "its `PubkeyAuthentication` is off".to_owned())
}

/// A pattern of sshd's: `*` is any text, `?` any character.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            fits(rest, name) || name.split_first().is_some_and(|(_, left)| fits(pattern, left))
        }
        (Some((one, rest)), Some((first, left))) => (*one == b'?' || one == first) && fits(rest, left),
        _ => false,
    }
}

/// Lets it read its settings again; connections go on, and new ones come in once this has ended.
pub(super) async fn reload() -> Result<(), Failure> {
    let ports = ports(&ask(&[SSHD, "-T"]).await.out);
    let before = sockets(&ports);
    tell().await?;
    listens_anew(&ports, &before).await;
    Ok(())
}

async fn tell() -> Result<(), Failure> {
    if Path::new("/run/systemd/system").is_dir() {
        // By socket, each connection reads them anew, and there may be nothing to tell.
        let active = ask(&["systemctl", "is-active", "ssh.service"]).await.ok;
        if active {
            run("let sshd read its settings", &["systemctl", "reload", "ssh.service"]).await?;
        }
        return Ok(());
    }
    let pid = std::fs::read_to_string("/run/sshd.pid").ok().and_then(|text| text.trim().parse().ok());
    let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) else { return Ok(()) };
    rustix::process::kill_process(pid, rustix::process::Signal::HUP)
        .map_err(|error| failed("let sshd read its settings").because(error.to_string()))
}

/// It closes its sockets, begins anew and opens them again: whoever comes in between is refused. Where systemd listens in its place nothing
/// is closed.
async fn listens_anew(ports: &BTreeSet<u16>, before: &BTreeSet<String>) {
    if before.is_empty() || ask(&["systemctl", "is-active", "ssh.socket"]).await.ok {
        return;
    }
    let until = Instant::now() + ANEW;
    loop {
        let now = sockets(ports);
        let is_anew = !now.is_empty() && now.is_disjoint(before);
        if is_anew || Instant::now() > until {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn sockets(ports: &BTreeSet<u16>) -> BTreeSet<String> {
    ports.iter().flat_map(|port| port::sockets(*port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_is_heard() {
        assert_eq!(ports("port 22\nport 2222\naddressfamily any\n"), [22, 2222].into());
    }

    #[test]
    fn every_port_that_some_sshd_has_counts() {
        let listener = |name: &str, port| Listener { name: name.to_owned(), udp: false, port };
        let all = [listener("sshd", 22), listener("sshd", 2222), listener("sshd-session", 8080)];
        assert_eq!(heard(&all.into()), [22, 2222].into());
        let unit = "Listen=0.0.0.0:22 (Stream)\nListen=[::]:2222 (Stream)\nListen=/run/ssh (Stream)\n";
        assert_eq!(by_socket(&format!("{unit}ActiveState=active\n")), [22, 2222].into());
        assert_eq!(by_socket(&format!("{unit}ActiveState=inactive\n")), [].into());
    }

    #[test]
    fn what_keeps_a_user_out_is_named() {
        let kept =
            |settings: &str| kept_out(settings, "cutover", &["cutover"], "/etc/cutover/authorized_keys");
        let good = "pubkeyauthentication yes\nauthorizedkeysfile /etc/cutover/authorized_keys\n";
        assert_eq!(kept(good), None);
        assert_eq!(kept(&format!("{good}allowusers ann\nallowusers cut*@10.0.0.0/8\n")), None);
        let told = kept(&format!("{good}allowusers ann\nallowusers bob\n"));
        assert_eq!(told.unwrap(), "its `AllowUsers` names others: ann, bob");
        assert!(kept(&format!("{good}allowgroups admin\n")).unwrap().contains("AllowGroups"));
        assert!(kept(&format!("{good}denyusers cut?ver\n")).unwrap().contains("DenyUsers"));
        assert!(kept("authorizedkeysfile .ssh/authorized_keys\n").unwrap().contains(".ssh/authorized_keys"));
        assert!(kept("pubkeyauthentication no\n").unwrap().contains("PubkeyAuthentication"));
    }

    #[test]
    fn who_has_a_password_and_a_shell_may_come_in_by_it() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/bash\nmail:x:8:8::/var/mail:/usr/sbin/nologin\nbob:x:1001:1001::/home/bob:/bin/sh\nbo:x:1002:1002::/home/bo:\nlone:x:9\n";
        let shadow =
            "root:!:1::::::\nann:$y$j9T$x:1::::::\nmail:$y$j9T$x:1::::::\nbob:*:1::::::\nbo:$6$x:1::::::\n";
        let found = with_password(passwd, shadow);
        let expected = [("ann", "/home/ann"), ("bo", "/home/bo")];
        assert_eq!(found, expected.map(|(user, home)| (user.to_owned(), PathBuf::from(home))));
    }

    #[test]
    fn a_tunnel_is_told_from_a_card() {
        assert!(is_tunnel("65534\n") && !is_tunnel("1\n") && !is_tunnel(""));
    }

    #[test]
    fn a_key_counts_wherever_sshd_looks_for_it_and_a_comment_does_not() {
        let home = tempfile::tempdir().unwrap();
        let patterns = "%h/.ssh/authorized_keys .ssh/authorized_keys2";
        std::fs::create_dir(home.path().join(".ssh")).unwrap();
        std::fs::write(home.path().join(".ssh/authorized_keys"), "# none yet\n\n").unwrap();
        assert!(!has_key(home.path(), "ann", patterns));
        std::fs::write(home.path().join(".ssh/authorized_keys2"), "ssh-ed25519 AAAA ann\n").unwrap();
        assert!(has_key(home.path(), "ann", patterns));
    }
}
