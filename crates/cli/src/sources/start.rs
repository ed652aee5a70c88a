//! What a service starts with, as far as it is text here: its command, its Dockerfile, and the script these name. One that migrates its database by
//! itself is noticed, since no snapshot is taken before that.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use cutover_core::config::settings::{BuildSettings, Command, Config, RunSettings, Source};

use super::git;
use super::images::BuildFrom;
use super::project::Project;

/// The words by which migration tools are told to migrate, in their order; others may stand between them.
const TELLS: [&[&str]; 24] = [
    &["alembic", "upgrade"],
    &["artisan", "migrate"],
    &["atlas", "migrate", "apply"],
    &["dbmate", "up"],
    &["diesel", "migration", "run"],
    &["django-admin", "migrate"],
    &["drizzle-kit", "migrate"],
    &["flask", "db", "upgrade"],
    &["flyway", "migrate"],
    &["goose", "up"],
    &["knex", "migrate:latest"],
    &["liquibase", "update"],
    &["manage.py", "migrate"],
    &["migrate", "-database", "up"],
    &["migrate", "-path", "up"],
    &["prisma", "db", "push"],
    &["prisma", "migrate", "deploy"],
    &["rails", "db:migrate"],
    &["rails", "db:prepare"],
    &["rake", "db:migrate"],
    &["rake", "db:prepare"],
    &["sequelize", "db:migrate"],
    &["sqlx", "migrate", "run"],
    &["typeorm", "migration:run"],
];
/// Of a file so much is looked at, in bytes.
const READ: u64 = 256 * 1024;
/// Where scripts lie that an image has elsewhere.
const FOLDERS: [&str; 5] = ["", "bin/", "docker/", "scripts/", "deploy/"];

/// A note of each service that migrates by itself.
pub(crate) fn notes(config: &Config, project: &Project, from: BuildFrom<'_>) -> Vec<String> {
    let services = config.services.iter().filter_map(|(name, service)| {
        // An artifact is of the work tree in any case.
        let from = if matches!(service.source, Source::Artifact { .. }) { BuildFrom::WorkTree } else { from };
        let found = migrates(&service.source, &service.run, &Files { folder: &project.folder, from })?;
        Some(format!(
            "service `{name}` seems to migrate its database by itself when it starts (`{}` in {}): if so, no snapshot is taken before that, each instance does it, \
             and no rollback knows of it; give it to `migrate:` of a database, and take it out there",
            found.tool, found.place
        ))
    });
    services.collect()
}

/// How a service migrates by itself.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    tool: String,
    place: String,
}

/// Files of the repository as they are deployed.
struct Files<'a> {
    folder: &'a Path,
    from: BuildFrom<'a>,
}

impl Files<'_> {
    /// The text of one, relative to cutover.yml.
    fn text(&self, path: &str) -> Option<String> {
        match self.from {
            BuildFrom::Commit(commit) => git::text(self.folder, commit, path),
            BuildFrom::WorkTree => {
                let path = self.folder.join(path);
                // What is none, a pipe say, would never end.
                if !fs::metadata(&path).ok()?.is_file() {
                    return None;
                }
                let mut bytes = Vec::new();
                fs::File::open(path).ok()?.take(READ).read_to_end(&mut bytes).ok()?;
                Some(String::from_utf8_lossy(&bytes).into_owned())
            }
        }
    }
}

fn migrates(source: &Source, run: &RunSettings, files: &Files<'_>) -> Option<Found> {
    let (mut started, mut place) = (Vec::new(), "its command".to_owned());
    let folder = match source {
        Source::Build(build) => {
            let file = below(&build.context, &build.dockerfile);
            let image = files.text(&file).map(|text| Image::of(&text, build));
            let Image { entrypoint, command } = image.unwrap_or_default();
            // An entrypoint of cutover.yml's takes both of the image's away.
            let (entrypoint, command) = match (&run.entrypoint, &run.command) {
                (Some(own), _) => (line(own), String::new()),
                (None, Some(_)) => (entrypoint, String::new()),
                (None, None) => (entrypoint, command),
            };
            if run.entrypoint.is_none() && run.command.is_none() {
                place = file;
            }
            started.extend([entrypoint, command]);
            build.context.as_str()
        }
        Source::Artifact { path } => path.as_str(),
        Source::Image { .. } => "",
    };
    started.extend(run.entrypoint.as_ref().map(line));
    started.extend(run.command.as_ref().map(line));
    if let Some(tool) = started.iter().find_map(|text| told(text)) {
        return Some(Found { tool, place });
    }
    if matches!(source, Source::Image { .. }) {
        return None;
    }
    let words = started.iter().flat_map(|text| words(text)).filter(|word| word.contains(['/', '.']));
    words.take(4).find_map(|word| {
        let path = script(word, folder).into_iter().find_map(|path| Some((files.text(&path)?, path)))?;
        Some(Found { tool: told(&path.0)?, place: path.1 })
    })
}

/// What an image starts, by its Dockerfile.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Image {
    entrypoint: String,
    command: String,
}

