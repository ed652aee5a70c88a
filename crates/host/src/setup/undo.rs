//! `teardown`: what setup did is undone, by its record; data, packages and what runs stay.

use std::collections::BTreeSet;

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::names::AppId;
use cutover_core::setup::{AppSetup, Ingress, Record, engine_file_without, place};

use super::system::{ask, run};
use super::{apart, carry, files, firewall, program, record, sshd, trial, units};

const UNITS: [&str; 4] = [place::WATCH_UNIT, place::PROXY_UNIT, place::FIREWALL_UNIT, place::DEAD_MAN_UNIT];
const FILES: [&str; 4] = [place::FIREWALL, place::SSHD, place::LOGROTATE, place::UPGRADES];

/// What it would do.
///
/// # Errors
/// When the server was set up for other apps only.
pub fn look(layout: &Layout, app: &AppId) -> Result<Vec<String>, Failure> {
    let record = record::read(layout)?;
    if let Some(stays) = of_others(&record, &record::read_with_deployed(layout)?, app)? {
        return Ok(stays);
    }
    Ok(lines(&record))
}

/// Where other apps need this server, those that are deployed and were never set up (`known`) included: what giving up this one comes to;
/// `None`: there are none.
fn of_others(record: &Record, known: &Record, app: &AppId) -> Result<Option<Vec<String>>, Failure> {
    let name = app.to_string();
    let others: Vec<&str> = known.apps.keys().filter(|other| **other != name).map(String::as_str).collect();
    if others.is_empty() {
        return Ok(None);
    }
    let Some(given_up) = record.apps.get(&name) else { return Err(of_others_only(&others, app)) };
    let mut lines = vec![format!("{app} needs this server no longer")];
    if let Some(ports) = closed(given_up, &known.without(app)) {
        lines.push(format!("the next `cutover setup` of another app closes {ports}"));
    }
    lines.push(format!("all else stays, for {}", others.join(", ")));
    lines.push(format!("what runs of {app} goes on: `cutover remove` takes it off"));
    Ok(Some(lines))
}

/// What is open for an app alone, for people; `None`: nothing.
fn closed(app: &AppSetup, others: &Record) -> Option<String> {
    let others = || others.apps.values();
    let tcp = app.open.iter().filter(|port| !others().any(|other| other.open.contains(port)));
    let udp = app.open_udp.iter().filter(|port| !others().any(|other| other.open_udp.contains(port)));
    let mut all: Vec<String> = tcp.map(u16::to_string).collect();
    all.extend(udp.map(|port| format!("{port}/udp")));
    if app.ingress == Ingress::Routes && !others().any(|other| other.ingress == Ingress::Routes) {
        all.push("the ports of routes".to_owned());
    }
    (!all.is_empty()).then(|| all.join(", "))
}

/// The app was taken off this server (`remove`): nothing is kept for it any more. Tells what that closes; `None`: nothing.
///
/// # Errors
/// When another changes this server, or the record cannot be read or written.
pub(crate) fn removed(layout: &Layout, app: &AppId) -> Result<Option<String>, Failure> {
    if !record::read(layout)?.apps.contains_key(&app.to_string()) {
        return Ok(None);
    }
    let _alone = carry::alone(layout)?;
    let record = record::read(layout)?;
    record::write(layout, &record.without(app))?;
    let others = record::read_with_deployed(layout)?.without(app);
    let ports = record.apps.get(&app.to_string()).and_then(|app| closed(app, &others));
    Ok(ports.map(|ports| format!("the next `cutover setup` of another app on this server closes {ports}")))
}

fn of_others_only(others: &[&str], app: &AppId) -> Failure {
    Failure::new(Exit::Refused, format!("this server is not set up for {app}"))
        .because(format!("it is for {}", others.join(", ")))
        .next(format!("`cutover remove` takes {app} off and leaves the server as it is"))
        .next("once the others are removed, teardown of the last one gives the server back")
}

