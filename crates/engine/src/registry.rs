//! What images are called, and who we are where they are kept.

use std::fmt;

use bollard::auth::DockerCredentials;

/// Where images are kept whose name names no registry.
const HUB: &str = "docker.io";

/// What an image is called: `[registry/]name[:tag][@digest]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Registry and name.
    pub repository: String,
    /// After the colon.
    pub tag: Option<String>,
    /// After the at sign; wins over the tag.
    pub digest: Option<String>,
}

impl Reference {
    /// Takes a reference apart. It is not checked: the engine does that.
    pub fn split(reference: &str) -> Self {
        let (rest, digest) = match reference.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_owned())),
            None => (reference, None),
        };
        // A colon before the last slash is the registry's port.
        match rest.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => {
                Self { repository: repository.to_owned(), tag: Some(tag.to_owned()), digest }
            }
            _ => Self { repository: rest.to_owned(), tag: None, digest },
        }
    }
}

impl Reference {
    /// Where it is kept: what stands before the first slash, if that is the name of a machine.
    pub fn registry(&self) -> &str {
        match self.repository.split_once('/') {
            Some((first, _)) if first == "localhost" || first.contains(['.', ':']) => first,
            _ => HUB,
        }
    }

    /// The name in full, as containerd's store has it: with its registry, and a tag.
    pub fn full(&self) -> String {
        let tag = self.tag.as_deref().unwrap_or("latest");
        if self.repository.starts_with(&format!("{}/", self.registry())) {
            return format!("{}:{tag}", self.repository);
        }
        let library = if self.repository.contains('/') { "" } else { "library/" };
        format!("{HUB}/{library}{}:{tag}", self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(formatter, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(formatter, "@{digest}"))
    }
}

/// Who we are to a registry. `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryLogin {
    /// Host name, with port if it has one.
    pub server: String,
    /// Name of the account.
    pub username: String,
    /// Its password or token.
    pub password: String,
}

impl fmt::Debug for RegistryLogin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RegistryLogin")
            .field("server", &self.server)
            .field("username", &self.username)
            .field("password", &format_args!("[redacted]"))
            .finish()
    }
}

impl RegistryLogin {
    /// Whether it is for the registry that keeps an image.
    pub fn is_for(&self, reference: &Reference) -> bool {
        let server = self.server.strip_prefix("https://").unwrap_or(&self.server);
        let server = server.split('/').next().unwrap_or(server);
        let server = if server == "index.docker.io" { HUB } else { server };
        server.eq_ignore_ascii_case(reference.registry())
    }

    pub(crate) fn credentials(&self) -> DockerCredentials {
        DockerCredentials {
            username: Some(self.username.clone()),
            password: Some(self.password.clone()),
            serveraddress: Some(self.server.clone()),
            ..DockerCredentials::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart_at_the_right_colon() {
        let cases = [
            ("nginx", "nginx", None, None),
            ("nginx:1.27", "nginx", Some("1.27"), None),
            ("localhost:5000/app", "localhost:5000/app", None, None),
            ("localhost:5000/app:v1", "localhost:5000/app", Some("v1"), None),
            ("ghcr.io/a/b@sha256:00", "ghcr.io/a/b", None, Some("sha256:00")),
            ("ghcr.io/a/b:v1@sha256:00", "ghcr.io/a/b", Some("v1"), Some("sha256:00")),
        ];
        for (text, repository, tag, digest) in cases {
            let reference = Reference::split(text);
            assert_eq!(reference.repository, repository, "{text}");
            assert_eq!(reference.tag.as_deref(), tag, "{text}");
            assert_eq!(reference.digest.as_deref(), digest, "{text}");
            assert_eq!(reference.to_string(), text);
        }
    }

    #[test]
    fn names_in_full_have_a_registry_and_a_tag() {
        let cases = [
            ("nginx", "docker.io/library/nginx:latest"),
            ("cutover/shop/live/web:7f3c9e1", "docker.io/cutover/shop/live/web:7f3c9e1"),
            ("ghcr.io/a/b:v1", "ghcr.io/a/b:v1"),
            ("127.0.0.1:5000/a", "127.0.0.1:5000/a:latest"),
        ];
        for (text, full) in cases {
            assert_eq!(Reference::split(text).full(), full);
        }
    }

    #[test]
    fn a_login_is_for_its_own_registry() {
        let cases = [
            ("registry.example.com", "registry.example.com/acme/app:1", true),
            ("https://registry.example.com/v2/", "registry.example.com/acme/app", true),
            ("registry.example.com", "other.example.com/acme/app", false),
            ("localhost:5000", "localhost:5000/app@sha256:00", true),
            ("localhost:5000", "localhost:5001/app", false),
            ("docker.io", "acme/app:1", true),
            ("https://index.docker.io/v1/", "postgres:15", true),
            ("registry.example.com", "postgres:15", false),
        ];
        for (server, reference, expected) in cases {
            let login = RegistryLogin {
                server: server.to_owned(),
                username: "acme".to_owned(),
                password: "hunter2".to_owned(),
            };
            assert_eq!(login.is_for(&Reference::split(reference)), expected, "{server} {reference}");
        }
    }

    #[test]
    fn a_registry_password_is_never_shown() {
        let login = RegistryLogin {
            server: "registry.example.com".to_owned(),
            username: "acme".to_owned(),
            password: "hunter2".to_owned(),
        };
        assert!(!format!("{login:?}{login:#?}").contains("hunter2"));
    }
}
