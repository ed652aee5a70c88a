//! The reference page of cutover.yml, made from the key tables.

use std::fmt::Write;

use super::compose_keys;
use super::host::HOST;
use super::keys::ROOT;
use super::shape::{Key, Shape, Treatment};

/// A Compose key of services, and what cutover does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComposeKey {
    /// The key.
    pub name: &'static str,
    /// What becomes of it.
    pub treatment: Treatment,
}

/// Every key of a service in the Compose specification, in the order of the alphabet.
pub fn compose_table() -> impl Iterator<Item = ComposeKey> {
    compose_keys::TABLE.iter().map(|key| ComposeKey { name: key.name, treatment: key.treatment })
}

const HEAD: &str = "\
# cutover.yml

Generated from the tables that the configuration is checked with. Keys that begin with `x-` are free; anchors, aliases and merge
keys work as in YAML. `${NAME}` is filled from, strongest first: `-v NAME=…`, `environments.X.variables`, `environment`. What none
of these gives is a secret of the env file: it may stand in `environment` and in the registry's credentials, and nowhere else.
`${services.NAME.url}` and `${databases.NAME.file}` may stand in `environment` and in commands. A name in `environment` without a
value is required from the env file; in a backing service one that ends in `PASSWORD` is made when it is absent.
";

const HOST_HEAD: &str = "
# host.yml

What the host itself says, for all apps on it. The file lies in the folder of cutover's state (`/var/lib/cutover/host.yml`,
`~/.local/state/cutover/lib/host.yml` for an unprivileged user, `lib/host.yml` below `CUTOVER_ROOT`), and need not be there.
";

/// The page, as Markdown.
pub fn reference_markdown() -> String {
    let mut page = HEAD.to_owned();
    section(&mut page, "The file", &ROOT, "");
    page.push_str("\n## Compose keys of services and backing services\n\n");
    page.push_str(
        "Each key of the Compose specification is honoured, translated, ignored with a note, or refused.\n\n",
    );
    page.push_str("| key | | |\n|---|---|---|\n");
    for key in compose_keys::TABLE {
        let (treatment, why) = match key.treatment {
            Treatment::Own | Treatment::Honoured => ("honoured", key.about.to_owned()),
            Treatment::Translated(how) => ("translated", format!("{} {}", key.about, sentence(how))),
            Treatment::Ignored(note) => ("ignored", sentence(note)),
            Treatment::Refused(reason) => ("refused", sentence(reason)),
            Treatment::Later(until) => ("comes later", sentence(until)),
        };
        line(&mut page, &[key.name, treatment, why.trim()]);
        inner(&mut page, key);
    }
    page.push_str(HOST_HEAD);
    section(&mut page, "Its keys", &HOST, "");
    page
}

fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", characters.as_str())
}

fn line(page: &mut String, cells: &[&str]) {
    let escaped: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    // Writing to a String cannot fail.
    writeln!(page, "| `{}` | {} |", escaped[0], escaped[1..].join(" | ")).unwrap_or_default();
}

/// The keys of a Compose key that is a map.
fn inner(page: &mut String, key: &'static Key) {
    if let Some(shape) = keys_within(&key.shape) {
        for below in shape
            .keys()
            .filter(|below| below.is_usable() && !matches!(below.treatment, Treatment::Ignored(_)))
        {
            line(page, &[&format!("{}.{}", key.name, below.name), "", below.about]);
        }
    }
}

fn keys_within(shape: &'static Shape) -> Option<&'static Shape> {
    match shape {
        Shape::Keys(_) => Some(shape),
        Shape::Either(shapes) => shapes.iter().find_map(keys_within),
        Shape::List(item) => keys_within(item),
        Shape::Map(_, inner) => keys_within(inner),
        _ => None,
    }
}

fn section(page: &mut String, title: &str, shape: &'static Shape, path: &str) {
    write!(page, "\n## {title}\n\n| key | is | default | |\n|---|---|---|---|\n").unwrap_or_default();
    let own = || shape.keys().filter(|key| matches!(key.treatment, Treatment::Own));
    for key in own() {
        let default = if key.default.is_empty() { String::new() } else { key.default.to_owned() };
        line(page, &[key.name, &key.shape.expected(), &default, key.about]);
    }
    for key in own() {
        let path = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
        // What environments lay over the file is described there.
        if path.starts_with("environments.ENVIRONMENT.") && path != "environments.ENVIRONMENT.setup" {
            continue;
        }
        if let Some((shape, path)) = own_keys(&key.shape, path) {
            section(page, &format!("`{path}`"), shape, &path);
        }
    }
}

/// The map of own keys within a shape, and the path that leads there.
fn own_keys(shape: &'static Shape, path: String) -> Option<(&'static Shape, String)> {
    match shape {
        Shape::Keys(_) => Some((shape, path)),
        Shape::Either(shapes) => shapes.iter().find_map(|shape| own_keys(shape, path.clone())),
        Shape::List(item) => own_keys(item, path),
        Shape::Map(naming, inner) => own_keys(inner, format!("{path}.{}", naming.placeholder())),
        _ => None,
    }
}
