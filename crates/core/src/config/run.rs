//! How an instance runs: the Compose keys that services and backing services share.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::compose_keys::{NOT_FOR_A_PROCESS, NOT_KEPT_FOR_A_PROCESS, NOTHING_TO_A_PROCESS};
use super::fill::Known;
use super::problem::{Draft, Issues, ProblemKind};
use super::read::{At, literal};
use super::service::within;
use super::settings::{
    BuildPlace, BuildSettings, DependsOn, Healthcheck, Logging, OneOff, Origin, OwnHealthcheck, RunSettings,
    Source, StopSettings,
};
use super::tree::Value;
use super::{mounts, value};
use crate::defaults;
use crate::names::{ServiceName, VariableName, VolumeName};
use crate::template::Template;

/// What the sections share while they are read.
pub(crate) struct Context<'s> {
    pub(crate) issues: Issues,
    pub(crate) known: &'s Known,
    /// Names of services and of backing services, for references and their nearest.
    pub(crate) services: BTreeSet<String>,
    pub(crate) backing: BTreeSet<String>,
    /// Texts of env files by path.
    pub(crate) env_files: &'s BTreeMap<String, String>,
    /// Values that env files gave to names, to tell contradictions.
    pub(crate) from_files: BTreeMap<VariableName, crate::secret::Secret>,
    /// Volumes that services name.
    pub(crate) volumes: BTreeSet<VolumeName>,
    /// Images that migrations have of their own.
    pub(crate) one_offs: BTreeMap<ServiceName, OneOff>,
}

/// What a service is made from; `None` when that was a problem.
pub(crate) fn source(at: &At<'_>, name: &str, issues: &mut Issues) -> Option<Source> {
    let given: Vec<&str> =
        ["build", "image", "artifact"].into_iter().filter(|key| at.get(key).is_some()).collect();
    match given.as_slice() {
        ["build", "image"] => {
            issues.note(format!("`{}.image` has no effect: the image is built", at.path));
            Some(Source::Build(build(&at.get("build")?)))
        }
        ["build"] => Some(Source::Build(build(&at.get("build")?))),
        ["image"] => image(&at.get("image")?, issues),
        ["artifact"] => artifact(at, issues),
        [] => {
            if !issues.has_at(&at.path) {
                let what =
                    format!("`{name}` has nothing to run: one of `build`, `image` or `artifact` is needed");
                let draft = Draft::new(ProblemKind::Missing, at.node.span, &at.path, what);
                issues.add(draft.remedy(
                    "`build: .` builds a Dockerfile; `artifact: FOLDER` with `command` runs plain processes",
                ));
            }
            None
        }
        [first, .., last] => {
            let what = format!("`{first}` and `{last}` are both given: a service is made from one of them");
            issues
                .add(Draft::new(ProblemKind::Conflict, at.place(last), &at.path, what).also(at.place(first)));
            None
        }
        [_] => None,
    }
}

fn build(at: &At<'_>) -> BuildSettings {
    let default = BuildSettings {
        context: ".".to_owned(),
        dockerfile: "Dockerfile".to_owned(),
        target: None,
        args: BTreeMap::new(),
        on: BuildPlace::Here,
    };
    if let Some(context) = at.text() {
        return BuildSettings { context: folder(context), ..default };
    }
    let args = at.get("args").map(|args| texts(&args)).unwrap_or_default();
    BuildSettings {
        context: at.string("context").map_or(default.context, |context| folder(&context)),
        dockerfile: at.string("dockerfile").unwrap_or(default.dockerfile),
        target: at.string("target"),
        args,
        on: if at.string("on").as_deref() == Some("host") { BuildPlace::Host } else { BuildPlace::Here },
    }
}

/// The same folder always gives the same text, so that the same build is one image.
pub(crate) fn folder(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

fn image(at: &At<'_>, issues: &mut Issues) -> Option<Source> {
    let reference = at.text()?;
    if reference.is_empty() || reference.contains(char::is_whitespace) || reference.starts_with('-') {
        issues.add(at.problem(ProblemKind::Value, format!("`{reference}` is not an image's reference")));
        return None;
    }
    Some(Source::Image { reference: reference.to_owned() })
}

/// An image whose reference may mean another version tomorrow is worth a note.
pub(crate) fn note_floating(at: &At<'_>, reference: &str, issues: &mut Issues) {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    let why = match last.split_once(':') {
        _ if last.contains('@') => return,
        None => "has no tag",
        Some((_, "latest")) => "is no version",
        Some(_) => return,
    };
    issues.note(format!("`{}.image`: `{reference}` {why}: the next start may bring another one", at.path));
}

