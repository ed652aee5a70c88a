//! Looking at images, and getting, naming and removing them.

use std::collections::{BTreeMap, HashMap};

use bollard::models::CreateImageInfo;
use bollard::query_parameters::{
    CreateImageOptions, ListImagesOptions, PushImageOptions, RemoveImageOptions, TagImageOptions,
};
use futures_util::StreamExt;
use jiff::Timestamp;

use crate::connect::Engine;
use crate::error::{Certainty, EngineError, Kind, Subject, explain};
use crate::filters;
use crate::identity::{Image, image, named};
use crate::registry::{Reference, RegistryLogin};

/// One report of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullProgress {
    /// Layer or tag it is about; may be empty.
    pub part: String,
    /// The engine's word: `Downloading`, `Pull complete`.
    pub status: String,
    /// Bytes so far, where it counts.
    pub current: Option<u64>,
    /// Bytes in all, where it knows.
    pub total: Option<u64>,
}

impl Engine {
    /// One image by reference or id; `NotFoundImage` where it is not here.
    pub async fn inspect_image(&self, reference: &str) -> Result<Image, EngineError> {
        let found = self
            .docker()
            .inspect_image(reference)
            .await
            .map_err(explain(Subject::Image, || format!("inspect image {reference}")))?;
        Ok(image(found))
    }

    /// Fetches an image from its registry and tells what came. Without a tag or digest it is `latest`.
    pub async fn pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        login: Option<&RegistryLogin>,
        on_progress: &mut (dyn FnMut(PullProgress) + Send),
    ) -> Result<Image, EngineError> {
        let Reference { repository, tag, digest } = Reference::split(reference);
        let options = CreateImageOptions {
            from_image: Some(repository),
            tag: Some(digest.or(tag).unwrap_or_else(|| "latest".to_owned())),
            platform: platform.unwrap_or_default().to_owned(),
            ..CreateImageOptions::default()
        };
        let act = || format!("pull image {reference}");
        let mut reports =
            self.docker_long().create_image(Some(options), None, login.map(RegistryLogin::credentials));
        while let Some(report) = reports.next().await {
            on_progress(progress(report.map_err(explain(Subject::Image, act))?));
        }
        self.inspect_image(reference).await
    }

    /// Sends an image to the registry that its name names.
    pub async fn push(&self, name: &Reference) -> Result<(), EngineError> {
        let act = || format!("push image {name}");
        let options = PushImageOptions { tag: name.tag.clone(), ..PushImageOptions::default() };
        let mut reports = self.docker_long().push_image(&name.repository, Some(options), None);
        while let Some(report) = reports.next().await {
            report.map_err(explain(Subject::Image, act))?;
        }
        Ok(())
    }

    /// Bytes of each of an image's layers, unpacked, lowest first, as far as its history tells: `layers` of them, or none.
    pub async fn layer_sizes(&self, image: &str, layers: usize) -> Result<Vec<u64>, EngineError> {
        let sizes = self.step_sizes(image).await?;
        Ok(if sizes.len() == layers { sizes } else { Vec::new() })
    }

    /// Bytes of what each step of an image's history has put into it, unpacked, the first step first; steps that put nothing into it left out.
    pub async fn step_sizes(&self, image: &str) -> Result<Vec<u64>, EngineError> {
        let act = || format!("read the history of image {image}");
        let history = self.docker().image_history(image).await.map_err(explain(Subject::Image, act))?;
        let sizes = history.iter().rev().filter_map(|step| u64::try_from(step.size).ok());
        Ok(sizes.filter(|size| *size > 0).collect())
    }

    /// Names of images that a pattern (`registry/*`) is for.
    pub async fn image_names(&self, pattern: &str) -> Result<Vec<String>, EngineError> {
        let filters = HashMap::from([("reference".to_owned(), vec![pattern.to_owned()])]);
        let options = ListImagesOptions { filters: Some(filters), ..ListImagesOptions::default() };
        let act = || format!("list images {pattern}");
        let found = self.docker().list_images(Some(options)).await.map_err(explain(Subject::Image, act))?;
        Ok(found.into_iter().flat_map(|image| named(image.repo_tags)).collect())
    }

    /// How many of the layers, from the lowest on, the engine has as the lowest ones of one of its images.
    pub async fn layers_in_common(&self, layers: &[String]) -> Result<usize, EngineError> {
        let mut most = 0;
        for listed in self.list_images(&BTreeMap::new()).await? {
            let image = match self.inspect_image(&listed.id).await {
                Ok(image) => image,
                // Removed since it was listed.
                Err(error) if error.kind == Kind::NotFoundImage => continue,
                Err(error) => return Err(error),
            };
            let common = image.layers.iter().zip(layers).take_while(|(one, other)| one == other).count();
            most = most.max(common);
            if most == layers.len() {
                break;
            }
        }
        Ok(most)
    }

    /// Gives an image one more name; a name that meant another image means this one from now on.
    pub async fn tag(&self, image: &str, name: &Reference) -> Result<(), EngineError> {
        let options = TagImageOptions { repo: Some(name.repository.clone()), tag: name.tag.clone() };
        self.docker()
            .tag_image(image, Some(options))
            .await
            .map_err(explain(Subject::Image, || format!("tag image {image} as {name}")))
    }

    /// Takes a name from an image, and the image itself with its last name. Gone already is no error; one that a
    /// container uses is a `Conflict`.
    pub async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        let removed = self.docker().remove_image(reference, None::<RemoveImageOptions>, None).await;
        match removed.map_err(explain(Subject::Image, || format!("remove image {reference}"))) {
            Err(error) if error.kind == Kind::NotFoundImage && error.certainty == Certainty::NotDone => {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// Names (or, without one, id) of every image that carries all of `labels`, with its labels.
    pub async fn list_images(
        &self,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<ListedImage>, EngineError> {
        let options =
            ListImagesOptions { filters: Some(filters::by_labels(labels)), ..ListImagesOptions::default() };
        let found = self
            .docker()
            .list_images(Some(options))
            .await
            .map_err(explain(Subject::Image, || "list images".to_owned()))?;
        let listed = |image: bollard::models::ImageSummary| ListedImage {
            id: image.id,
            tags: named(image.repo_tags),
            labels: image.labels.into_iter().collect(),
            size: u64::try_from(image.size).unwrap_or(0),
            created_at: Timestamp::from_second(image.created).ok(),
        };
        Ok(found.into_iter().map(listed).collect())
    }
}

/// One image in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedImage {
    /// The engine's own id.
    pub id: String,
    /// Names it goes by here.
    pub tags: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Bytes, unpacked, layers shared with others included.
    pub size: u64,
    /// When it was built.
    pub created_at: Option<Timestamp>,
}

fn progress(report: CreateImageInfo) -> PullProgress {
    let detail = report.progress_detail.unwrap_or_default();
    let bytes = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok());
    PullProgress {
        part: report.id.unwrap_or_default(),
        status: report.status.unwrap_or_default(),
        current: bytes(detail.current),
        total: bytes(detail.total),
    }
}
