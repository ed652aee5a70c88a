//! The other end of the conversation: no `cutover-host`, another one, or one that does not speak as it should.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use cutover_core::variables;
use cutover_testkit::site::Site;

use cutover_suites::input::{Golden, Shop};

/// A conversation that does not begin is given up long before a person does.
const GIVEN_UP: Duration = Duration::from_secs(60);

fn program(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_program_that_does_not_converse_is_told() {
    let site = Site::new().unwrap();
    let mut shop = Shop::serving(&site).await;
    let mut golden = Golden::new("sessions");
    let fake = site.folder().join("fake-host");
    let hello = r#"{"reply":"hello","version":99,"package":"9.9.9","platform":"x86_64-linux","now":"2026-11-21T14:00:00Z"}"#;
    for (case, text) in [
        ("of another version", format!("#!/bin/sh\nread hello\necho '{hello}'\nread more\n")),
        (
            "says something before",
            format!(
                "#!/bin/sh\necho 'Last login: Sat Nov 21'\nexec '{}' \"$@\"\n",
                site.binaries().host.display()
            ),
        ),
        ("ends at once", "#!/bin/sh\necho 'cannot open shared object file' >&2\nexit 127\n".to_owned()),
        (
            "ends in the middle",
            format!("#!/bin/sh\nread hello\necho '{}'\nread observe\n", hello.replace("99", "1")),
        ),
        ("never says anything", "#!/bin/sh\nexec sleep 600\n".to_owned()),
        ("is no program", "\u{7f}ELF".to_owned()),
    ] {
        program(&fake, &text);
        let mut command = shop.app.command(&["deploy"]);
        command.env(variables::HOST_BINARY, &fake);
        let told = site.run(command).await.unwrap();
        golden.failure(&site, case, 1, &told);
        assert!(told.took < GIVEN_UP, "{case}: {:?}", told.took);
        shop.still_serves(case).await;
    }
    let mut command = shop.app.command(&["deploy"]);
    command.env(variables::HOST_BINARY, site.folder().join("nothing"));
    golden.failure(&site, "is not there", 1, &site.run(command).await.unwrap());
    std::fs::set_permissions(&fake, PermissionsExt::from_mode(0o644)).unwrap();
    let mut command = shop.app.command(&["deploy"]);
    command.env(variables::HOST_BINARY, &fake);
    golden.failure(&site, "may not be executed", 1, &site.run(command).await.unwrap());
    shop.recovers("sessions").await;
    golden.compare();
}
