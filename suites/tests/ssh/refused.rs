//! What is in the way of a conversation with a server, each as it is told; nothing is done meanwhile, and what served goes on.

use std::path::Path;

use cutover_core::variables;
use cutover_suites::input::{Golden, Shop};
use cutover_testkit::site::Told;

use super::server;

/// What ssh says, by the captured samples of the command line.
const SAMPLES: &str = include_str!("../../../crates/cli/src/hosts/samples/ssh.txt");

fn sample(name: &str) -> &'static str {
    let part = SAMPLES.split("== ").find(|part| part.starts_with(&format!("{name}\n")));
    part.unwrap().split_once('\n').unwrap().1
}

fn program(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

/// A deploy through this in the place of ssh.
async fn through(shop: &Shop<'_>, ssh: &Path) -> Told {
    let mut command = shop.app.command(&["deploy"]);
    command.env(variables::SSH, ssh);
    shop.site.run(command).await.unwrap()
}

/// ssh says what it was captured to say, and ends.
fn says(text: &str, exit: i32) -> String {
    format!("#!/bin/sh\ncat >&2 <<'END'\n{text}END\nexit {exit}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_real_ssh_refuses_is_told_and_touches_nothing() {
    let Some(site) = server("what_a_real_ssh_refuses_is_told_and_touches_nothing") else { return };
    let shop = Shop::serving(&site).await;
    let mut golden = Golden::new("ssh");
    let (client, server) = (&site.remote().client, &site.remote().server);
    let address = site.remote().relay.address();
    let known = server.known_at(address);

    client.knows("").unwrap();
    golden.failure(&site, "a host key that is not known", 1, &shop.app.cutover(&["deploy"]).await.unwrap());
    server.change_host_key().unwrap();
    client.knows(&known).unwrap();
    golden.failure(&site, "a host key that has changed", 1, &shop.app.cutover(&["deploy"]).await.unwrap());
    client.knows_at(server, &[address]).unwrap();
    server.authorize("").unwrap();
    golden.failure(&site, "a key that is not let in", 1, &shop.app.cutover(&["deploy"]).await.unwrap());
    server.authorize(&format!("{}\n", server.client_line())).unwrap();
    shop.still_serves("keys").await;

    let host = site.folder().join("programs/cutover-host");
    std::fs::remove_file(&host).unwrap();
    golden.failure(&site, "no cutover-host", 1, &shop.app.cutover(&["deploy"]).await.unwrap());
    let real = site.binaries().host.display().to_string();
    let hello = |version: u32| {
        format!(
            r#"{{"reply":"hello","version":{version},"package":"9.9.9","platform":"x86_64-linux","now":"2026-11-21T14:00:00Z"}}"#
        )
    };
    for (case, text) in [
        ("an older cutover-host", format!("#!/bin/sh\nread hello\necho '{}'\n", hello(0))),
        ("a newer cutover-host", format!("#!/bin/sh\nread hello\necho '{}'\n", hello(99))),
        ("a login script that prints", format!("#!/bin/sh\necho 'Welcome to web1'\nexec '{real}' \"$@\"\n")),
        ("rubbish", "#!/bin/sh\nprintf '\\377\\376\\000rubbish\\nmore'\n".to_owned()),
        (
            "a frame that breaks off",
            format!("#!/bin/sh\nread hello\necho '{}'\nprintf '{{\"reply\":'\n", hello(1)),
        ),
        ("ends at once", "#!/bin/sh\necho 'cannot open shared object file' >&2\nexit 2\n".to_owned()),
    ] {
        program(&host, &text);
        golden.failure(&site, case, 1, &shop.app.cutover(&["deploy"]).await.unwrap());
    }
    std::fs::remove_file(&host).unwrap();
    std::os::unix::fs::symlink(&real, &host).unwrap();
    shop.still_serves("far sides").await;

    let yesterday =
        format!("#!/bin/sh\n'{real}' \"$@\" | sed -u '1s/\"now\":\"20[0-9][0-9]/\"now\":\"2001/'\n");
    std::fs::remove_file(&host).unwrap();
    program(&host, &yesterday);
    let told = shop.app.cutover(&["plan"]).await.unwrap().expect(0).unwrap();
    assert!(told.output.contains("the clock of root@127.0.0.1"), "{}", told.output);
    golden.compare();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ssh_was_captured_to_say_is_told() {
    let Some(site) = server("what_ssh_was_captured_to_say_is_told") else { return };
    let shop = Shop::laid_out(&site);
    let mut golden = Golden::new("ssh_captured");
    let fake = site.folder().join("fake-ssh");
    for (case, name, exit) in [
        ("nobody listens", "refused", 255),
        ("a name that is not known", "unresolved", 255),
        ("nobody answers", "timed out", 255),
        ("no way leads there", "unreachable", 255),
        ("a revoked key", "revoked key", 255),
        ("a configuration of ssh that cannot be read", "configuration", 255),
        ("anything else", "other", 255),
        ("no right to become root", "no sudo", 1),
        ("no sudo at all", "other", 119),
    ] {
        program(&fake, &says(sample(name), exit));
        golden.failure(&site, case, 1, &through(&shop, &fake).await);
    }
    golden.failure(&site, "no ssh", 1, &through(&shop, &site.folder().join("no-ssh")).await);
    golden.compare();
}
