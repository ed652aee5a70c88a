//! The image that the example's images are made from: its program, and what that needs to run, as it lies on this machine. Nothing is fetched.
//! As the tests' other images it is made once on an engine, and stays there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use cutover_core::hash::ContentHash;
use cutover_engine::{BaseImages, BuildCache, BuildSpec, Context, ContextSource, Engine};

/// Where the example's Dockerfiles expect the program.
const PROGRAM: &str = "app/guestbook";
const DOCKERFILE: &str = "FROM scratch\nCOPY files /\n";

/// Its name on the engine, made where it is not there yet: another program has another one.
pub(crate) async fn made(engine: &Engine, program: &Path) -> anyhow::Result<String> {
    let program_itself = std::fs::read(program).with_context(|| program.display().to_string())?;
    let tag = format!("cutover-test/guestbook:{}", ContentHash::of(&program_itself).short());
    if engine.inspect_image(&tag).await.is_err() {
        build(engine, program, &tag).await?;
    }
    Ok(tag)
}

async fn build(engine: &Engine, program: &Path, tag: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let files = folder.path().join("files");
    copy(program, &files.join(PROGRAM))?;
    for library in libraries(program)? {
        copy(&library, &files.join(library.strip_prefix("/").unwrap_or(&library)))?;
    }
    std::fs::write(folder.path().join("Dockerfile"), DOCKERFILE)?;
    let context = Context::open(ContextSource::WorkTree, folder.path(), ".", "Dockerfile", &[]).await?;
    let spec = BuildSpec {
        context,
        target: None,
        arguments: BTreeMap::new(),
        labels: BTreeMap::new(),
        tag: Some(tag.to_owned()),
        platform: None,
        cache: BuildCache::Use,
        bases: BaseImages::Here,
        network: None,
        logins: Vec::new(),
    };
    engine.build(&spec, &mut |_| ()).await.context("the base of the example's images was not built")?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to.parent().context("it has no folder")?)?;
    std::fs::copy(from, to).with_context(|| format!("{} cannot be copied", from.display()))?;
    // The builder takes a step from its cache where nothing of its input changed, and times count.
    std::fs::File::open(to)?.set_modified(std::time::SystemTime::UNIX_EPOCH)?;
    Ok(())
}

/// The loader and the libraries that a program asks for; none for a static one.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output =
        Command::new("ldd").arg(program).output().context("ldd, which tells what a program needs")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("not found") {
        bail!("{} lacks libraries: {text}", program.display());
    }
    Ok(paths(&text))
}

/// `name => /path (address)`, or `/path (address)` for the loader; the kernel's own has no path.
fn paths(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    text.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_what_ldd_says_then_the_files_are_known() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n\t/lib64/ld.so.2 (0x0000)\n";
        assert_eq!(paths(text), ["/lib/libc.so.6", "/lib64/ld.so.2"].map(PathBuf::from));
        assert!(paths("\tstatically linked\n").is_empty());
    }
}
