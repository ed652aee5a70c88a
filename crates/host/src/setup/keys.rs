//! The keys of the deploy user: for CI, limited to sessions. Whatever such a key asks for, sshd executes the one command.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::setup::{place, user_sshd, user_sudoers};
use cutover_core::wire::DeployKey;
use sha2::{Digest, Sha256};

use super::system::{ask, failed, run};
use super::{carry, files, logins, packages, record, sshd};

/// What a key may not do, whatever sshd's own settings say.
const LIMITS: &str = "restrict,command=\"sudo -n /usr/local/bin/cutover-host session\"";

/// Lets a key in.
///
/// # Errors
/// When it is no public key, or the account is somebody else's, or sshd would not let it in.
pub async fn add(layout: &Layout, text: &str) -> Result<(), Failure> {
    let key = parse(text).ok_or_else(|| {
        Failure::new(Exit::Usage, "this is no public key")
            .because("a line of a .pub file is expected: kind, key, comment")
            .next("`ssh-keygen -t ed25519 -f ci-key` makes one; give ci-key.pub here and ci-key to your CI")
    })?;
    let _alone = carry::alone(layout)?;
    user(layout).await?;
    let mut lines = lines();
    if lines
        .iter()
        .any(|line| parse_limited(line).is_some_and(|known| known.key.fingerprint == key.key.fingerprint))
    {
        return Ok(());
    }
    lines.push(format!("{LIMITS} {} {} {}", key.key.kind, key.body, key.key.comment).trim_end().to_owned());
    write(&lines)
}

/// The keys there are.
pub fn list() -> Vec<DeployKey> {
    lines().iter().filter_map(|line| Some(parse_limited(line)?.key)).collect()
}

/// Lets keys in no longer. sshd does not ask again for a connection that is open, so all of that user's are ended: other keys come in anew.
///
/// # Errors
/// When there is none of that name; when a connection does not end.
pub async fn revoke(layout: &Layout, named: &str) -> Result<Vec<String>, Failure> {
    let fits = |key: &DeployKey| key.fingerprint == named || key.comment == named;
    let _alone = carry::alone(layout)?;
    let lines = lines();
    let (gone, left): (Vec<String>, Vec<String>) =
        lines.into_iter().partition(|line| parse_limited(line).is_some_and(|found| fits(&found.key)));
    if gone.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("there is no key `{named}`"))
            .because("a fingerprint or a comment of `cutover key list` is expected")
            .next("`cutover key list` shows them"));
    }
    write(&left)?;
    let named = |line: &String| Some(format!("revoked {}", parse_limited(line)?.key.fingerprint));
    let mut told: Vec<String> = gone.iter().filter_map(named).collect();
    if record::read(layout)?.user && logins::end(place::USER).await? {
        told.push(format!("open connections of `{}` were ended; runs go on", place::USER));
    }
    Ok(told)
}

/// The user, made where there is none: without a password, with no key but those above, and with one command as root.
async fn user(layout: &Layout) -> Result<(), Failure> {
    let mut record = record::read(layout)?;
    if ask(&["getent", "passwd", place::USER]).await.ok {
        refuse_another(record.user)?;
    } else {
        // Intent first: only an account that stands in the record is ever taken away again.
        record.user = true;
        record::write(layout, &record)?;
        let words = [
            "useradd",
            "--system",
            "--shell",
            "/bin/sh",
            "--home-dir",
            "/nonexistent",
            "--no-create-home",
            place::USER,
        ];
        run("make the deploy user", &words).await?;
        // Neither a password nor locked: a locked user is refused with keys, too, where sshd does not ask PAM.
        run("make the deploy user", &["usermod", "--password", "*", place::USER]).await?;
    }
    if !packages::installed(&["sudo"]).await.contains("sudo") {
        packages::install(&["sudo".to_owned()].into()).await?;
    }
    files::write(place::SUDOERS, &user_sudoers(), 0o440)?;
    if files::read(place::KEYS).is_none() {
        write(&[])?;
    }
    let is_new = files::read(place::SSHD_USER).as_deref() != Some(&user_sshd());
    if is_new {
        files::write(place::SSHD_USER, &user_sshd(), 0o644)?;
    }
    let lets_in = async {
        sshd::check().await?;
        refuse_kept_out(sshd::keeps_out(place::USER, place::KEYS).await)
    };
    if let Err(failure) = lets_in.await {
        if is_new {
            files::remove(place::SSHD_USER)?;
        }
        return Err(failure);
    }
    if is_new { sshd::reload().await } else { Ok(()) }
}

