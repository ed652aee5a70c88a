//! What is mounted into containers, and which of their ports the host publishes, in Compose's short and long forms.

use std::net::{IpAddr, Ipv4Addr};

use super::problem::ProblemKind;
use super::read::At;
use super::run::{Context, folder};
use super::settings::{Mount, PublishedPort};
use super::shape::relative;
use super::value;
use crate::names::VolumeName;

/// All mounts of a service, `tmpfs:` included.
pub(crate) fn mounts(at: &At<'_>, context: &mut Context<'_>) -> Vec<Mount> {
    let volumes = at.get("volumes").map(|volumes| volumes.items().collect::<Vec<_>>()).unwrap_or_default();
    let mut mounts: Vec<Mount> = volumes
        .iter()
        .filter_map(|volume| {
            if let Some(text) = volume.text() { short(volume, text, context) } else { long(volume, context) }
        })
        .collect();
    for item in at.get("tmpfs").map(|tmpfs| tmpfs.one_or_more()).unwrap_or_default() {
        let Some(text) = item.text() else { continue };
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        mounts.extend(
            absolute(&item, target, context)
                .map(|target| Mount::Tmpfs { target, options: options.to_owned() }),
        );
    }
    mounts
}

fn short(at: &At<'_>, text: &str, context: &mut Context<'_>) -> Option<Mount> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [_] => {
            let draft = at.problem(
                ProblemKind::Value,
                format!("`{text}` names no volume: what is written there would be lost with the container"),
            );
            context.issues.add(draft.remedy(format!("give it a name: `data:{text}`")));
            return None;
        }
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => {
            let what = format!("`{text}` is not `source:target` or `source:target:ro`");
            context.issues.add(at.problem(ProblemKind::Value, what));
            return None;
        }
    };
    mount(at, source, target, options.split(',').any(|option| option == "ro"), context)
}

fn long(at: &At<'_>, context: &mut Context<'_>) -> Option<Mount> {
    let target = at.string("target").unwrap_or_default();
    if at.string("type").as_deref() == Some("tmpfs") {
        let options = at.get("tmpfs");
        let size =
            options.as_ref().and_then(|options| options.bytes("size")).map(|size| format!("size={size}"));
        let mode =
            options.as_ref().and_then(|options| options.string("mode")).map(|mode| format!("mode={mode}"));
        let options = size.into_iter().chain(mode).collect::<Vec<_>>().join(",");
        return absolute(at, &target, context).map(|target| Mount::Tmpfs { target, options });
    }
    let Some(source) = at.string("source") else {
        context.issues.add(at.problem(ProblemKind::Missing, "a mount needs a `source`"));
        return None;
    };
    mount(at, &source, &target, at.flag("read_only").unwrap_or(false), context)
}

fn mount(
    at: &At<'_>,
    source: &str,
    target: &str,
    read_only: bool,
    context: &mut Context<'_>,
) -> Option<Mount> {
    let target = absolute(at, target, context)?;
    if source.starts_with('/') {
        return Some(Mount::Host { source: source.to_owned(), target, read_only });
    }
    if source.starts_with('.') || source.starts_with('~') || source.contains('/') {
        if let Err(what) = relative(source) {
            context.issues.add(at.problem(ProblemKind::Value, what));
            return None;
        }
        if !read_only {
            let what = format!("`{source}` is a file of the repository and ships read-only");
            let draft = at.problem(ProblemKind::Refused, what);
            context.issues.add(
                draft.remedy(format!("add `:ro`, or keep what is written in a volume: `data:{target}`")),
            );
            return None;
        }
        return Some(Mount::Shipped { source: folder(source), target });
    }
    match source.parse::<VolumeName>() {
        Ok(volume) => {
            context.volumes.insert(volume.clone());
            Some(Mount::Volume { volume, target, read_only })
        }
        Err(error) => {
            context.issues.add(at.problem(ProblemKind::Value, error.to_string()));
            None
        }
    }
}

/// A file or folder of the repository as a migration's own image sees it: `./migrations`, or `./migrations:/flyway/sql`.
pub(crate) fn shipped(at: &At<'_>, context: &mut Context<'_>) -> Option<Mount> {
    let text = at.text()?;
    let text = text.strip_suffix(":ro").unwrap_or(text);
    let (source, target) =
        text.split_once(':').map_or((text, None), |(source, target)| (source, Some(target)));
    if let Err(what) = relative(source) {
        context.issues.add(at.problem(ProblemKind::Value, what));
        return None;
    }
    let source = folder(source);
    let target = match (target, source.rsplit('/').next()) {
        (Some(target), _) => target.to_owned(),
        (None, Some(last)) if last != "." => format!("/{last}"),
        (None, _) => {
            let draft = at.problem(ProblemKind::Missing, "the whole folder needs a place in the container");
            context.issues.add(draft.remedy(format!("`{text}:/migrations`")));
            return None;
        }
    };
    Some(Mount::Shipped { source, target: absolute(at, &target, context)? })
}

fn absolute(at: &At<'_>, target: &str, context: &mut Context<'_>) -> Option<String> {
    if target.starts_with('/') && !target.split('/').any(|part| part == "..") {
        return Some(target.to_owned());
    }
    let what = if target.is_empty() {
        "a mount needs a `target`".to_owned()
    } else {
        format!("`{target}` is not an absolute path of the container")
    };
    context.issues.add(at.problem(ProblemKind::Value, what));
    None
}

/// The published ports of a service.
pub(crate) fn ports(at: &At<'_>, context: &mut Context<'_>) -> Vec<PublishedPort> {
    let Some(at) = at.get("ports") else { return Vec::new() };
    let items: Vec<At<'_>> = at.items().collect();
    items.iter().filter_map(|item| port(item, context)).collect()
}

fn port(at: &At<'_>, context: &mut Context<'_>) -> Option<PublishedPort> {
    let read = match at.text() {
        Some(text) => short_port(text),
        None => long_port(at),
    };
    match read {
        Ok(port) => Some(port),
        Err(what) => {
            let draft = at.problem(ProblemKind::Value, what);
            context.issues.add(draft.remedy(
                "expected is `HOST:CONTAINER`, `ADDRESS:HOST:CONTAINER`, with `/udp` if it is meant",
            ));
            None
        }
    }
}

fn short_port(text: &str) -> Result<PublishedPort, String> {
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let udp = match protocol {
        "tcp" => false,
        "udp" => true,
        other => return Err(format!("`{other}` is no protocol of a port")),
    };
    let (rest, container) = rest
        .rsplit_once(':')
        .ok_or_else(|| format!("`{text}` does not say which port of the host it takes"))?;
    let (address, host) = match rest.rsplit_once(':') {
        Some((address, host)) => (self::address(address)?, host),
        None => (IpAddr::V4(Ipv4Addr::LOCALHOST), rest),
    };
    if host.contains('-') || container.contains('-') {
        return Err(format!("`{text}` is a range; list each port"));
    }
    Ok(PublishedPort { address, host: value::port(host)?, container: value::port(container)?, udp })
}

fn long_port(at: &At<'_>) -> Result<PublishedPort, String> {
    let number = |key: &str| {
        at.string(key)
            .ok_or_else(|| format!("a published port needs `{key}`"))
            .and_then(|text| value::port(&text))
    };
    Ok(PublishedPort {
        address: at.string("host_ip").map_or(Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)), |text| address(&text))?,
        host: number("published")?,
        container: number("target")?,
        udp: at.string("protocol").as_deref() == Some("udp"),
    })
}

fn address(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| format!("`{text}` is not an address"))
}
