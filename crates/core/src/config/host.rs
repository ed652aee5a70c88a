//! `host.yml`: what the host itself says, in the folder of its state. The keys as a table, and the file as settings.

use std::net::SocketAddr;

use super::check::{When, check};
use super::problem::{Issues, Problems};
use super::read::At;
use super::shape::{ADDRESS, Key, PORTS, SUBNETS, Shape};
use super::tree;
use crate::addresses::{Ports, Subnet};

const ADDRESSES: Shape = Shape::Either(&[Shape::Form(&ADDRESS), Shape::List(&Shape::Form(&ADDRESS))]);

/// The whole file.
pub(super) static HOST: Shape = Shape::Keys(&[KEYS]);

const KEYS: &[Key] = &[
    Key::own(
        "http",
        ADDRESSES,
        "80, for an unprivileged user 127.0.0.1:8080",
        "Where the proxy listens for HTTP, from its next start on; several as a list. `CUTOVER_HTTP` goes before it.",
    ),
    Key::own(
        "subnets",
        Shape::Form(&SUBNETS),
        crate::defaults::SUBNETS,
        "Where new networks of apps are cut from; those that are there stay where they are.",
    ),
    Key::own(
        "ports",
        Shape::Form(&PORTS),
        crate::defaults::PORTS,
        "Which ports on loopback new instances of plain processes are given; those that run keep theirs.",
    ),
];

/// What the host's own configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFile {
    /// Where the proxy listens for HTTP; empty: not said.
    pub http: Vec<SocketAddr>,
    /// Where networks of apps are cut from.
    pub subnets: Option<Subnet>,
    /// Loopback ports of plain processes.
    pub ports: Option<Ports>,
}

/// Reads a `host.yml`.
///
/// # Errors
/// All its problems at once.
pub fn host_file(file: &str, text: &str) -> Result<HostFile, Problems> {
    let mut issues = Issues::default();
    let node = tree::read(text, 0, &mut issues);
    if let Some(node) = &node {
        check(node, &HOST, "", When::After, &mut issues);
    }
    if !issues.is_clean() {
        return Err(issues.finish(&[(file.to_owned(), text.to_owned())]));
    }
    let Some(node) = node else { return Ok(HostFile::default()) };
    let at = At::new(&node, "");
    let http = at.get("http").map(|http| http.one_or_more()).unwrap_or_default();
    Ok(HostFile {
        http: http.iter().filter_map(|address| address.text()?.parse().ok()).collect(),
        subnets: at.get("subnets").and_then(|subnets| Subnet::parse(subnets.text()?)),
        ports: at.get("ports").and_then(|ports| ports.text()?.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_subnets_and_ports_are_read() {
        let text = "http: 127.0.0.1:8080\nsubnets: 10.99.0.0/16\nports: 10000-10099\n";
        let one = host_file("host.yml", text).unwrap();
        assert_eq!(one.http, ["127.0.0.1:8080".parse().unwrap()]);
        assert_eq!(one.subnets, Subnet::parse("10.99.0.0/16"));
        assert_eq!(one.ports.unwrap().to_string(), "10000-10099");
        let several = host_file("host.yml", "http: ['127.0.0.1:80', '[::1]:80']\n").unwrap();
        assert_eq!((several.http.len(), several.subnets), (2, None));
    }

    #[test]
    fn an_empty_file_says_nothing() {
        for text in ["", "# nothing yet\n", "{}\n"] {
            assert_eq!(host_file("host.yml", text).unwrap(), HostFile::default(), "{text:?}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let problems = host_file(
            "host.yml",
            "htpp: 127.0.0.1:80\nhttp: [localhost, 80]\nsubnets: 10.99.0.0/24\nports: 80-90\n",
        )
        .unwrap_err();
        insta::assert_snapshot!(problems, @r"
            host.yml:1:1: htpp: `htpp` is not a key of host.yml; did you mean `http`?
              allowed: http, subnets, ports
            host.yml:2:8: http[0]: `localhost` is not an address with its port
              remedy: write an address and port such as `127.0.0.1:8080`
            host.yml:2:19: http[1]: `80` is not an address with its port
              remedy: write an address and port such as `127.0.0.1:8080`
            host.yml:3:10: subnets: `10.99.0.0/24` is too small: the networks of a few apps need a /20
              remedy: write a range of IPv4 addresses such as `10.213.0.0/16`
            host.yml:4:8: ports: `80-90` does not lie in 1024-32767: others have those ports, or are given them by chance
              remedy: write a range of ports such as `20000-31999`
            ");
    }

    #[test]
    fn what_is_no_map_is_told() {
        let problems = host_file("host.yml", "- http\n").unwrap_err();
        insta::assert_snapshot!(problems, @"host.yml:1:1: expected a map, found a list");
    }
}
