//! Variables that are missing, readable by others, or not filled in.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cutover_core::names::AppId;
use cutover_testkit::site::Site;

use cutover_suites::input::{GOOD, Golden, Shop};

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_that_are_not_as_they_should_be_touch_nothing() {
    let site = Site::new().unwrap();
    let mut shop = Shop::serving(&site).await;
    let mut golden = Golden::new("variables");
    let local = shop.app.repository().join(".env");
    let good = std::fs::read_to_string(&local).unwrap();
    shop.configured(&GOOD.replace("HOST: 127.0.0.1", "HOST: 127.0.0.1, TOKEN: "));
    shop.fails(&mut golden, "a required variable without a value", &["deploy"], 7).await;
    for (case, text, mode, exit) in [
        ("an env file for all to read", "TOKEN=secret-in-file\n", 0o644, 7),
        ("a placeholder", "TOKEN=CHANGE_ME\n", 0o600, 7),
        ("an env file that is none", "TOKEN=secret-in-file\nTOKEN secret-in-file\n", 0o600, 10),
    ] {
        write(&local, text, mode);
        let told = shop.fails(&mut golden, case, &["deploy"], exit).await;
        assert!(!told.talk.contains("secret-in-file"), "{}", told.talk);
    }
    write(&local, &good, 0o600);
    shop.fails(&mut golden, "a secret on the command line", &["deploy", "-v", "TOKEN=secret-in-file"], 2)
        .await;
    shop.fails(&mut golden, "a secret set on the command line", &["env", "set", "TOKEN=secret-in-file"], 2)
        .await;

    let app: AppId = "shop/local".parse().unwrap();
    let host = site.layout().env_file(&app);
    for (case, text, mode, exit) in [
        ("the host's env file for all to read", "TOKEN=secret-in-file\n", 0o644, 7),
        ("a placeholder in the host's env file", "TOKEN=CHANGE_ME\n", 0o600, 7),
        ("the host's env file is none", "TOKEN secret-in-file\n", 0o600, 10),
    ] {
        write(&host, text, mode);
        let told = shop.fails(&mut golden, case, &["deploy"], exit).await;
        assert!(!told.talk.contains("secret-in-file"), "{}", told.talk);
    }
    std::fs::remove_file(&host).unwrap();
    shop.recovers("variables").await;
    golden.compare();
}