impl Image {
    /// Of the stage that is built.
    fn of(dockerfile: &str, build: &BuildSettings) -> Self {
        let (mut image, mut is_over) = (Self::default(), false);
        let (mut stage, mut stages) = (String::new(), BTreeMap::new());
        for line in dockerfile.replace("\\\n", " ").lines() {
            let (instruction, rest) = line.trim().split_once(char::is_whitespace).unwrap_or_default();
            match instruction.to_ascii_uppercase().as_str() {
                "FROM" if is_over => break,
                "FROM" => {
                    // One stage may begin where another one ended.
                    stages.insert(std::mem::take(&mut stage), image);
                    let words: Vec<&str> =
                        rest.split_whitespace().filter(|word| !word.starts_with("--")).collect();
                    image = words.first().and_then(|from| stages.get(*from)).cloned().unwrap_or_default();
                    stage = words.last().map(|name| (*name).to_owned()).unwrap_or_default();
                    is_over = build.target.as_ref() == Some(&stage);
                }
                "ENTRYPOINT" => rest.clone_into(&mut image.entrypoint),
                "CMD" => rest.clone_into(&mut image.command),
                _ => {}
            }
        }
        image
    }
}

fn line(command: &Command) -> String {
    command.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Relative to cutover.yml.
fn below(folder: &str, path: &str) -> String {
    if folder.is_empty() || folder == "." { path.to_owned() } else { format!("{folder}/{path}") }
}

/// Where the script may lie that an image has at this path.
fn script(word: &str, folder: &str) -> Vec<String> {
    let path = word.trim_start_matches("./").trim_start_matches('/');
    let mut paths = vec![path.to_owned()];
    paths.extend(path.match_indices('/').map(|(at, _)| path[at + 1..].to_owned()));
    let name = path.rsplit('/').next().unwrap_or(path);
    paths.extend(FOLDERS.map(|folder| format!("{folder}{name}")));
    paths.dedup();
    paths.retain(|path| !path.is_empty() && !path.split('/').any(|part| part == ".."));
    paths.into_iter().map(|path| below(folder, &path)).collect()
}

/// The words of a command, in whatever form it is written.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| letter.is_whitespace() || "[]\"',()".contains(letter))
        .filter(|word| !word.is_empty())
}

/// What in a text tells a tool to migrate.
fn told(text: &str) -> Option<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let commands = lines.flat_map(|line| line.split(['&', ';', '|']));
    commands.into_iter().find_map(|command| {
        let words: Vec<&str> = words(command).collect();
        let only_looks = words.iter().any(|word| ["--check", "--plan", "--dry-run", "--help"].contains(word));
        let tell = TELLS.iter().filter(|_| !only_looks).find(|tell| has_in_order(&words, tell))?;
        Some(tell.join(" "))
    })
}

/// The first by the name of its file, which a path may lead to.
fn has_in_order(words: &[&str], tell: &[&str]) -> bool {
    let mut left = words.iter().map(|word| word.rsplit('/').next().unwrap_or(word));
    tell.iter().all(|wanted| left.any(|word| word == *wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_told_to_migrate_in_many_forms_and_looking_is_none() {
        for (text, tool) in [
            (
                r#"["sh", "-c", "alembic -c db/alembic.ini upgrade head && exec uvicorn app:app"]"#,
                "alembic upgrade",
            ),
            ("set -e\npython3 ./manage.py migrate --noinput\nexec \"$@\"", "manage.py migrate"),
            ("bundle exec bin/rails db:prepare; bin/rails server", "rails db:prepare"),
            ("npx prisma migrate deploy && node server.js", "prisma migrate deploy"),
            ("/usr/bin/migrate -path migrations -database $DATABASE_URL up", "migrate -database up"),
        ] {
            assert_eq!(told(text).as_deref(), Some(tool), "{text}");
        }
        for text in [
            "# alembic upgrade head",
            "alembic current && echo upgrade",
            "python3 manage.py migrate --check",
            "exec gunicorn shop.wsgi",
            "echo migrate; up",
        ] {
            assert_eq!(told(text), None, "{text}");
        }
    }

    #[test]
    fn of_a_dockerfile_the_stage_counts_that_is_built() {
        let text = "FROM base AS api\nENTRYPOINT [\"/entrypoint.sh\"]\nCMD serve \\\n  --port 80\nFROM api AS worker\ncmd work\n";
        let build = |target: Option<&str>| BuildSettings {
            context: ".".to_owned(),
            dockerfile: "Dockerfile".to_owned(),
            target: target.map(str::to_owned),
            args: [].into(),
            on: cutover_core::config::settings::BuildPlace::Here,
        };

        let api = Image::of(text, &build(Some("api")));
        let worker = Image::of(text, &build(None));

        assert_eq!((worker.entrypoint.as_str(), worker.command.as_str()), ("[\"/entrypoint.sh\"]", "work"));
        assert!(api.command.starts_with("serve") && api.command.ends_with("--port 80"), "{api:?}");
    }

    #[test]
    fn a_script_is_looked_for_where_an_image_may_have_it_from_and_never_outside() {
        assert_eq!(
            script("/app/docker/entrypoint.sh", "api")[..3],
            ["api/app/docker/entrypoint.sh", "api/docker/entrypoint.sh", "api/entrypoint.sh"]
        );
        assert!(script("../../etc/passwd", ".").iter().all(|path| !path.contains("..")));
    }
}
