//! The pages of migrations and of rollback, one after the other.

use cutover_suites::rows::{serves, written_while};

use crate::page::Page;
use crate::shop::{FIRST, RENAMED, Shop, WIDER};

/// What a snapshot is called on the pages.
const SNAPSHOT: &str = "main_20261126T040506007Z_7f3c9e1.dump.zst";

const ALL: &str = "select count(*) from orders";

/// A snapshot is put back, first beside, then in its database's place.
pub(crate) async fn migrations(shop: &mut Shop<'_>) {
    shop.deploy("first", FIRST).await;
    let wider = async { drop(shop.deploy("second", WIDER).await) };
    shop.under_traffic("beside", "text", wider).await;
    let mut page = Page::read("migrations");
    shop.query("insert into orders values ('since')").await;

    let list = page.does(shop, "cutover snapshot list").await;

    let taken = newest(&list);
    shop.means(SNAPSHOT, &taken);
    let read = page.does(shop, "cutover snapshot verify main_20261126T040506007Z_7f3c9e1.dump.zst").await;
    assert!(read.contains("is the one on record"), "{read}");
    let command = "cutover snapshot restore main_20261126T040506007Z_7f3c9e1.dump.zst --to scratch";
    page.does(shop, command).await;
    assert_eq!(shop.query(&format!("{ALL} where text = 'since'")).await, "1", "the live one was touched");
    assert_eq!(shop.query("select count(*) from pg_database where datname = 'scratch'").await, "1");
    // What is written while requests still go to the old one is in the snapshot of the present.
    let (_, told) = written_while(
        shop.app.site(),
        "meanwhile",
        page.approves(shop, "cutover snapshot restore main_20261126T040506007Z_7f3c9e1.dump.zst"),
    )
    .await;
    assert!(told.contains(&taken), "{told}");
    assert_eq!(shop.query(&format!("{ALL} where text = 'since'")).await, "0");
    assert_ne!(shop.query(ALL).await, "0");
    page.ends();
}

/// The newest name of a snapshot in a list.
fn newest(list: &str) -> String {
    let is_name = |word: &&str| word.starts_with("main_") && word.ends_with(".dump.zst");
    list.split_whitespace().find(is_name).unwrap_or_else(|| panic!("no snapshot: {list}")).to_owned()
}

pub(crate) async fn rollback(shop: &mut Shop<'_>) {
    let mut page = Page::read("rollback");
    let second = shop.deploy("second again", WIDER).await;
    let third = shop.deploy("third", WIDER).await;

    let releases = page.does(shop, "cutover releases").await;
    assert!(releases.lines().next().unwrap().contains(&third), "the newest is not first: {releases}");
    let plan = page.does(shop, "cutover rollback --dry-run").await;
    assert!(plan.contains(&second), "{plan}");
    serves(shop.app, "third").await;
    shop.under_traffic("back", "text", page.does(shop, "cutover rollback")).await;
    serves(shop.app, "second again").await;
    shop.means("41d0aa2", &third);
    shop.under_traffic("forth", "text", page.does(shop, "cutover rollback --to 41d0aa2")).await;
    serves(shop.app, "third").await;

    shop.deploy("renamed", RENAMED).await;
    shop.query("insert into orders values ('since')").await;
    let refused = page.ends_with(shop, "cutover rollback", 7).await;
    assert!(refused.contains("--restore-db") && refused.contains("--migrate-down"), "{refused}");
    serves(shop.app, "renamed").await;
    restored(shop, &mut page).await;
    taken_back(shop, &mut page).await;

    assert!(page.does(shop, "cutover status").await.contains("third"));
    assert!(page.does(shop, "cutover attach").await.contains("is live again"));
    assert!(page.does(shop, "cutover history").await.contains("rollback"));
    page.ends();
}

/// What was written since is not served, and can be fetched from the snapshot of the present.
async fn restored(shop: &mut Shop<'_>, page: &mut Page) {
    let command = page.approves(shop, "cutover rollback --restore-db");
    written_while(shop.app.site(), "restored", command).await;
    serves(shop.app, "third").await;
    assert_eq!(shop.query(&format!("{ALL} where text = 'since'")).await, "0");

    shop.means(SNAPSHOT, &newest(&page.does(shop, "cutover snapshot list").await));
    page.does(shop, "cutover snapshot restore main_20261126T040506007Z_7f3c9e1.dump.zst --to since").await;
    let command = "cutover exec postgres psql -U shop -d since -c \"select * from orders where placed > now() - interval '1 day'\"";
    let orders = page.does(shop, command).await;
    assert!(orders.contains(" since "), "{orders}");
    page.does(shop, "cutover exec postgres dropdb -U shop since").await;
}

/// What was written since stays.
async fn taken_back(shop: &mut Shop<'_>, page: &mut Page) {
    shop.deploy("renamed again", RENAMED).await;
    shop.query("insert into orders values ('later')").await;

    shop.under_traffic("down", "text", page.approves(shop, "cutover rollback --migrate-down")).await;

    serves(shop.app, "third").await;
    assert_eq!(shop.query(&format!("{ALL} where text = 'later'")).await, "1");
}