fn artifact(at: &At<'_>, issues: &mut Issues) -> Option<Source> {
    let path = folder(at.get("artifact")?.text()?);
    if at.get("command").is_none() {
        let what = "an artifact needs a `command`: there is no image to name one";
        issues.add(
            Draft::new(ProblemKind::Missing, at.place("artifact"), &at.path, what)
                .remedy("command: ./program"),
        );
    }
    if at.get("port").is_some() {
        issues.note(format!(
            "`{}.port`: a plain process is told its port in `PORT`, whatever stands there",
            at.path
        ));
    }
    for (key, instead) in NOT_FOR_A_PROCESS {
        if at.get(key).is_some() {
            let what = format!("`{key}` is for containers, and this runs as plain processes");
            let draft = Draft::new(ProblemKind::Refused, at.place(key), &format!("{}.{key}", at.path), what);
            issues.add(draft.remedy(*instead));
        }
    }
    for key in NOTHING_TO_A_PROCESS.iter().filter(|key| at.get(key).is_some()) {
        issues.note(format!("`{}.{key}` has no effect: it means nothing to a plain process", at.path));
    }
    let is_there = |path: &str| path.split('.').try_fold(at.clone(), |at, key| at.get(key)).is_some();
    for key in NOT_KEPT_FOR_A_PROCESS.iter().filter(|key| is_there(key)) {
        issues.note(format!(
            "`{}.{key}` is not kept for plain processes: set it on what starts `cutover-host up`, or use an image",
            at.path
        ));
    }
    Some(Source::Artifact { path })
}

/// Reads the settings that services and backing services share. `environment` is what all services have.
pub(crate) fn run(
    at: &At<'_>,
    shared: Option<&At<'_>>,
    process: bool,
    context: &mut Context<'_>,
) -> RunSettings {
    if process {
        working_dir_below(at, &mut context.issues);
    }
    let limit = at.get("deploy").and_then(|deploy| deploy.get("resources")?.get("limits"));
    let cpus = |at: &At<'_>| value::cpus(at.get("cpus")?.text()?).ok();
    RunSettings {
        command: at.command("command"),
        entrypoint: at.command("entrypoint"),
        environment: environment(at, shared, context),
        stop: StopSettings {
            signal: at.string("stop_signal").map(|name| name.strip_prefix("SIG").unwrap_or(&name).to_owned()),
            grace: grace(at, &mut context.issues),
        },
        depends_on: depends_on(at, context),
        mounts: if process { Vec::new() } else { mounts::mounts(at, context) },
        ports: if process { Vec::new() } else { mounts::ports(at, context) },
        user: at.string("user"),
        working_dir: at.string("working_dir"),
        hostname: at.string("hostname"),
        read_only: at.flag("read_only").unwrap_or(false),
        init: at.flag("init"),
        cap_add: at.texts("cap_add"),
        cap_drop: at.texts("cap_drop"),
        security_opt: at.texts("security_opt"),
        memory: at.bytes("mem_limit").or_else(|| limit.as_ref()?.bytes("memory")),
        cpu_millis: cpus(at).or_else(|| cpus(limit.as_ref()?)),
        pids_limit: at.parsed("pids_limit").or_else(|| limit.as_ref()?.parsed("pids")),
        shm_size: at.bytes("shm_size"),
        ulimits: ulimits(at),
        sysctls: at.get("sysctls").map(|at| texts(&at)).unwrap_or_default(),
        extra_hosts: extra_hosts(at),
        dns: at.texts("dns"),
        devices: at.texts("devices"),
        labels: labels(at, &mut context.issues),
        logging: at.get("logging").map(|logging| Logging {
            driver: logging.string("driver").unwrap_or_else(|| "json-file".to_owned()),
            options: logging.get("options").map(|at| texts(&at)).unwrap_or_default(),
        }),
        healthcheck: healthcheck(at, &mut context.issues),
        platform: at.string("platform"),
    }
}

