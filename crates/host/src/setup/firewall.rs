//! Our table in the kernel's packet filter.

use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::setup::place;
use serde::{Deserialize, Serialize};

use super::record;
use super::system::{ask, failed, run};
use crate::files;

const TABLE: [&str; 5] = ["nft", "list", "table", "inet", "cutover"];

/// The rules as they were loaded, if the kernel still has them so.
pub(super) async fn loaded(layout: &Layout) -> Option<String> {
    let listed = ask(&TABLE).await;
    let folder = record::folder(layout);
    let as_loaded = std::fs::read_to_string(folder.join("firewall.listed")).ok()?;
    let rules = std::fs::read_to_string(folder.join("firewall.nft")).ok()?;
    (listed.ok && listed.out == as_loaded).then_some(rules)
}

/// Whether rules that are to be there are not: somebody threw all away (`nft flush ruleset`).
pub async fn is_gone() -> bool {
    let is_kept = std::path::Path::new(place::FIREWALL).exists();
    is_kept && rustix::process::geteuid().is_root() && !ask(&TABLE).await.ok
}

/// What the kernel has of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(super) enum Table {
    /// There is no such table.
    None,
    /// As it was loaded.
    AsLoaded { rules: String },
    /// Somebody added to it, or another nft lists it in other words.
    Other { listed: String },
}

/// What is there before it is changed.
///
/// # Errors
/// When it cannot be told whether there is anything.
pub(super) async fn table(layout: &Layout) -> Result<Table, Failure> {
    if let Some(rules) = loaded(layout).await {
        return Ok(Table::AsLoaded { rules });
    }
    let what = "look at the firewall";
    let tables = run(what, &["nft", "list", "tables"]).await?;
    if !tables.lines().any(|line| line.trim() == "table inet cutover") {
        return Ok(Table::None);
    }
    Ok(Table::Other { listed: run(what, &TABLE).await? })
}

/// Lets the kernel have again what it had.
pub(super) async fn put_back(layout: &Layout, table: &Table) -> Result<(), Failure> {
    match table {
        Table::None => unload().await,
        Table::AsLoaded { rules } => load(layout, rules).await,
        Table::Other { listed } => {
            let file = record::folder(layout).join("firewall.before.nft");
            let put_back = "put the firewall back";
            files::replace(&file, replaces(listed).as_bytes(), 0o600)
                .map_err(|error| failed(put_back).because(error.to_string()))?;
            run(put_back, &["nft", "-f", &file.to_string_lossy()]).await.map(drop)
        }
    }
}

/// What `nft` lists, as a file that it loads in the place of what is there.
fn replaces(listed: &str) -> String {
    format!("table inet cutover\ndelete table inet cutover\n{listed}")
}

/// Loads rules in the place of those there are, and keeps how the kernel lists them.
pub(super) async fn load(layout: &Layout, rules: &str) -> Result<(), Failure> {
    let folder = record::folder(layout);
    let file = folder.join("firewall.nft");
    let unkept = |error: crate::files::FileError| failed("load the firewall").because(error.to_string());
    files::ensure_folder(&folder, 0o700).map_err(unkept)?;
    files::replace(&file, rules.as_bytes(), 0o600).map_err(unkept)?;
    run("load the firewall", &["nft", "-f", &file.to_string_lossy()]).await?;
    note(layout).await
}

/// Keeps how the kernel lists what was loaded.
async fn note(layout: &Layout) -> Result<(), Failure> {
    let listed = run("list the firewall", &TABLE).await?;
    files::replace(&record::folder(layout).join("firewall.listed"), listed.as_bytes(), 0o600)
        .map_err(|error| failed("load the firewall").because(error.to_string()))
}

/// Takes our rules out.
pub(super) async fn unload() -> Result<(), Failure> {
    if ask(&TABLE).await.ok {
        run("take the firewall away", &["nft", "delete", "table", "inet", "cutover"]).await?;
    }
    Ok(())
}