fn lines(record: &Record) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let files = ours(record);
    if files.contains(&format!("{}/{}", place::UNITS, place::PROXY_UNIT)) {
        lines.push("routes are served no longer".to_owned());
    }
    let units = UNITS.iter().filter(|unit| files.contains(&format!("{}/{unit}", place::UNITS)));
    lines.extend(units.map(|unit| format!("stop {unit}, now and at boot")));
    lines.extend(files.iter().map(|file| format!("remove {file}")));
    if !record.engine_keys.is_empty() {
        let keys: Vec<&str> = record.engine_keys.keys().map(String::as_str).collect();
        lines.push(format!("take {} out of {}", keys.join(", "), place::ENGINE));
    }
    let user = if record.user { " and the deploy user with its keys" } else { "" };
    lines.push(format!("remove {}{user}", place::LINK));
    if !record.packages.is_empty() {
        let names: Vec<&str> = record.packages.iter().map(String::as_str).collect();
        lines.push(format!("packages stay: {}", names.join(", ")));
    }
    lines.push(
        "data stays: /var/lib/cutover, /var/backups/cutover, /var/log/cutover, volumes and containers"
            .to_owned(),
    );
    lines
}

/// Undoes it. Done again when it was broken off.
///
/// # Errors
/// When the server was set up for other apps only; at the first step that fails.
pub async fn undo(layout: &Layout, app: &AppId) -> Result<Vec<String>, Failure> {
    let _alone = carry::alone(layout)?;
    apart::over(layout).await?;
    let record = record::read(layout)?;
    if let Some(stays) = of_others(&record, &record::read_with_deployed(layout)?, app)? {
        record::write(layout, &record.without(app))?;
        return Ok(stays);
    }
    trial::clear(layout).await?;
    trial::forget(layout)?;
    let done = lines(&record);
    if units::is_systemd() {
        for unit in UNITS {
            // One that is gone already is as good.
            ask(&["systemctl", "disable", "--now", unit]).await;
        }
    }
    let files = ours(&record);
    take_off(layout, &record, &files).await.map_err(|failure| after_stop(failure, &files))?;
    Ok(done)
}

/// Proxy and watch were stopped first: what fails after that must not say that anything serves.
fn after_stop(failure: Failure, files: &BTreeSet<String>) -> Failure {
    if !files.contains(&format!("{}/{}", place::UNITS, place::PROXY_UNIT)) {
        return failure;
    }
    failure
        .while_serving("proxy and watch are stopped: instances run on, nobody passes requests to them")
        .next("`cutover teardown` again goes on from there; `cutover setup` brings them back")
}

/// All that is left once the units were stopped.
async fn take_off(layout: &Layout, record: &Record, files: &BTreeSet<String>) -> Result<(), Failure> {
    firewall::unload().await?;
    for file in files {
        files::remove(file)?;
    }
    if files.contains(place::SSHD) {
        sshd::reload().await?;
    }
    engine_file(record)?;
    super::keys::remove_user(record.user).await?;
    if units::is_systemd() {
        run("let systemd forget the units", &["systemctl", "daemon-reload"]).await?;
    }
    files::remove(place::LINK)?;
    program::proved(layout);
    record::forget(layout)
}

/// Files that are ours: by the record, and where that was lost by what they say of themselves.
fn ours(record: &Record) -> BTreeSet<String> {
    let units = UNITS.iter().map(|unit| format!("{}/{unit}", place::UNITS));
    let known = FILES.iter().map(|file| (*file).to_owned()).chain(units);
    let says_so =
        |path: &String| files::read(path).is_some_and(|text| text.contains("Written by cutover setup"));
    record.files.iter().cloned().chain(known.filter(says_so)).collect()
}