fn grace(at: &At<'_>, issues: &mut Issues) -> Duration {
    let given = at.get("stop_grace_period").zip(at.duration("stop_grace_period"));
    let Some((given, grace)) = given else { return defaults::STOP_GRACE };
    within(&given, "a stop", grace, Duration::ZERO, Duration::from_hours(1), issues);
    grace
}

/// A plain process works in its artifact, or below it.
fn working_dir_below(at: &At<'_>, issues: &mut Issues) {
    let Some(folder) = at.get("working_dir") else { return };
    if let Some(Err(_)) = folder.text().map(super::shape::relative) {
        let draft = folder.problem(ProblemKind::Value, "this folder does not lie below the artifact");
        issues.add(draft.remedy("name a folder of the artifact, or leave it out"));
    }
}

/// A map, or a list of `name=value`, of settled texts.
pub(crate) fn texts(at: &At<'_>) -> BTreeMap<String, String> {
    let of_item = |item: At<'_>| {
        let (name, value) = item.text()?.split_once('=').unwrap_or((item.text()?, ""));
        Some((name.to_owned(), value.to_owned()))
    };
    let items = at.items().filter_map(of_item);
    let entries =
        at.entries().map(|(key, _, value)| (key.to_owned(), value.text().unwrap_or_default().to_owned()));
    entries.chain(items).collect()
}

fn environment(
    at: &At<'_>,
    shared: Option<&At<'_>>,
    context: &mut Context<'_>,
) -> BTreeMap<VariableName, Template> {
    let mut variables = env_files(at, context);
    for at in shared.cloned().into_iter().chain(at.get("environment")) {
        for (key, span, value) in at.entries() {
            let Ok(name) = key.parse::<VariableName>() else { continue };
            let over = context.known.origins.get(&name).copied();
            let known = context.known.values.get(&name).map(|value| literal(value));
            let declared_only = matches!(value.node.value, Value::Null);
            let template = match over {
                Some(Origin::CommandLine) if declared_only => {
                    let what =
                        format!("`-v {name}=…` is refused: a name declared without a value is a secret");
                    let draft = Draft::new(ProblemKind::Conflict, span, &value.path, what);
                    context.issues.add(
                        draft.remedy(format!("keep the value in the env file: `cutover env set {name}`")),
                    );
                    None
                }
                Some(Origin::CommandLine | Origin::EnvironmentVariables) => known,
                _ if declared_only => format!("${{{name}}}").parse().ok(),
                _ => value.template(),
            };
            if template.as_ref().and_then(Template::as_text).is_some_and(crate::env_file::is_placeholder) {
                let draft = value
                    .problem(ProblemKind::Value, format!("the value of `{name}` is a placeholder still"));
                context.issues.add(
                    draft.remedy("write the value, or the name alone and keep its value in the env file"),
                );
            }
            variables.extend(template.map(|template| (name, template)));
        }
    }
    variables
}

/// Names that env files give; their values are secrets, and stay outside.
fn env_files(at: &At<'_>, context: &mut Context<'_>) -> BTreeMap<VariableName, Template> {
    let mut variables = BTreeMap::new();
    let files = at.get("env_file").map(|files| files.one_or_more()).unwrap_or_default();
    for file in files {
        let required = file.flag("required").unwrap_or(true);
        let Some(path) = file.text().map(str::to_owned).or_else(|| file.string("path")) else { continue };
        let Some(text) = context.env_files.get(&path) else {
            if required {
                let draft = file.problem(ProblemKind::Missing, format!("the env file `{path}` is not there"));
                context.issues.add(draft.remedy(
                    "create it with rights 0600, or declare the names in `environment` without a value",
                ));
            }
            continue;
        };
        match crate::env_file::parse(text) {
            Ok(secrets) => {
                for (name, value) in secrets.iter() {
                    if context.from_files.get(name).is_some_and(|other| other != value) {
                        let what = format!(
                            "`{path}` gives `{name}` another value than an env file before it; a release has one value for each name"
                        );
                        context.issues.add(file.problem(ProblemKind::Conflict, what));
                    }
                    context.from_files.insert(name.clone(), value.clone());
                    variables.extend(format!("${{{name}}}").parse().ok().map(|open| (name.clone(), open)));
                }
            }
            Err(errors) => {
                for error in errors {
                    context
                        .issues
                        .add(file.problem(ProblemKind::Value, format!("the env file `{path}`, {error}")));
                }
            }
        }
    }
    variables
}

