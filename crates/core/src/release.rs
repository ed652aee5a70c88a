//! A release: one immutable, deployable version, with all that is needed to run it again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backup::BackupSettings;
use crate::config::settings::{Backing, Database, OneOff, Registry, RunSettings, Service, Volume};
use crate::hash::ContentHash;
use crate::layout;
use crate::names::{
    AppId, DatabaseName, InstanceName, ReleaseId, RunId, ServiceName, Slot, VariableName, VolumeName,
};

/// One immutable, deployable version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its name.
    pub id: ReleaseId,
    /// Whose it is.
    pub app: AppId,
    /// Where it comes from.
    pub source: Provenance,
    /// The services with their content.
    pub services: BTreeMap<ServiceName, ServiceRelease>,
    /// What only one-off instances are made of, by the name that it has for itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub one_offs: BTreeMap<ServiceName, OneOffRelease>,
    /// The backing services as this release would start them.
    pub backing: BTreeMap<ServiceName, BackingRelease>,
    /// The databases it uses.
    pub databases: BTreeMap<DatabaseName, Database>,
    /// The volumes it uses.
    pub volumes: BTreeMap<VolumeName, Volume>,
    /// Backups of its data while it is live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupSettings>,
    /// For pulling its images again.
    pub registry: Option<Registry>,
    /// Salted hashes of the variables' values (S28).
    pub variables: BTreeMap<VariableName, ContentHash>,
    /// Watching after its switch.
    #[serde(with = "crate::millis")]
    pub bake: Duration,
    /// How long what it replaced keeps running.
    #[serde(with = "crate::millis")]
    pub keep_warm: Duration,
    /// Releases that rollback can reach.
    pub keep: u32,
    /// When its plan was made.
    pub created: Timestamp,
}

/// Where a release comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Provenance {
    /// The full commit id.
    pub commit: Option<String>,
    /// Its first line.
    pub subject: Option<String>,
    /// Set when the work tree was not clean and was used.
    pub dirty: bool,
    /// `--version`.
    pub version: Option<String>,
    /// The repository's remote, normalised (S2).
    pub repository: Option<String>,
}

/// A service of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRelease {
    /// How it runs, is reached and gated.
    pub settings: Service,
    /// What it is made of.
    pub content: Content,
    /// Files of the repository that are mounted into it, by their path beside cutover.yml.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shipped: BTreeMap<String, Shipped>,
}

/// What only one-off instances of a release are made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneOffRelease {
    /// How it runs.
    pub settings: OneOff,
    /// What it is made of.
    pub content: Content,
    /// Files of the repository that are mounted into it, by their path beside cutover.yml.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shipped: BTreeMap<String, Shipped>,
}

/// What instances are made from.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// How they run.
    pub run: &'a RunSettings,
    /// What they are made of.
    pub content: &'a Content,
    /// Files of the repository that are mounted into them.
    pub shipped: &'a BTreeMap<String, Shipped>,
}

/// A backing service of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackingRelease {
    /// How it runs and is gated.
    pub settings: Backing,
    /// What it is made of.
    pub content: Content,
    /// Files of the repository that are mounted into it, by their path beside cutover.yml.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shipped: BTreeMap<String, Shipped>,
}

/// A file or folder of the repository that travels with a release and is mounted read-only. It lies in the host's artifact store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shipped {
    /// Hash of its tree.
    pub hash: ContentHash,
    /// The file's name in it; `None`: a folder.
    pub file: Option<String>,
}

impl Release {
    /// What its services, its migrations and backing services are made of.
    pub fn contents(&self) -> impl Iterator<Item = &Content> {
        self.parts().map(|part| part.content)
    }

    /// All that instances are made from.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let backing = self.backing.values().map(|of| Part {
            run: &of.settings.run,
            content: &of.content,
            shipped: &of.shipped,
        });
        self.released().chain(backing)
    }

    /// The same without what outlives releases: services, and what is there for one-off instances alone.
    pub fn released(&self) -> impl Iterator<Item = Part<'_>> {
        self.services.keys().chain(self.one_offs.keys()).filter_map(|name| self.part(name))
    }

    /// What one-off instances of a service are made from, or of what is there for them alone; `None`: there is nothing of that name.
    pub fn part(&self, name: &ServiceName) -> Option<Part<'_>> {
        let service = self.services.get(name).map(|of| Part {
            run: &of.settings.run,
            content: &of.content,
            shipped: &of.shipped,
        });
        service.or_else(|| {
            let of = self.one_offs.get(name)?;
            Some(Part { run: &of.settings.run, content: &of.content, shipped: &of.shipped })
        })
    }

    /// All that it needs of the host's artifact store.
    pub fn artifacts(&self) -> BTreeSet<ContentHash> {
        self.parts().flat_map(|part| part.content.artifacts(part.shipped)).cloned().collect()
    }
}

/// An image that cutover built.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BuiltImage {
    /// The engine's id of it.
    pub id: String,
    /// The name it was given.
    pub name: String,
}

