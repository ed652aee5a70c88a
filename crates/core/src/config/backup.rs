//! Backups: where they go, when, and with what they are encrypted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::civil::Time;

use super::problem::{Draft, Issues, ProblemKind};
use super::read::At;
use super::run::Context;
use super::settings::{Config, DatabaseEngine, Mount, RunSettings};
use super::{service, value};
use crate::backup::{Access, BackupSettings, Drill, Keep, Still, Target};
use crate::defaults;
use crate::names::{DatabaseName, ServiceName, VolumeName};
use crate::template::{Piece, Template};

const DAY: Duration = Duration::from_hours(24);
const LEAST: Duration = Duration::from_hours(1);
const MOST: Duration = Duration::from_hours(31 * 24);

const EXAMPLE: &str = "backup: { to: \"sftp:user@host:/backups\", password: \"${BACKUP_PASSWORD}\" }";
/// A way to a password that lies in two places.
const KEEP_IT: &str = "make one (`openssl rand -base64 32`), keep it where you find it when this host is gone (a password manager, an \
                       envelope), and give it to the host: `cutover env set BACKUP_PASSWORD --no-deploy`";

/// Reads `hour`, `day`, `week` or a duration.
pub(crate) fn every(text: &str) -> Result<Duration, String> {
    let time = match text {
        "hour" => LEAST,
        "day" => DAY,
        "week" => DAY * 7,
        other => value::duration(other)?,
    };
    if (LEAST..=MOST).contains(&time) { Ok(time) } else { Err(format!("`{text}` is not from 1h to 31 days")) }
}

/// Reads `03:00`.
pub(crate) fn time_of_day(text: &str) -> Result<Time, String> {
    let wrong = || format!("`{text}` is not a time of day");
    let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<i8>().ok()).flatten()
    };
    let (hours, minutes) = (number(hours).ok_or_else(wrong)?, number(minutes).ok_or_else(wrong)?);
    Time::new(hours, minutes, 0, 0).map_err(|_| wrong())
}

/// Reads `backup`. `None` when there is none, or not enough of it: then that is among the problems.
pub(crate) fn backup(root: &At<'_>, context: &mut Context<'_>) -> Option<BackupSettings> {
    let at = root.get("backup")?;
    let missing: Vec<&str> = ["to", "password"].into_iter().filter(|key| at.get(key).is_none()).collect();
    if !missing.is_empty() {
        if !context.issues.has_at(&at.path) {
            let what = format!("a backup needs `{}`", missing.join("` and `"));
            context.issues.add(at.problem(ProblemKind::Missing, what).remedy(EXAMPLE));
        }
        return None;
    }
    let to: Target = at.parsed("to")?;
    let every = at.get("every").and_then(|at| every(at.text()?).ok()).unwrap_or(defaults::BACKUP_EVERY);
    let time = at.get("at").and_then(|at| time_of_day(at.text()?).ok());
    if let (Some(place), true) = (at.get("at"), every < DAY) {
        let what = "a time of day is for backups that come in whole days";
        let draft = place.problem(ProblemKind::Conflict, what).also(at.place("every"));
        context.issues.add(draft.remedy("leave `at` away, or write `every: day`"));
    }
    if let Some(folder) = to.folder() {
        context.issues.note(format!(
            "backups go to {folder} of the host itself: they are gone with it, unless another machine's disk is mounted there"
        ));
    }
    let (password, access) = (reference(&at, "password", context), access(&at, &to, context));
    Some(BackupSettings {
        password: password?,
        access,
        keep: keep(&at),
        drill: at.get("drill").map(|at| drill(&at, root, context)),
        volumes: volumes(&at, context),
        at: time.filter(|_| every >= DAY),
        to,
        every,
    })
}

fn keep(at: &At<'_>) -> Keep {
    let default = Keep::default();
    let Some(at) = at.get("keep") else { return default };
    Keep {
        daily: at.parsed("daily").unwrap_or(default.daily),
        weekly: at.parsed("weekly").unwrap_or(default.weekly),
        monthly: at.parsed("monthly").unwrap_or(default.monthly),
    }
}