fn depends_on(at: &At<'_>, context: &mut Context<'_>) -> BTreeMap<ServiceName, DependsOn> {
    let mut found = BTreeMap::new();
    let Some(at) = at.get("depends_on") else { return found };
    let listed = at.items().filter_map(|item| Some((item.text()?.to_owned(), item.node.span, item.clone())));
    let mapped = at.entries().map(|(key, span, value)| (key.to_owned(), span, value));
    for (name, span, value) in listed.chain(mapped) {
        // Backing services are up and healthy before any service starts.
        if context.backing.contains(&name) {
            continue;
        }
        if !context.services.contains(&name) {
            if value.flag("required").unwrap_or(true) {
                let known = context.services.iter().chain(&context.backing).map(String::as_str);
                let draft = Draft::new(
                    ProblemKind::Reference,
                    span,
                    &value.path,
                    format!("there is no service `{name}`"),
                );
                context.issues.add(draft.allowed(&name, known));
            }
            continue;
        }
        let condition = match value.string("condition").as_deref() {
            Some("service_healthy") => DependsOn::Healthy,
            _ => DependsOn::Started,
        };
        found.extend(name.parse().ok().map(|name: ServiceName| (name, condition)));
    }
    found
}

fn ulimits(at: &At<'_>) -> BTreeMap<String, (i64, i64)> {
    let Some(at) = at.get("ulimits") else { return BTreeMap::new() };
    let one = |value: &At<'_>| {
        if let Some(number) = value.text() {
            let number = number.parse().ok()?;
            return Some((number, number));
        }
        let (soft, hard) = (value.parsed("soft"), value.parsed("hard"));
        Some((soft.or(hard)?, hard.or(soft)?))
    };
    at.entries().filter_map(|(key, _, value)| Some((key.to_owned(), one(&value)?))).collect()
}

/// `name:address`, from a map or a list; `name=address` means the same.
fn extra_hosts(at: &At<'_>) -> Vec<String> {
    let Some(at) = at.get("extra_hosts") else { return Vec::new() };
    let listed = at.items().filter_map(|item| item.text().map(|text| text.replacen('=', ":", 1)));
    let mapped = at.entries().filter_map(|(key, _, value)| Some(format!("{key}:{}", value.text()?)));
    listed.chain(mapped).collect()
}

fn labels(at: &At<'_>, issues: &mut Issues) -> BTreeMap<String, String> {
    let Some(at) = at.get("labels") else { return BTreeMap::new() };
    let labels = texts(&at);
    if let Some(name) = labels.keys().find(|name| name.starts_with("cutover.")) {
        issues.add(at.problem(
            ProblemKind::Conflict,
            format!("`{name}`: labels that begin with `cutover.` are cutover's own"),
        ));
    }
    labels
}

fn healthcheck(at: &At<'_>, issues: &mut Issues) -> Option<OwnHealthcheck> {
    let at = at.get("healthcheck")?;
    if at.flag("disable") == Some(true) {
        return Some(OwnHealthcheck::Off);
    }
    let written = at.get("test")?;
    let words: Vec<String> = written.one_or_more().iter().filter_map(At::text).map(str::to_owned).collect();
    let shell = |text: String| vec!["/bin/sh".to_owned(), "-c".to_owned(), text];
    let words = match (&written.node.value, words.split_first()) {
        (Value::Scalar { .. }, Some((text, _))) => shell(text.clone()),
        (_, Some((first, rest))) if first == "CMD" && !rest.is_empty() => rest.to_vec(),
        (_, Some((first, [text]))) if first == "CMD-SHELL" => shell(text.clone()),
        (_, Some((first, []))) if first == "NONE" => return Some(OwnHealthcheck::Off),
        _ => {
            let what = "a list begins with `CMD` and the words of a command, `CMD-SHELL` and one text, or is `[NONE]`";
            issues.add(written.problem(ProblemKind::Value, what));
            return None;
        }
    };
    Some(OwnHealthcheck::Command(Healthcheck {
        test: words,
        interval: at.duration("interval").unwrap_or(Duration::from_secs(30)),
        timeout: at.duration("timeout").unwrap_or(Duration::from_secs(30)),
        retries: at.parsed("retries").unwrap_or(3),
        start_period: at.duration("start_period").unwrap_or_default(),
    }))
}
