//! What each service of a deploy is made of: artifacts from the work tree, images as given, fetched, or built.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cutover_core::config::settings::{BuildPlace, Config, Source};
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::hash::ContentHash;
use cutover_core::names::ServiceName;
use cutover_core::release::{Content, Shipped};
use cutover_core::state::{FoundImage, HostState};
use cutover_engine::{Engine, Reference};

use super::artifact::Artifact;
use super::images::{Images, not_yet};
use super::project::Project;
use crate::asked::Brings;
use crate::hosts::Channel;
use crate::render::Progress;
use crate::ship::Image;
use crate::verbs::Stop;

/// What each service is to be made of, before anything is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted(BTreeMap<ServiceName, Source>);

/// What each service is made of.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// By service and backing service.
    pub(crate) by_service: BTreeMap<ServiceName, Content>,
    /// Artifacts by hash, to be shipped where the host lacks them.
    pub(crate) artifacts: BTreeMap<ContentHash, Artifact>,
    /// Images of the engine here that the host may lack.
    pub(crate) images: Vec<Image>,
    /// That engine.
    pub(crate) engine: Option<Engine>,
    /// Files of the repository that are mounted, by their path beside cutover.yml.
    pub(crate) shipped: BTreeMap<String, Shipped>,
    /// Worth saying.
    pub(crate) notes: Vec<String>,
    /// What a commit has of them lies here until it is sent.
    pub(super) export: Option<tempfile::TempDir>,
}

/// Whether images that are not there are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Making {
    /// They are built, or fetched.
    Make,
    /// Nothing is made: the plan is only shown.
    OnlyLook,
}

impl Wanted {
    /// The sources of the configuration, with `--image` and `--version` in their place.
    pub(crate) fn new(config: &Config, brings: &Brings) -> Result<Self, Failure> {
        let mut sources: BTreeMap<ServiceName, Source> = BTreeMap::new();
        for (name, service) in &config.services {
            sources.insert(name.clone(), source(name, &service.source, brings)?);
        }
        for (name, given, _) in config.parts().filter(|(name, ..)| !config.services.contains_key(*name)) {
            sources.insert(name.clone(), given.clone());
        }
        if let Some(name) = brings.images.keys().find(|name| !config.services.contains_key(*name)) {
            let known: Vec<&str> = config.services.keys().map(ServiceName::as_str).collect();
            return Err(Failure::new(Exit::Usage, format!("`--image {name}=…`: there is no such service"))
                .next(format!("the services are: {}", known.join(", "))));
        }
        Ok(Self(sources))
    }

    /// References the host has to look up.
    pub(crate) fn images(&self) -> BTreeSet<String> {
        self.0.values().filter_map(|source| image_of(source).map(str::to_owned)).collect()
    }

    /// Those the host lacks, each with the platform it is wanted for.
    pub(crate) fn absent_images(
        &self,
        config: &Config,
        state: &HostState,
    ) -> BTreeMap<String, Option<String>> {
        let platform = |name: &ServiceName| config.platform(name).map(str::to_owned);
        let images = self.0.iter().filter_map(|(name, source)| Some((image_of(source)?, platform(name))));
        let absent = images.filter(|(reference, _)| !state.images.contains_key(*reference));
        absent.map(|(reference, platform)| (reference.to_owned(), platform)).collect()
    }

    /// Refuses images on a host that has nothing to run them.
    pub(crate) fn refuse_without_engine(&self, state: &HostState) -> Result<(), Failure> {
        if state.engine.is_some() || self.0.values().all(|source| matches!(source, Source::Artifact { .. })) {
            return Ok(());
        }
        Err(Failure::new(Exit::Refused, "no container engine answers on the host")
            .because("the app has images, and neither Docker nor Podman answers there")
            .next("start it (`systemctl start docker`), or install it; then deploy again")
            .next("or run plain processes: `artifact:` with `command:` needs no engine"))
    }

    /// Whether an image is built.
    pub(crate) fn has_build(&self) -> bool {
        self.0.values().any(|source| matches!(source, Source::Build(_)))
    }

