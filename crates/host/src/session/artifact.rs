//! Receiving an artifact: its bytes go from the client to the store as they come.

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::hash::ContentHash;
use cutover_core::wire::Reply;
use tokio::io::{AsyncRead, AsyncWrite};

use super::frames::Stop;
use super::serve::Session;
use crate::runtime::process::artifact::{ArtifactError, Artifacts};

impl<R, W> Session<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    pub(super) async fn artifact(&mut self, hash: &ContentHash, bytes: u64) -> Result<(), Stop> {
        let (artifacts, wanted) = (Artifacts::new(self.layout.clone()), hash.clone());
        let taken = self.receive(bytes, move |pieces| artifacts.receive(pieces, &wanted)).await?;
        taken.map_err(|error| not_taken(&error))?;
        Ok(self.outgoing.send(&Reply::Done).await?)
    }
}

fn not_taken(error: &ArtifactError) -> Failure {
    let failure = Failure::new(Exit::Failed, "the artifact was not taken in").because(error.to_string());
    if error.is_full() {
        failure.next("make room on the host, then try again")
    } else {
        failure.next("try again; what arrived of it is gone")
    }
}
