//! Images that a release needs and the host lacks: fetched from their registry, with the credentials that the app gives. A password is sent
//! to the one registry it is for, and stands in no command line, message or record.

use cutover_core::config::settings::Registry;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::names::{DatabaseName, ServiceName, VariableName};
use cutover_core::secret::{Secret, Secrets};
use cutover_core::state::FoundImage;
use cutover_core::template::{Lookup, Template};

use crate::ports::{Doing, ImageRequest, Login, Runtime, RuntimeError, RuntimeErrorKind};

/// Who asks for images, and with what.
pub(crate) struct Fetcher<'a> {
    pub(crate) runtime: &'a dyn Runtime,
    pub(crate) registry: Option<&'a Registry>,
    /// Values for the registry's credentials.
    pub(crate) values: &'a Secrets,
}

impl Fetcher<'_> {
    /// Fetches an image; `doing` hears what is going on.
    ///
    /// # Errors
    /// The registry has none such, does not let us in or does not answer; the disk is full; credentials without a value.
    pub(crate) async fn fetch(
        &self,
        reference: &str,
        platform: Option<&str>,
        doing: &mut Doing<'_>,
    ) -> Result<FoundImage, Failure> {
        let request = ImageRequest {
            reference: reference.to_owned(),
            platform: platform.map(str::to_owned),
            login: self.registry.map(|registry| login(registry, self.values)).transpose()?.flatten(),
        };
        let fetched = self.runtime.fetch_image(&request, doing).await;
        fetched.map_err(|error| self.not_fetched(reference, &error))
    }

    fn not_fetched(&self, reference: &str, error: &RuntimeError) -> Failure {
        let failure = Failure::new(Exit::Refused, format!("image {reference} cannot be had")).because(
            format!("it is not on this host, and fetching it failed: {}", self.values.redact(&error.message)),
        );
        match error.kind {
            RuntimeErrorKind::Full => failure.next("make room where the container engine keeps its images"),
            RuntimeErrorKind::Unreachable => {
                failure.next("see that the container engine is up, then do the same again")
            }
            _ => {
                let failure = failure.next("see that its name and tag are right, and that its registry can be reached from this host");
                match self.registry {
                    None => failure.next(
                        "a registry that wants to know who asks: `registry: { server, username, password: \"${REGISTRY_TOKEN}\" }`",
                    ),
                    Some(registry) => failure.next(format!(
                        "`registry:` gives credentials for {} only; see that they are good",
                        registry.server
                    )),
                }
            }
        }
    }
}

/// The credentials with their values; `None`: the registry lets everybody in.
fn login(registry: &Registry, values: &Secrets) -> Result<Option<Login>, Failure> {
    let (Some(username), Some(password)) = (&registry.username, &registry.password) else { return Ok(None) };
    let fill = |template: &Template| {
        template.resolve(&Values(values)).map_err(|open| {
            let names: Vec<&str> = template.variables().into_iter().map(VariableName::as_str).collect();
            Failure::new(Exit::Refused, format!("nobody can be let in at registry {}", registry.server))
                .because(open.to_string())
                .next(format!(
                    "`cutover env set {} --no-deploy` asks for it and keeps it on the host",
                    names.join(" ")
                ))
        })
    };
    Ok(Some(Login {
        server: registry.server.clone(),
        username: fill(username)?,
        password: Secret::new(fill(password)?),
    }))
}

/// The values of an env file: what credentials and urls refer to.
pub(crate) struct Values<'a>(pub(crate) &'a Secrets);

impl Lookup for Values<'_> {
    fn variable(&self, name: &VariableName) -> Option<String> {
        Some(self.0.get(name)?.expose().to_owned())
    }

    fn service_url(&self, _: &ServiceName) -> Option<String> {
        None
    }

    fn database_file(&self, _: &DatabaseName) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Registry {
        Registry {
            server: "registry.example.com".to_owned(),
            username: Some("acme".parse().unwrap()),
            password: Some("${TOKEN}".parse().unwrap()),
        }
    }

    #[test]
    fn credentials_are_filled_and_a_missing_one_is_named() {
        let values: Secrets =
            [("TOKEN".parse().unwrap(), Secret::new("hunter2-secret"))].into_iter().collect();
        let filled = login(&registry(), &values).unwrap().unwrap();
        assert_eq!((filled.username.as_str(), filled.password.expose()), ("acme", "hunter2-secret"));
        let missing = login(&registry(), &Secrets::new()).unwrap_err();
        assert!(missing.next[0].contains("env set TOKEN"), "{missing:?}");
        let open = Registry { password: None, ..registry() };
        assert_eq!(login(&open, &Secrets::new()).unwrap(), None);
    }
}