    /// Whether a part comes from the work tree whatever the commit.
    pub(crate) fn has_artifact(&self) -> bool {
        self.0.values().any(|source| matches!(source, Source::Artifact { .. }))
    }
}

fn image_of(source: &Source) -> Option<&str> {
    match source {
        Source::Image { reference } => Some(reference),
        Source::Build(_) | Source::Artifact { .. } => None,
    }
}

fn source(name: &ServiceName, source: &Source, brings: &Brings) -> Result<Source, Failure> {
    if let Some(reference) = brings.images.get(name) {
        return Ok(Source::Image { reference: reference.clone() });
    }
    match (source, &brings.version) {
        (Source::Image { reference }, Some(tag)) => {
            let repository = Reference::split(reference).repository;
            Ok(Source::Image { reference: format!("{repository}:{tag}") })
        }
        (Source::Build(_), Some(tag)) => Err(Failure::new(
            Exit::Usage,
            format!("service `{name}` has no image to take the tag `{tag}` of"),
        )
        .because("`--version` builds nothing, and the service has `build:`")
        .next(format!("name the image: `--image {name}=REPOSITORY:{tag}`"))),
        (other, _) => Ok(other.clone()),
    }
}

/// Gets hold of what services are made of.
pub(crate) async fn collect(
    wanted: &Wanted,
    project: &Project,
    host: &mut Channel,
    state: &HostState,
    images: &mut Images<'_>,
    making: Making,
    progress: &mut Progress,
) -> Result<Contents, Stop> {
    let mut contents = Contents::default();
    let never = project.never_sent();
    for (name, source) in &wanted.0 {
        let content = match source {
            Source::Artifact { path } => {
                artifact(name, &project.folder, path, &never, &mut contents.artifacts)?
            }
            Source::Image { reference } => {
                let content = match state.images.get(reference) {
                    None => images.own(reference).await?,
                    Some(there) => match images.own_instead(reference, there).await? {
                        None => Some(image(reference, there)),
                        Some(own) => {
                            contents.notes.push(format!(
                                "{name}: image {reference} is another one here than on the host; the one here is taken (`--image {name}=REF` names another)"
                            ));
                            Some(own)
                        }
                    },
                };
                content.unwrap_or_else(|| {
                    contents.notes.push(format!("{name}: image {reference} would be fetched"));
                    not_yet(reference)
                })
            }
            Source::Build(settings) => match making {
                Making::Make => {
                    let content = images.build(name, settings, state, host, progress).await?;
                    if settings.on == BuildPlace::Host {
                        contents
                            .notes
                            .push(format!("{name}: its image was built on {}", host.target().shown()));
                    }
                    content
                }
                Making::OnlyLook => {
                    let built = images.built_before(name, settings, state).await;
                    if built.is_none() {
                        let place = match settings.on {
                            BuildPlace::Here => String::new(),
                            BuildPlace::Host => format!(" on {}", host.target().shown()),
                        };
                        let note = format!(
                            "{name}: its image would be built{place}; until then it counts as changed"
                        );
                        contents.notes.push(note);
                    }
                    built.unwrap_or_else(|| not_yet(name.as_str()))
                }
            },
        };
        contents.by_service.insert(name.clone(), content);
    }
    (contents.images, contents.engine) = images.shippable();
    Ok(contents)
}

/// An image that the host has.
fn image(reference: &str, found: &FoundImage) -> Content {
    Content::Image {
        reference: found.id.clone(),
        identity: found.identity.clone(),
        name: Some(reference.to_owned()),
        origin: found.origin.clone(),
    }
}

fn artifact(
    name: &ServiceName,
    folder: &Path,
    path: &str,
    never: &BTreeSet<String>,
    artifacts: &mut BTreeMap<ContentHash, Artifact>,
) -> Result<Content, Failure> {
    let artifact = Artifact::look(folder, path, never).map_err(|error| {
        Failure::new(Exit::Configuration, format!("the artifact of `{name}` cannot be had"))
            .because(error.to_string())
            .next(format!(
                "build it first; `services.{name}.artifact` says where it lies, beside cutover.yml"
            ))
    })?;
    let hash = artifact.hash.clone();
    artifacts.insert(hash.clone(), artifact);
    Ok(Content::Artifact { hash })
}
