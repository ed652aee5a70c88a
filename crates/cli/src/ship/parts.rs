//! What an image of the engine here consists of, as a host is asked for it.

use cutover_core::hash::ContentHash;
use cutover_core::wire::ImageParts;
use cutover_engine::{Engine, EngineError};

use super::Image;

impl Image {
    /// An image that the engine has, under the name it is to have on a host; `None`: the engine does not tell its layers.
    pub(crate) async fn of(
        engine: &Engine,
        image: &cutover_engine::Image,
        name: String,
        identity: ContentHash,
    ) -> Result<Option<Self>, EngineError> {
        let layers: Option<Vec<ContentHash>> =
            image.layers.iter().map(|layer| ContentHash::from_hex(layer)).collect();
        let Some(layers) = layers else { return Ok(None) };
        let sizes = engine.layer_sizes(&image.id, layers.len()).await?;
        let parts = ImageParts { name, id: image.id.clone(), identity, layers, sizes };
        Ok(Some(Self { parts, configuration: image.configuration.clone() }))
    }
}
