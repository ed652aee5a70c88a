//! The env files of a deploy: the release's own, written before anything starts, and the host's, which follows when the release is live. A deploy
//! that fails or dies leaves the old values beside the old release.

use std::collections::BTreeSet;
use std::path::Path;

use cutover_core::env_file;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, RunId, VariableName};
use cutover_core::plan::{EnvSource, PreflightPlan};
use cutover_core::release::Release;
use cutover_core::secret::{Secret, Secrets};

use crate::assignment::{self, Assignment};
use crate::files;
use crate::installation;
use crate::journal::Trouble;

/// What the client wants of the host's env file.
#[derive(Debug, Clone, Default)]
pub struct EnvChange {
    /// Names that go.
    pub unset: BTreeSet<VariableName>,
    /// What was sent stays.
    pub keep: bool,
}

impl EnvChange {
    /// What a run was given, for whoever goes on with it; nothing, where its folder has gone with its end.
    pub fn of(layout: &Layout, run: RunId) -> Self {
        if !layout.run_folder(run).exists() {
            return Self::default();
        }
        Assignment::load(layout, run).map_or_else(
            |error| {
                tracing::warn!(%error, "what the run was to change in the env file is not known");
                Self::default()
            },
            |assignment| Self { unset: assignment.unset, keep: assignment.keep_env },
        )
    }
}

/// Whose files.
#[derive(Clone, Copy)]
pub(crate) struct EnvFiles<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) app: &'a AppId,
    pub(crate) run: RunId,
}

impl EnvFiles<'_> {
    /// What the new release gets: the host's env file with what was sent over it, over what the plan names as their base. Values that were
    /// generated are kept in the host's file at once, for they must never change by themselves: a volume is made with them.
    pub(crate) fn of_release(self, plan: &PreflightPlan, change: &EnvChange) -> Result<Secrets, Trouble> {
        let sent = assignment::sent(self.layout, self.run);
        let mut host = self.host()?;
        let before = host.clone();
        for name in &plan.generate {
            if host.get(name).is_none() && sent.get(name).is_none() {
                host.insert(name.clone(), generated()?);
            }
        }
        if host != before {
            self.write(&host)?;
        }
        let mut values = match &plan.env {
            EnvSource::Release { base } => read(&self.layout.release_env(self.app, base))?,
            EnvSource::HostFile | EnvSource::Recorded => Secrets::new(),
        };
        values = values.overlaid(&host);
        for name in &change.unset {
            values.remove(name);
        }
        Ok(values.overlaid(&sent))
    }

    /// Once the release is live its values are the host's. Done again it changes nothing more.
    pub(crate) fn keep(self, change: &EnvChange) -> Result<(), Trouble> {
        let before = self.host()?;
        let mut host = before.clone();
        for name in &change.unset {
            host.remove(name);
        }
        if change.keep {
            host = host.overlaid(&assignment::sent(self.layout, self.run));
        }
        if host == before { Ok(()) } else { self.write(&host) }
    }

    /// The host's env file; absent: no values.
    fn host(self) -> Result<Secrets, Trouble> {
        read(&self.layout.env_file(self.app))
    }

    fn write(self, values: &Secrets) -> Result<(), Trouble> {
        let path = self.layout.env_file(self.app);
        files::ensure_folder(files::folder_of(&path), 0o700)?;
        Ok(files::replace(&path, values.to_env_file().as_bytes(), 0o600)?)
    }
}

/// The release as it goes on record, once its env file is written. It was planned before the host made the values that nobody had given: without
/// their hashes each would be a variable that has changed, to the next deploy.
pub(crate) fn as_recorded(
    layout: &Layout,
    plan: &PreflightPlan,
    release: &Release,
) -> Result<Release, Trouble> {
    let mut recorded = release.clone();
    let mut unknown = plan.generate.iter().filter(|name| !release.variables.contains_key(*name)).peekable();
    if unknown.peek().is_some() {
        let hashes =
            read(&layout.release_env(&release.app, &release.id))?.fingerprints(&installation::salt(layout)?);
        recorded.variables.extend(unknown.filter_map(|name| Some((name.clone(), hashes.get(name)?.clone()))));
    }
    Ok(recorded)
}

/// The values of an env file; absent: none.
pub(crate) fn read(path: &Path) -> Result<Secrets, Trouble> {
    match std::fs::read_to_string(path) {
        Ok(text) => env_file::parse(&text).map_err(|errors| {
            let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
            Trouble::plain(format!("{}: {}", path.display(), lines.join("; ")))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Secrets::new()),
        Err(error) => Err(Trouble::plain(format!("{}: {error}", path.display()))),
    }
}

/// 32 characters from the kernel's random numbers.
pub(crate) fn generated() -> Result<Secret, Trouble> {
    let mut bytes = [0_u8; 16];
    let read = std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    read.map_err(|error| Trouble::plain(format!("no random numbers: {error}")))?;
    Ok(Secret::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: &str = "GREETING=\"old\"\nOTHER=\"same\"\n";

    fn secrets(text: &str) -> Secrets {
        env_file::parse(text).unwrap()
    }

    fn preflight(generate: &[&str]) -> PreflightPlan {
        PreflightPlan {
            disk: 0,
            artifacts: BTreeSet::new(),
            images: std::collections::BTreeMap::new(),
            engine: false,
            proxy: false,
            env: EnvSource::HostFile,
            required: BTreeSet::new(),
            generate: generate.iter().map(|name| name.parse().unwrap()).collect(),
            ports: BTreeSet::new(),
        }
    }

    /// A host whose env file has [`VALUES`], and a run that was sent some.
    fn with_sent(sent: &str, check: impl FnOnce(EnvFiles<'_>)) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        let (app, run) = ("shop/local".parse().unwrap(), RunId::new(uuid::Uuid::now_v7()));
        let files = EnvFiles { layout: &layout, app: &app, run };
        files.write(&secrets(VALUES)).unwrap();
        let given = layout.run_folder(run).join("env");
        std::fs::create_dir_all(files::folder_of(&given)).unwrap();
        std::fs::write(given, sent).unwrap();
        check(files);
    }

    #[test]
    fn given_a_release_that_is_not_live_yet_then_the_host_keeps_its_old_values() {
        let change = EnvChange { unset: ["OTHER".parse().unwrap()].into(), keep: true };
        with_sent("GREETING=new\n", |files| {
            let release = files.of_release(&preflight(&[]), &change).unwrap();

            assert_eq!(release, secrets("GREETING=new\n"));
            assert_eq!(files.host().unwrap(), secrets(VALUES), "it may still fail");

            files.keep(&change).unwrap();
            files.keep(&change).unwrap();

            assert_eq!(files.host().unwrap(), secrets("GREETING=new\n"));
        });
    }

    #[test]
    fn what_is_sent_for_one_deploy_stays_with_its_release() {
        with_sent("GREETING=new\n", |files| {
            files.keep(&EnvChange::default()).unwrap();

            assert_eq!(files.host().unwrap(), secrets(VALUES));
        });
    }

    #[test]
    fn a_generated_value_is_kept_before_anything_is_made_with_it() {
        with_sent("", |files| {
            let plan = preflight(&["PASSWORD", "OTHER"]);
            let release = files.of_release(&plan, &EnvChange::default()).unwrap();

            assert_eq!(files.host().unwrap(), release, "also where the deploy then fails");
            assert_eq!(release.get(&"OTHER".parse().unwrap()).unwrap().expose(), "same");
            assert_eq!(files.of_release(&plan, &EnvChange::default()).unwrap(), release);
        });
    }
}
