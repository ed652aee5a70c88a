//! `key trust`: a server's key is known once somebody has said which it is, and to whoever has the repository.

use cutover_suites::input::Shop;
use cutover_suites::terminal::Terminal;

use super::server;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_trusted_by_its_fingerprint_or_by_a_person_and_never_unseen() {
    let Some(site) = server("a_key_is_trusted_by_its_fingerprint_or_by_a_person_and_never_unseen") else {
        return;
    };
    let shop = Shop::laid_out(&site);
    let (client, host) = (&site.remote().client, site.remote().host());
    client.knows("").unwrap();
    let known = shop.app.repository().join("cutover.known_hosts");

    let asked = shop.app.cutover(&["key", "trust", &host]).await.unwrap().expect(2).unwrap();
    let command = asked.talk.split("--fingerprint ").nth(1).unwrap();
    let fingerprint = command.split('`').next().unwrap();
    let wrong = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let words = ["key", "trust", &host, "--fingerprint", wrong];
    let refused = shop.app.cutover(&words).await.unwrap().expect(7).unwrap();
    assert!(refused.failure().contains(fingerprint), "{}", refused.talk);
    assert!(!known.exists());
    shop.app.cutover(&["deploy"]).await.unwrap().expect(1).unwrap();

    let words = ["key", "trust", &host, "--fingerprint", fingerprint];
    shop.app.cutover(&words).await.unwrap().expect(0).unwrap();
    shop.app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();

    let before = std::fs::read_to_string(&known).unwrap();
    site.remote().server.change_host_key().unwrap();
    let changed = shop.app.cutover(&["deploy"]).await.unwrap().expect(1).unwrap();
    assert!(changed.failure().contains("has changed"), "{}", changed.talk);
    std::fs::remove_file(&known).unwrap();
    let mut terminal =
        Terminal::with(&shop.app.command(&["key", "trust", &host]), &site.binaries().host).unwrap();
    terminal.shows("Go on? [y/N]").await.unwrap();
    terminal.types("y\r").await.unwrap();
    assert_eq!(terminal.ends().await.unwrap(), Some(0));
    let after = std::fs::read_to_string(&known).unwrap();
    assert_ne!(before, after);
    shop.app.cutover(&["deploy", "--dry-run"]).await.unwrap().expect(0).unwrap();
}

/// Only ssh knows the way to a server behind another.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_behind_a_jump_host_is_trusted_as_any_other() {
    let Some(site) = server("a_key_behind_a_jump_host_is_trusted_as_any_other") else { return };
    let shop = Shop::laid_out(&site);
    let (client, host) = (&site.remote().client, site.remote().host());
    let jump = site.remote().server.address();
    // The way there is known, its end is not.
    client.knows_at(&site.remote().server, &[jump]).unwrap();
    let config = std::fs::read_to_string(client.config()).unwrap();
    let way = format!("Host jump\n  HostName {}\n  Port {}\n  User root\n", jump.ip(), jump.port());
    std::fs::write(client.config(), format!("{config}{way}Host {}\n  ProxyJump jump\n", jump.ip())).unwrap();
    shop.app.cutover(&["deploy", "--dry-run"]).await.unwrap().expect(1).unwrap();

    let asked = shop.app.cutover(&["key", "trust", &host]).await.unwrap().expect(2).unwrap();
    let command = asked.talk.split("--fingerprint ").nth(1).unwrap();
    let words = ["key", "trust", &host, "--fingerprint", command.split('`').next().unwrap()];
    shop.app.cutover(&words).await.unwrap().expect(0).unwrap();

    shop.app.cutover(&["deploy", "--dry-run"]).await.unwrap().expect(0).unwrap();
    let known = shop.app.repository().join("cutover.known_hosts");
    std::fs::remove_file(&known).unwrap();
    client.knows("").unwrap();
    let lost = shop.app.cutover(&["key", "trust", &host]).await.unwrap().expect(1).unwrap();
    assert!(lost.failure().contains("could not be read"), "{}", lost.talk);
    assert!(!known.exists());
}

/// A hardware key waits to be touched: ssh says so on a terminal only.
#[tokio::test(flavor = "multi_thread")]
async fn what_ssh_wants_of_a_person_is_shown_as_it_says_it() {
    let Some(site) = server("what_ssh_wants_of_a_person_is_shown_as_it_says_it") else { return };
    let shop = Shop::laid_out(&site);
    let wrapper = shop.app.repository().join("touch");
    let text = format!(
        "#!/bin/sh\nif [ -t 2 ]; then printf '\\rConfirm user presence for key ED25519-SK\\r\\n' >&2; fi\nexec {} \"$@\"\n",
        site.remote().client.program().display()
    );
    std::fs::write(&wrapper, text).unwrap();
    std::fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = shop.app.command(&["deploy", "--dry-run"]);
    command.env("CUTOVER_SSH", &wrapper);

    let mut terminal = Terminal::with(&command, &site.binaries().host).unwrap();

    terminal.shows("Confirm user presence for key ED25519-SK\r\n").await.unwrap();
    assert_eq!(terminal.ends().await.unwrap(), Some(0));
    // Nobody is there to be told.
    let told = command.output().await.unwrap();
    assert!(!String::from_utf8_lossy(&told.stderr).contains("Confirm"));
}