/// The images of a release that goes and that no other release needs, neither by what they are nor by name. What was built by somebody else is none of
/// them; nor is what was fetched, unless it is among those that were `fetched` for this release alone, by name.
pub fn images_to_remove<'a>(
    gone: &Release,
    others: impl Iterator<Item = &'a Release>,
    fetched: &BTreeSet<String>,
) -> BTreeSet<BuiltImage> {
    let needed: Vec<&Content> = others.flat_map(Release::contents).collect();
    let is_needed = |built: &BuiltImage| {
        needed.iter().any(|content| match content {
            Content::Image { reference, name, .. } => {
                *reference == built.id || name.as_ref() == Some(&built.name)
            }
            Content::Artifact { .. } => false,
        })
    };
    let ours = |content: &Content| content.built().or_else(|| content.fetched(fetched));
    gone.contents().filter_map(ours).filter(|image| !is_needed(image)).collect()
}

/// What an instance is made of, by content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "content", rename_all = "snake_case")]
pub enum Content {
    /// An image, known by its layers and run-relevant configuration, labels aside (S6).
    Image {
        /// What the engine is asked for: an id where the engine has it already, else a reference with a digest.
        reference: String,
        /// Its identity.
        identity: ContentHash,
        /// What the configuration calls it, for people.
        #[serde(default)]
        name: Option<String>,
        /// Where it can be had again, by digest, should the host lose it; `None`: nowhere but from its source.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin: Option<String>,
    },
    /// A folder of the host's artifact store.
    Artifact {
        /// Hash of its tree.
        hash: ContentHash,
    },
}

impl Content {
    /// What tells this content from another.
    pub fn identity(&self) -> &ContentHash {
        match self {
            Self::Image { identity, .. } => identity,
            Self::Artifact { hash } => hash,
        }
    }

    /// The image, where cutover built it from a commit.
    fn built(&self) -> Option<BuiltImage> {
        match self {
            Self::Image { reference, name: Some(name), origin: None, .. } if layout::is_built_image(name) => {
                Some(BuiltImage { id: reference.clone(), name: name.clone() })
            }
            Self::Image { .. } | Self::Artifact { .. } => None,
        }
    }

    /// The image, where it came from a registry and is among these, by name.
    fn fetched(&self, names: &BTreeSet<String>) -> Option<BuiltImage> {
        match self {
            Self::Image { reference, name: Some(name), origin: Some(_), .. } if names.contains(name) => {
                Some(BuiltImage { id: reference.clone(), name: name.clone() })
            }
            Self::Image { .. } | Self::Artifact { .. } => None,
        }
    }

    /// What an instance made of it needs of the host's artifact store.
    pub fn artifacts<'a>(
        &'a self,
        shipped: &'a BTreeMap<String, Shipped>,
    ) -> impl Iterator<Item = &'a ContentHash> {
        let own = if let Self::Artifact { hash } = self { Some(hash) } else { None };
        own.into_iter().chain(shipped.values().map(|shipped| &shipped.hash))
    }

    /// Which runtime carries it.
    pub fn runtime(&self) -> RuntimeKind {
        match self {
            Self::Image { .. } => RuntimeKind::Container,
            Self::Artifact { .. } => RuntimeKind::Process,
        }
    }
}

/// What carries an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeKind {
    /// A plain process under a keeper.
    Process,
    /// A container of the engine.
    Container,
}

/// What is live: the one durable truth of an app and environment (S1). For apps with routes it is the facts of their entry in the
/// route table, for others the live file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// The release that routes point at.
    pub release: ReleaseId,
    /// The colour of its newest instances.
    pub slot: Slot,
    /// The run that made it so.
    pub run: RunId,
    /// The instances that make it up, kept ones of earlier runs included.
    pub members: BTreeMap<ServiceName, Vec<InstanceName>>,
    /// Services stopped through cutover; they stay stopped until started.
    pub stopped: BTreeSet<ServiceName>,
    /// The repository the app belongs to.
    pub repository: Option<String>,
}

impl Live {
    /// Whether an instance is part of it.
    pub fn has(&self, name: &InstanceName) -> bool {
        self.members.values().flatten().any(|member| member == name)
    }

    /// The facts of the app's entry in the route table.
    pub fn to_facts(&self) -> BTreeMap<String, String> {
        let json = serde_json::to_string(self).unwrap_or_default();
        BTreeMap::from([("live".to_owned(), json), ("release".to_owned(), self.release.to_string())])
    }

    /// Reads them back; `None` where there are none or they are not ours.
    pub fn from_facts(facts: &BTreeMap<String, String>) -> Option<Self> {
        serde_json::from_str(facts.get("live")?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, name: &str, origin: Option<&str>) -> Content {
        Content::Image {
            reference: id.to_owned(),
            identity: ContentHash::of(id.as_bytes()),
            name: Some(name.to_owned()),
            origin: origin.map(str::to_owned),
        }
    }

    #[test]
    fn only_what_cutover_built_from_a_commit_is_ours_to_remove() {
        let built = |content: Content| content.built().map(|built| built.name);
        let name = "cutover/shop/local/web:0123456789ab";
        assert_eq!(built(image("sha256:1", name, None)).as_deref(), Some(name));
        assert_eq!(built(image("sha256:2", "shop/web:v1", None)), None, "somebody's own build");
        assert_eq!(built(image("sha256:3", "cutover/x:1", Some("cutover/x@sha256:3"))), None, "fetched");
        assert_eq!(
            built(image("sha256:4", "sha256:4", None)),
            None,
            "without a name nobody knows whose it is"
        );
        assert_eq!(built(Content::Artifact { hash: ContentHash::of(b"5") }), None);
    }
}
