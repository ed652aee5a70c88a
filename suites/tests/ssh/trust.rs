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