/// Reads `backup.drill`.
fn drill(at: &At<'_>, root: &At<'_>, context: &mut Context<'_>) -> Drill {
    let every = at.get("every").and_then(|at| every(at.text()?).ok());
    let known = root.get("databases");
    let mut checks = BTreeMap::new();
    for (name, _, asked) in at.get("checks").iter().flat_map(|checks| checks.entries().collect::<Vec<_>>()) {
        if known.as_ref().is_none_or(|known| known.get(name).is_none()) {
            let what = format!("there is no database `{name}` to check");
            context.issues.add(asked.problem(ProblemKind::Refused, what).remedy("name one of `databases`"));
        } else if let Ok(database) = name.parse::<DatabaseName>() {
            checks.insert(database, asked.texts_here().into_iter().map(str::to_owned).collect());
        }
    }
    Drill { every, checks }
}

/// Reads `backup.volumes`. What is wrong with one is among the problems.
fn volumes(at: &At<'_>, context: &mut Context<'_>) -> BTreeMap<VolumeName, Still> {
    let entries = at.get("volumes").map(|all| all.entries().collect::<Vec<_>>()).unwrap_or_default();
    let read =
        entries.into_iter().filter_map(|(name, _, at)| Some((name.parse().ok()?, still(&at, context)?)));
    read.collect()
}

/// Reads one of `backup.volumes`.
fn still(at: &At<'_>, context: &mut Context<'_>) -> Option<Still> {
    let hooks = ["service", "before", "after"];
    let Some(pause) = at.get("pause") else {
        let missing: Vec<&str> = hooks[..2].iter().copied().filter(|key| at.get(key).is_none()).collect();
        if !missing.is_empty() {
            if !context.issues.has_at(&at.path) {
                let what =
                    format!("`{}` is missing: nothing keeps the volume as it is", missing.join("` and `"));
                let draft = at.problem(ProblemKind::Missing, what);
                context.issues.add(draft.remedy(
                    "{ service: web, before: ./app freeze, after: ./app thaw }, or { pause: [web] }",
                ));
            }
            return None;
        }
        return Some(Still::Hook {
            service: at.parsed("service")?,
            before: at.settled_command("before", &mut context.issues)?,
            after: if at.get("after").is_some() {
                at.settled_command("after", &mut context.issues)?
            } else {
                Vec::new()
            },
            timeout: timeout(at, defaults::BACKUP_HOOK, context),
        });
    };
    if let Some((key, other)) = hooks.iter().find_map(|key| Some((key, at.get(key)?))) {
        let what =
            format!("`{key}` is for an app that keeps the volume as it is, and `pause` for one that cannot");
        let draft = other.problem(ProblemKind::Conflict, what).also(at.place("pause"));
        context.issues.add(draft.remedy("leave one of them away"));
        return None;
    }
    let services: BTreeSet<ServiceName> =
        pause.texts_here().into_iter().filter_map(|name| name.parse().ok()).collect();
    if services.is_empty() {
        let draft = pause.problem(ProblemKind::Missing, "`pause` names no service");
        context.issues.add(draft.remedy("name those that write to the volume"));
        return None;
    }
    Some(Still::Pause { services, timeout: timeout(at, defaults::BACKUP_PAUSE, context) })
}

fn timeout(at: &At<'_>, default: Duration, context: &mut Context<'_>) -> Duration {
    let Some(given) = at.get("timeout") else { return default };
    let Some(time) = at.duration("timeout") else { return default };
    let (least, most) = (Duration::from_secs(1), defaults::BACKUP_STILL_MOST);
    service::within(&given, "`timeout`", time, least, most, &mut context.issues);
    time
}