/// It takes effect when the engine is started next: nothing that runs is restarted for it.
fn engine_file(record: &Record) -> Result<(), Failure> {
    let Some(text) = files::read(place::ENGINE).filter(|_| !record.engine_keys.is_empty()) else {
        return Ok(());
    };
    match engine_file_without(&text, &record.engine_keys) {
        Ok(Some(left)) => files::write(place::ENGINE, &left, files::mode(place::ENGINE).unwrap_or(0o644)),
        Ok(None) => files::remove(place::ENGINE),
        // Somebody made it something else: it is theirs.
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn needs(open: &[u16], open_udp: &[u16]) -> AppSetup {
        AppSetup {
            ingress: Ingress::None,
            open: open.iter().copied().collect(),
            open_udp: open_udp.iter().copied().collect(),
        }
    }

    #[test]
    fn one_of_two_apps_is_given_up_alone_and_the_last_one_gives_the_server_back() {
        let (shop, other): (AppId, AppId) =
            ("shop/production".parse().unwrap(), "shop/staging".parse().unwrap());
        let apps = [(shop.to_string(), needs(&[8443], &[51820])), (other.to_string(), needs(&[], &[]))];
        let record = Record { apps: BTreeMap::from(apps), ..Record::default() };

        let told = of_others(&record, &record, &shop).unwrap().unwrap().join("\n");

        let expected = "shop/production needs this server no longer\n\
             the next `cutover setup` of another app closes 8443, 51820/udp\n\
             all else stays, for shop/staging\n\
             what runs of shop/production goes on: `cutover remove` takes it off";
        assert_eq!(told, expected);
        let left = record.without(&shop);
        assert_eq!(of_others(&left, &left, &other).unwrap(), None);
        assert_eq!(
            of_others(&left, &left, &shop).unwrap_err().exit,
            Exit::Refused,
            "it is not its server any more"
        );
    }

    #[test]
    fn what_fails_once_the_units_were_stopped_says_that_nobody_serves() {
        let unit = format!("{}/{}", place::UNITS, place::PROXY_UNIT);
        let failed = || super::super::system::failed("remove the deploy user");

        assert!(after_stop(failed(), &[unit].into()).state.starts_with("proxy and watch are stopped"));
        assert_eq!(after_stop(failed(), &BTreeSet::new()), failed(), "where none were, as before");
    }

    #[test]
    fn an_app_that_was_only_deployed_keeps_the_server_and_is_named() {
        let (shop, blog): (AppId, AppId) =
            ("shop/production".parse().unwrap(), "blog/production".parse().unwrap());
        let apps = BTreeMap::from([(shop.to_string(), needs(&[], &[]))]);
        let record = Record { apps, ..Record::default() };
        let known = record.clone().with_deployed(&blog, Ingress::Routes);

        let told = of_others(&record, &known, &shop).unwrap().unwrap().join("\n");

        assert!(told.contains("all else stays, for blog/production"), "{told}");
        let nobodys = Record::default().with_deployed(&blog, Ingress::Routes);
        let failure = of_others(&Record::default(), &nobodys, &shop).unwrap_err();
        assert_eq!((failure.exit, failure.cause[0].as_str()), (Exit::Refused, "it is for blog/production"));
    }

    #[test]
    fn an_app_that_was_removed_holds_no_ports_open() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        let (shop, other): (AppId, AppId) =
            ("shop/production".parse().unwrap(), "shop/staging".parse().unwrap());
        assert_eq!(
            removed(&layout, &shop).unwrap(),
            None,
            "where nothing was set up there is nothing to tell"
        );
        let apps = [(shop.to_string(), needs(&[8443], &[])), (other.to_string(), needs(&[], &[]))];
        record::write(&layout, &Record { apps: BTreeMap::from(apps), ..Record::default() }).unwrap();

        let told = removed(&layout, &shop).unwrap();

        assert_eq!(told.unwrap(), "the next `cutover setup` of another app on this server closes 8443");
        assert_eq!(removed(&layout, &other).unwrap(), None);
        assert!(record::read(&layout).unwrap().apps.is_empty());
    }
}
