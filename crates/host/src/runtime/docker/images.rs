//! The images of an engine, with all that tells whether one may go.

use std::collections::BTreeMap;

use cutover_core::layout::{self, label};
use cutover_core::names::AppId;
use cutover_core::retention::HeldImage;
use cutover_engine::{Kind, Listed, ListedImage};

use super::DockerRuntime;
use super::error::failed;
use crate::ports::RuntimeError;

impl DockerRuntime {
    pub(super) async fn held_images(&self, app: &AppId) -> Result<Vec<HeldImage>, RuntimeError> {
        let nothing = BTreeMap::new();
        let (images, containers) =
            tokio::join!(self.engine.list_images(&nothing), self.engine.list(&nothing));
        let (images, containers) = (images.map_err(failed)?, containers.map_err(failed)?);
        let is_shared = containers.iter().any(|container| self.is_of_another(container, app));
        let mut held = Vec::new();
        for image in images {
            let names = image.tags.iter().map(|tag| tag.strip_prefix("localhost/").unwrap_or(tag));
            // Another installation's records are not ours to read.
            let names = names.filter(|name| !(is_shared && of_app(name, app))).map(str::to_owned).collect();
            let users = containers.iter().filter(|container| uses(container, &image));
            let users = users.map(|container| container.name.clone()).collect();
            let Some(layers) = self.layers(&image, app).await? else { continue };
            held.push(HeldImage { id: image.id, names, layers, users });
        }
        Ok(held)
    }

    fn is_of_another(&self, container: &Listed, app: &AppId) -> bool {
        let label = |name: &str| container.labels.get(name);
        label(label::APP).is_some_and(|of| *of == app.to_string())
            && label(label::INSTALLATION).is_some_and(|of| *of != self.installation)
    }

    /// Its layers, with their bytes where it may go; `None`: it has gone since it was listed.
    async fn layers(
        &self,
        image: &ListedImage,
        app: &AppId,
    ) -> Result<Option<Vec<(String, u64)>>, RuntimeError> {
        let found = match self.engine.inspect_image(&image.id).await {
            Ok(found) => found,
            Err(error) if error.kind == Kind::NotFoundImage => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let sizes = if image.tags.iter().any(|tag| of_app(tag.strip_prefix("localhost/").unwrap_or(tag), app))
        {
            self.engine.step_sizes(&image.id).await.map_err(failed)?
        } else {
            Vec::new()
        };
        // Layers in which nothing lies are steps without a size: what is above the others is taken for them.
        let sizes = sizes.into_iter().chain(std::iter::repeat(0));
        Ok(Some(found.layers.into_iter().zip(sizes).collect()))
    }
}

fn of_app(name: &str, app: &AppId) -> bool {
    layout::app_of_built_image(name).is_some_and(|of| of == *app)
}

/// Engines with containerd's store name an image in more than one way.
fn uses(container: &Listed, image: &ListedImage) -> bool {
    container.image_id == image.id || container.image == image.id || image.tags.contains(&container.image)
}
