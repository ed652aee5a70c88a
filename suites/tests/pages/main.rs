//! The pages of migrations, rollback, backups and disaster: each command that stands in a block of theirs is typed as it stands there, in the page's order, at an
//! application on a real engine, over SSH; what each is said to do is looked at. Only names, dates, IDs and addresses stand for others ([`shop::Shop::new`] has the table).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says why it did not run"
)]

mod backups;
mod migrations;
mod page;
mod shop;

use cutover_suites::kept::has_restic;
use cutover_suites::servers::on_server;
use cutover_testkit::machine::Image;

const ENVIRONMENTS: &str = "environments:\n  production: { hosts: [deploy@example.com] }\n";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn the_pages_of_migrations_and_rollback_do_what_they_say() {
    let name = "the_pages_of_migrations_and_rollback_do_what_they_say";
    shop::with_shop(name, ENVIRONMENTS, async |shop| {
        migrations::migrations(shop).await;
        migrations::rollback(shop).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn the_pages_of_backups_and_disaster_do_what_they_say() {
    let name = "the_pages_of_backups_and_disaster_do_what_they_say";
    if !has_restic(name) {
        return;
    }
    let missing = ["openssl", "curl"].into_iter().find(|program| !is_there(program));
    if let Some(program) = missing {
        return println!("not run: {name}: {program} is not installed");
    }
    on_server(name, Image::Stocked12, async |machine| {
        shop::with_shop(name, &backups::configuration(), async |shop| {
            backups::backups(shop).await;
            backups::disaster(shop, machine).await;
        })
        .await;
    })
    .await;
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