/// What is to keep a volume as it is has to be there, and to use it.
pub(crate) fn refuse_unused(settings: &BackupSettings, config: &Config, root: &At<'_>, issues: &mut Issues) {
    let Some(all) = root.get("backup").and_then(|at| at.get("volumes")) else { return };
    // One pause follows the other, and between them nobody is answered either.
    let mut pauses: BTreeMap<ServiceName, Duration> = BTreeMap::new();
    for (volume, still) in &settings.volumes {
        let Some(at) = all.get(volume.as_str()) else { continue };
        let users = users(config, volume);
        if users.is_empty() {
            let what = format!("nothing uses a volume `{volume}`");
            issues.add(at.problem(ProblemKind::Refused, what).remedy("name a volume that a service mounts"));
            continue;
        }
        if let Still::Pause { services, timeout } = still {
            let mut routed = services.iter().filter(|name| has_route(config, name));
            let long = routed.find(|name| {
                let pause = pauses.entry((*name).clone()).or_default();
                *pause += *timeout;
                *pause > defaults::BACKUP_PAUSE_ROUTED
            });
            if let Some(routed) = long {
                let what = format!("`{routed}` has a route, and requests do not wait so long for an answer");
                let draft = Draft::new(ProblemKind::Refused, at.place("timeout"), &at.path, what);
                let most = defaults::BACKUP_PAUSE_ROUTED.as_secs();
                issues.add(draft.remedy(format!("at most {most} s for all volumes together")));
            }
        }
        for service in still.services() {
            let place = at.get("pause").or_else(|| at.get("service"));
            let Some(place) = place.filter(|_| !users.contains(service)) else { continue };
            let is_there = config.services.contains_key(service) || config.backing.contains_key(service);
            let what = if is_there {
                format!("service `{service}` does not use volume `{volume}`")
            } else {
                format!("there is no service `{service}`")
            };
            let known: Vec<String> = users.iter().map(|service| format!("`{service}`")).collect();
            let remedy = format!("volume `{volume}` is used by {}", known.join(", "));
            issues.add(place.problem(ProblemKind::Refused, what).remedy(remedy));
        }
    }
}

fn has_route(config: &Config, name: &ServiceName) -> bool {
    config.services.get(name).is_some_and(|service| service.route.is_some())
}

/// Who mounts a volume, or has a database in it.
fn users<'c>(config: &'c Config, volume: &VolumeName) -> BTreeSet<&'c ServiceName> {
    let mounts = |run: &RunSettings| {
        run.mounts
            .iter()
            .any(|mount| matches!(mount, Mount::Volume { volume: mounted, .. } if mounted == volume))
    };
    let services = config.services.iter().map(|(name, service)| (name, &service.run));
    let backing = config.backing.iter().map(|(name, backing)| (name, &backing.run));
    let mounting = services.chain(backing).filter(|(_, run)| mounts(run)).map(|(name, _)| name);
    let opening = config.databases.values().flat_map(|database| match &database.engine {
        DatabaseEngine::Sqlite { volume: of, services, .. } if of == volume => services.as_slice(),
        DatabaseEngine::Sqlite { .. } | DatabaseEngine::Server { .. } => &[],
    });
    mounting.chain(opening).collect()
}

fn access(at: &At<'_>, to: &Target, context: &mut Context<'_>) -> Option<Access> {
    for key in ["key", "secret"] {
        match at.get(key) {
            Some(place) if !to.is_s3() => {
                let what = format!("`{key}` is for `s3:`; {} needs none", to.as_str());
                context.issues.add(place.problem(ProblemKind::Conflict, what));
                return None;
            }
            None if to.is_s3() => {
                let draft = at.problem(ProblemKind::Missing, format!("backups to `s3:` need `{key}`"));
                context.issues.add(draft.remedy(format!("{key}: \"${{S3_{}}}\"", key.to_uppercase())));
                return None;
            }
            Some(_) | None => {}
        }
    }
    Some(Access { key: reference(at, "key", context)?, secret: reference(at, "secret", context)? })
}

/// A secret stands in no file of the repository.
fn reference(at: &At<'_>, key: &str, context: &mut Context<'_>) -> Option<Template> {
    let place = at.get(key)?;
    let template = place.template()?;
    if template.pieces().iter().any(|piece| matches!(piece, Piece::Variable { .. })) {
        return Some(template);
    }
    let what = format!("the `{key}` of the backups is written in the file");
    let remedy = if key == "password" { KEEP_IT } else { "put it into the env file, and refer to it" };
    context.issues.add(place.problem(ProblemKind::Refused, what).remedy(remedy));
    None
}

/// A value that is made on the host is nowhere else: the backups could not be read when they are needed.
pub(crate) fn refuse_key_of_host(
    settings: &BackupSettings,
    generated: &std::collections::BTreeSet<crate::names::VariableName>,
    root: &At<'_>,
) -> Option<Draft> {
    let name = settings.password.variables().into_iter().find(|name| generated.contains(*name))?;
    let place = root.get("backup")?.get("password")?;
    let what = format!(
        "the backups' password is `{name}`, which is made on the host when it is absent: with the host the only key to its backups would be lost"
    );
    Some(place.problem(ProblemKind::Refused, what).remedy(KEEP_IT))
}
