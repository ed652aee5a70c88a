//! Packages of the distribution: asked for by name, without questions; another process that installs is waited for.

use std::collections::BTreeSet;
use std::time::Duration;

use cutover_core::failure::Failure;

use super::system::{ask, run_within};

/// For packages to come and be set up.
const LONG: Duration = Duration::from_mins(15);
/// For another process to let go of the package manager, in seconds.
const LOCK: &str = "DPkg::Lock::Timeout=300";

/// Lists that could not be fetched are a failure; without this apt warns of them.
const ALL_OR_FAIL: &str = "APT::Update::Error-Mode=any";

/// Those that are installed, of `names`.
pub(super) async fn installed(names: &[&str]) -> BTreeSet<String> {
    let mut words = vec!["dpkg-query", "-W", "-f=${Package} ${db:Status-Abbrev}\n"];
    words.extend(names);
    // It fails where one of them is not known, and tells of the others all the same.
    let said = ask(&words).await;
    let lines = said.out.lines().filter_map(|line| line.split_once(' '));
    lines.filter(|(_, state)| state.trim() == "ii").map(|(name, _)| name.to_owned()).collect()
}

pub(super) async fn install(names: &BTreeSet<String>) -> Result<(), Failure> {
    let list = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let what = format!("install {list}");
    let mut words = vec!["apt-get", "install", "-y", "-q", "--no-install-recommends", "-o", LOCK];
    words.extend(["-o", "Dpkg::Options::=--force-confold"]);
    words.extend(names.iter().map(String::as_str));
    // It waits for whoever installs already: on a new server often its first upgrades.
    if run_within(&what, &words, LONG).await.is_ok() {
        return Ok(());
    }
    // What was broken off stands in the way of every install.
    if !ask(&["dpkg", "--audit"]).await.out.trim().is_empty() {
        let repair = ["dpkg", "--configure", "-a", "--force-confold"];
        run_within("finish an installation that was broken off", &repair, LONG).await?;
    }
    // The lists may be old, or never have been fetched.
    let fetch = ["apt-get", "update", "-q", "-o", LOCK, "-o", ALL_OR_FAIL];
    let update = run_within("fetch the lists of packages", &fetch, LONG).await;
    let installed = run_within(&what, &words, LONG).await;
    installed.map(drop).map_err(|mut failure| {
        // What could not be fetched says why there is nothing to install.
        let why = update.err().map(|failure| failure.cause).unwrap_or_default();
        failure.cause.splice(..0, why);
        failure
            .next("see that this server reaches its package mirror: `apt-get update` there")
            .next(format!("or install {list} by hand, and run `cutover setup` again"))
    })
}
