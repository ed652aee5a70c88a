//! Files of the repository that are mounted into containers: from the commit that is deployed, or from the work tree, as with images.

use std::collections::BTreeSet;
use std::path::Path;

use cutover_core::config::settings::Config;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::release::Shipped;

use super::artifact::{Artifact, ArtifactError};
use super::contents::Contents;
use super::git;
use super::images::BuildFrom;
use super::project::Project;

/// Looks at all that is mounted of the repository; what the host lacks of it is sent as artifacts are.
pub(crate) fn look_at_shipped(
    config: &Config,
    project: &Project,
    from: BuildFrom<'_>,
    contents: &mut Contents,
) -> Result<(), Failure> {
    let paths: BTreeSet<&str> = config.shipped().collect();
    if paths.is_empty() {
        return Ok(());
    }
    let never = project.never_sent();
    let folder = match from {
        BuildFrom::WorkTree => project.folder.clone(),
        BuildFrom::Commit(commit) => {
            let export = tempfile::tempdir().map_err(|error| not_exported(&error.to_string()))?;
            git::export(&project.folder, commit, &paths, export.path())
                .map_err(|error| not_exported(&error.to_string()))?;
            contents.export.insert(export).path().to_owned()
        }
    };
    for path in paths {
        let (shipped, artifact) =
            shipped(&folder, path, &never).map_err(|error| not_shipped(path, from, &error))?;
        contents.artifacts.insert(shipped.hash.clone(), artifact);
        contents.shipped.insert(path.to_owned(), shipped);
    }
    Ok(())
}

fn shipped(
    folder: &Path,
    path: &str,
    never: &BTreeSet<String>,
) -> Result<(Shipped, Artifact), ArtifactError> {
    let artifact = Artifact::look(folder, path, never)?;
    let file = artifact.single(&folder.join(path));
    Ok((Shipped { hash: artifact.hash.clone(), file }, artifact))
}

fn not_exported(why: &str) -> Failure {
    Failure::new(Exit::Failed, "the files that are mounted could not be taken from the commit")
        .because(why)
        .next("`--dirty` takes them from the work tree")
}

fn not_shipped(path: &str, from: BuildFrom<'_>, error: &ArtifactError) -> Failure {
    let failure =
        Failure::new(Exit::Configuration, format!("`./{path}`, which is mounted, cannot be shipped"));
    match (error, from) {
        (ArtifactError::Missing(_), BuildFrom::Commit(commit)) => failure
            .because(format!("commit {} does not have it", commit.get(..7).unwrap_or(commit)))
            .next("commit it, or take the work tree: `--dirty`"),
        (ArtifactError::Missing(_), BuildFrom::WorkTree) => failure
            .because("it is not there")
            .next("it is looked for beside cutover.yml: create it, or correct `volumes:`"),
        (ArtifactError::Never(_), _) => failure.because(error.to_string()).next(
            "declare the names under `environment:` without values: they reach the container as variables",
        ),
        (ArtifactError::Link(_) | ArtifactError::Outside { .. }, _) => failure
            .because(error.to_string())
            .next("mount what the link leads to, from within the repository"),
        _ => failure.because(error.to_string()).next("correct `volumes:` in cutover.yml"),
    }
}