/// Keys for an account of somebody's own would limit it to sessions, and `teardown` would take it away.
fn refuse_another(is_ours: bool) -> Result<(), Failure> {
    if is_ours {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Refused,
        format!("there is an account `{}` that cutover did not make", place::USER),
    )
    .because("its logins would be limited to deploys, and `cutover teardown` would remove it")
    .while_serving("nothing was changed")
    .next(format!("give that account another name on the server: `usermod --login NAME {}`", place::USER))
    .next("or deploy as a user that may use sudo, without a deploy key"))
}

/// A key that sshd does not listen to would be told as one that may deploy.
fn refuse_kept_out(why: Option<String>) -> Result<(), Failure> {
    let Some(why) = why else { return Ok(()) };
    Err(Failure::new(
        Exit::Refused,
        format!("sshd would not let the user `{}` in: no key was added", place::USER),
    )
    .because(why)
    .while_serving("no key was changed")
    .next(format!("let sshd on the server allow `{}`, then `cutover key add` again", place::USER)))
}

/// Takes the user's keys away, and the user where cutover made it.
pub(super) async fn remove_user(is_ours: bool) -> Result<(), Failure> {
    let had = files::read(place::SSHD_USER).is_some();
    for file in [place::KEYS, place::SSHD_USER, place::SUDOERS] {
        files::remove(file)?;
    }
    if had {
        sshd::reload().await?;
    }
    if is_ours && ask(&["getent", "passwd", place::USER]).await.ok {
        logins::end(place::USER).await?;
        run("remove the deploy user", &["userdel", place::USER]).await?;
    }
    Ok(())
}

fn lines() -> Vec<String> {
    files::read(place::KEYS).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn write(lines: &[String]) -> Result<(), Failure> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    files::write(place::KEYS, &text, 0o644)?;
    // sshd reads them as that user, whatever mode the folder got from whoever made it.
    let keys = std::path::Path::new(place::KEYS);
    let folder = crate::files::folder_of(keys);
    crate::files::let_through(folder, keys)
        .map_err(|error| failed("let sshd read the keys").because(error.to_string()))
}

struct Parsed {
    key: DeployKey,
    body: String,
}

fn parse_limited(line: &str) -> Option<Parsed> {
    parse(line.strip_prefix(LIMITS)?)
}

/// `kind body comment`. Options before the kind are refused: they are ours to set.
fn parse(text: &str) -> Option<Parsed> {
    let mut words = text.split_whitespace();
    let (kind, body) = (words.next()?, words.next()?);
    let known = kind.starts_with("ssh-") || kind.starts_with("ecdsa-sha2-") || kind.starts_with("sk-");
    let bytes = STANDARD.decode(body).ok()?;
    // The key names its kind itself, after the length of that name.
    let named = bytes.get(4..4 + kind.len())? == kind.as_bytes();
    if !known || !named || text.trim().contains(['\n', '\r']) {
        return None;
    }
    let comment = words.collect::<Vec<_>>().join(" ");
    let fingerprint = format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(&bytes)));
    Some(Parsed { key: DeployKey { fingerprint, kind: kind.to_owned(), comment }, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ci@example";

    #[test]
    fn a_key_is_known_by_the_fingerprint_that_ssh_keygen_shows() {
        let parsed = parse(KEY).unwrap();
        assert_eq!(parsed.key.fingerprint, "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU");
        assert_eq!(parsed.key.comment, "ci@example");
    }

    #[test]
    fn what_is_no_plain_key_is_refused() {
        for text in [
            "",
            "ssh-ed25519",
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5",
            &format!("command=\"sh\" {KEY}"),
            "-----BEGIN",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
        assert!(parse_limited(&format!("{LIMITS} {KEY}")).is_some());
    }

    #[test]
    fn an_account_that_was_there_before_gets_no_keys() {
        let failure = refuse_another(false).unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert_eq!(failure.what, "there is an account `cutover` that cutover did not make");
        assert!(refuse_another(true).is_ok());
    }

    #[test]
    fn a_key_that_sshd_does_not_listen_to_is_not_told_as_one_that_may_deploy() {
        let failure = refuse_kept_out(Some("`AllowUsers` names others".to_owned())).unwrap_err();
        assert_eq!((failure.exit, failure.cause.len()), (Exit::Refused, 1));
        assert!(refuse_kept_out(None).is_ok());
    }
}
