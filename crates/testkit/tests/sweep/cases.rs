//! The kinds of plan that are swept: what is there before, what is asked, and how it ends when nothing goes wrong.

use cutover_core::exit::Exit;
use cutover_core::plan::Verb;
use cutover_testkit::sim::{Asked, Behaviour, Fault, Migration, Site};

use crate::apps::{
    BOT_ALONE, CONTAINER_DATABASE, CONTAINERS, DATABASE, GREETING, PASSWORD, PASSWORD_OF_A_BOT, SERVER,
    SINGLETON, WARM, WEB_AND_BOT,
};

/// One kind of plan.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    text: String,
    before: Vec<(Ask, Exit)>,
    pub(crate) ask: Ask,
    /// How it ends without a fault.
    pub(crate) ends: Exit,
    /// It may need a person under some faults (S18).
    pub(crate) person: bool,
    /// What nothing needs lies there.
    littered: bool,
}

/// What can be asked of a site.
#[derive(Clone)]
pub(crate) enum Ask {
    /// A deploy of a version; services that are kept stay at theirs.
    Deploy(&'static str, Behaviour, &'static [&'static str]),
    /// A deploy of a version, with a variable.
    DeployWith(&'static str, Behaviour, &'static str, &'static str),
    /// A verb for the app.
    Verb(Verb),
    /// A verb for a service.
    Service(Verb, &'static str),
    /// A rollback that puts databases back.
    RestoreDatabases,
    /// A rollback that takes migrations back.
    MigrateDown,
    /// The newest snapshot in its database's place.
    RestoreSnapshot,
    /// The newest snapshot beside its database.
    RestoreBeside,
    /// A variable.
    Set(&'static str, &'static str),
    /// Another password, by a variable.
    Rotate(&'static str, &'static str),
    /// Remove, volumes included.
    RemoveAll,
}

impl Ask {
    pub(crate) fn of(&self, site: &Site) -> anyhow::Result<Asked> {
        let mut asked = match self {
            Self::Deploy(version, behaviour, kept) => site.deploy(version, *behaviour, kept)?,
            Self::DeployWith(version, behaviour, name, value) => {
                Site::sending(site.deploy(version, *behaviour, &[])?, name, value)?
            }
            Self::Verb(verb) | Self::Service(verb, _) => Site::ask(*verb),
            Self::RestoreDatabases | Self::MigrateDown => Site::ask(Verb::Rollback),
            Self::RestoreSnapshot | Self::RestoreBeside => Site::ask(Verb::SnapshotRestore),
            Self::Set(name, value) => site.set(name, value)?,
            Self::Rotate(name, value) => Site::sending(Site::ask(Verb::SecretsRotate), name, value)?,
            Self::RemoveAll => Site::ask(Verb::Remove),
        };
        match self {
            Self::Service(_, service) => drop(asked.request.services.insert(service.parse()?)),
            Self::RestoreDatabases => asked.request.restore_databases = true,
            Self::MigrateDown => {
                // To the first, across all that were migrated since.
                let first = site.state()?.releases.into_iter().min_by_key(|record| record.sequence);
                asked.request.to = first.map(|record| record.release.id);
                asked.request.migrate_down = true;
            }
            Self::RestoreSnapshot | Self::RestoreBeside => {
                let newest = site.state()?.snapshots.and_then(|mut known| known.pop());
                asked.request.snapshot.name = newest.map(|snapshot| snapshot.name);
                let is_beside = matches!(self, Self::RestoreBeside);
                asked.request.snapshot.to = is_beside.then(|| "scratch".to_owned());
            }
            Self::RemoveAll => asked.request.volumes = true,
            Self::Deploy(..) | Self::DeployWith(..) | Self::Verb(_) | Self::Set(..) | Self::Rotate(..) => {}
        }
        Ok(asked)
    }
}

impl Case {
    fn new(name: &'static str, text: &str, ask: Ask) -> Self {
        let text = text.to_owned();
        Self { name, text, before: Vec::new(), ask, ends: Exit::Done, person: false, littered: false }
    }

    fn after(mut self, ask: Ask) -> Self {
        self.before.push((ask, Exit::Done));
        self
    }

    fn after_failing(mut self, ask: Ask, exit: Exit) -> Self {
        self.before.push((ask, exit));
        self
    }

    fn ends(mut self, exit: Exit) -> Self {
        self.ends = exit;
        self
    }

    fn littered(mut self) -> Self {
        self.littered = true;
        self
    }

    fn may_need_a_person(mut self) -> Self {
        self.person = true;
        self
    }

    /// The site as it is before what is asked.
    pub(crate) async fn site(&self) -> anyhow::Result<Site> {
        let mut site = Site::new(&self.text)?;
        for ((ask, exit), number) in self.before.iter().zip(1..) {
            let moment = site.moment()?;
            let made = site.plan(&ask.of(&site)?, number)?;
            let outcome = site.run(&made, cutover_testkit::sim::FaultPlan::default()).await?;
            let broken = site.check(&moment, &outcome.verdict)?;
            anyhow::ensure!(
                outcome.verdict.exit() == *exit && broken.is_empty(),
                "before: {:?}, {broken:?}",
                outcome.verdict.outcome
            );
        }
        if self.littered {
            site.litter()?;
        }
        Ok(site)
    }
}

fn deploy(version: &'static str, behaviour: Behaviour) -> Ask {
    Ask::Deploy(version, behaviour, &[])
}

fn good() -> Behaviour {
    Behaviour::default()
}

fn exits() -> Behaviour {
    Behaviour { exits: true, ..good() }
}

fn unhealthy() -> Behaviour {
    Behaviour { unhealthy: true, ..good() }
}

fn errors() -> Behaviour {
    Behaviour { errors: true, ..good() }
}

fn mute() -> Behaviour {
    Behaviour { mute: true, ..good() }
}

/// A release that brings the schema to a version, and lives with those from `from` on.
fn migrating(from: u32, to: u32) -> Behaviour {
    Behaviour { migration: Migration::To(to), schemas: Some((from, to)), ..good() }
}

/// Every kind of plan.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = beside_each_other();
    cases.extend(handed_over());
    cases.extend(databases());
    cases.extend(servers());
    cases.extend(rollbacks());
    cases.extend(snapshots());
    cases.extend(containers());
    cases.extend(backing());
    cases.extend(passwords());
    cases.extend(lifecycle());
    cases
}

fn beside_each_other() -> Vec<Case> {
    let first = || deploy("v1", good());
    let second = |name, ask| Case::new(name, WEB_AND_BOT, ask).after(first());
    let unhealthy_ends = |case: Case| case.ends(Exit::NotHealthy);
    vec![
        Case::new("first deploy", WEB_AND_BOT, first()),
        unhealthy_ends(Case::new("first deploy that is unhealthy", WEB_AND_BOT, deploy("v1", unhealthy()))),
        second("blue-green with replicas and a bot", deploy("v2", good())),
        second("a changed page with the bot kept", Ask::Deploy("v2", good(), &["bot"])),
        second("a changed bot with the page kept", Ask::Deploy("v2", good(), &["web"])),
        unhealthy_ends(second("a release that exits", deploy("v2", exits()))),
        unhealthy_ends(second("a release that is unhealthy", deploy("v2", unhealthy()))),
        unhealthy_ends(second("a release that fails its verify", deploy("v2", mute()))),
        unhealthy_ends(second("a release that fails its bake", deploy("v2", errors()))),
        unhealthy_ends(
            second("a second release that is unhealthy", deploy("v3", unhealthy()))
                .after_failing(deploy("v2", unhealthy()), Exit::NotHealthy),
        ),
        second("a deploy after one that was unhealthy", deploy("v3", good()))
            .after_failing(deploy("v2", unhealthy()), Exit::NotHealthy),
        second("a third release", deploy("v3", good())).after(deploy("v2", good())),
        Case::new("a release that stays warm", WARM, deploy("v2", good())).after(first()),
        Case::new("a deploy over a warm one", WARM, deploy("v3", good()))
            .after(first())
            .after(deploy("v2", good())),
    ]
}

fn handed_over() -> Vec<Case> {
    let single =
        |name, behaviour| Case::new(name, SINGLETON, deploy("v2", behaviour)).after(deploy("v1", good()));
    let bot =
        |name, behaviour| Case::new(name, BOT_ALONE, deploy("v2", behaviour)).after(deploy("v1", good()));
    vec![
        single("handover of a routed singleton", good()),
        single("handover to one that exits", exits()).ends(Exit::NotHealthy),
        single("handover to one that is unhealthy", unhealthy()).ends(Exit::NotHealthy),
        single("handover to one that fails its verify", mute()).ends(Exit::NotHealthy),
        single("handover to one that fails its bake", errors()).ends(Exit::NotHealthy),
        Case::new("first deploy of a bot", BOT_ALONE, deploy("v1", good())),
        bot("a bot alone", good()),
        bot("a bot alone that exits", exits()).ends(Exit::NotHealthy),
    ]
}

fn databases() -> Vec<Case> {
    let text = |compatible: &str| DATABASE.replace("COMPATIBLE", compatible);
    let second = |name, compatible: &str, behaviour| {
        Case::new(name, &text(compatible), deploy("v2", behaviour)).after(deploy("v1", migrating(1, 1)))
    };
    let reads_both = || Behaviour { migration: Migration::To(1), schemas: Some((1, 2)), ..good() };
    vec![
        Case::new("first deploy with a database", &text("expand"), deploy("v1", migrating(1, 1))),
        second("nothing pending", "expand", migrating(1, 1)),
        Case::new("an expanding migration", &text("expand"), deploy("v2", migrating(1, 2)))
            .after(deploy("v1", reads_both())),
        Case::new(
            "an expanding migration to a release that fails its bake",
            &text("expand"),
            deploy("v2", Behaviour { errors: true, ..migrating(1, 2) }),
        )
        .after(deploy("v1", reads_both()))
        .ends(Exit::NotHealthy),
        second("a breaking migration", "breaking", migrating(2, 2)).may_need_a_person(),
        second(
            "a breaking migration to an unhealthy release",
            "breaking",
            Behaviour { unhealthy: true, ..migrating(2, 2) },
        )
        .ends(Exit::NotHealthy),
        second(
            "a breaking migration to a release that fails its bake",
            "breaking",
            Behaviour { errors: true, ..migrating(2, 2) },
        )
        .ends(Exit::Person)
        .may_need_a_person(),
        second(
            "a migration that fails in its rehearsal",
            "breaking",
            Behaviour { migration: Migration::Half, ..migrating(2, 2) },
        )
        .ends(Exit::Migration),
        second(
            "a migration that fails on the database itself",
            "breaking",
            Behaviour { migration: Migration::FailsForReal(2), ..migrating(2, 2) },
        )
        .ends(Exit::Migration),
    ]
}

/// A database with a server takes the held path without a rehearsal: that its migration fails shows on the database itself.
fn servers() -> Vec<Case> {
    let second = |name, behaviour| {
        Case::new(name, SERVER, deploy("v2", behaviour)).after(deploy("v1", migrating(1, 1)))
    };
    vec![
        second("a breaking migration of a server", migrating(2, 2)).may_need_a_person(),
        second(
            "a breaking migration of a server that fails half-way",
            Behaviour { migration: Migration::Half, ..migrating(2, 2) },
        )
        .ends(Exit::Migration),
    ]
}

fn rollbacks() -> Vec<Case> {
    let rollback = || Ask::Verb(Verb::Rollback);
    let breaking = || DATABASE.replace("COMPATIBLE", "breaking");
    vec![
        Case::new("rollback", WEB_AND_BOT, rollback())
            .after(deploy("v1", good()))
            .after(deploy("v2", good())),
        Case::new("rollback to a kept bot", WEB_AND_BOT, rollback())
            .after(deploy("v1", good()))
            .after(Ask::Deploy("v2", good(), &["bot"])),
        Case::new("rollback to a warm release", WARM, rollback())
            .after(deploy("v1", good()))
            .after(deploy("v2", good())),
        Case::new("rollback of a singleton", SINGLETON, rollback())
            .after(deploy("v1", good()))
            .after(deploy("v2", good())),
        Case::new("rollback that puts the database back", &breaking(), Ask::RestoreDatabases)
            .after(deploy("v1", migrating(1, 1)))
            .after(deploy("v2", migrating(2, 2)))
            .may_need_a_person(),
        down("rollback that migrates a file down", &breaking(), Some(1)).may_need_a_person(),
        down("rollback that migrates a server down", SERVER, Some(1)).may_need_a_person(),
        down("rollback that migrates a server down twice", SERVER, Some(1))
            .after(deploy("v3", Behaviour { down: Some(2), ..migrating(3, 3) }))
            .may_need_a_person(),
        down("rollback that migrates the server of a stopped app down", SERVER, Some(1))
            .after(Ask::Verb(Verb::Stop))
            .may_need_a_person(),
        down(
            "rollback whose down migration of a server fails half-way while the app is stopped",
            SERVER,
            None,
        )
        .after(Ask::Verb(Verb::Stop))
        .ends(Exit::Migration),
        down("rollback whose down migration fails on a copy", &breaking(), None).ends(Exit::Migration),
        down("rollback whose down migration of a server fails half-way", SERVER, None).ends(Exit::Migration),
    ]
}

/// A rollback by the `down` command of the release that was migrated, which leads to this version or fails.
fn down(name: &'static str, text: &str, to: Option<u32>) -> Case {
    let text = text.replace("compatible: breaking", "compatible: breaking, down: ./down");
    Case::new(name, &text, Ask::MigrateDown)
        .after(deploy("v1", migrating(1, 1)))
        .after(deploy("v2", Behaviour { down: to, ..migrating(2, 2) }))
}

fn snapshots() -> Vec<Case> {
    let file = DATABASE.replace("COMPATIBLE", "expand");
    let mariadb = SERVER.replace("engine: postgres", "engine: mariadb");
    let create = || Ask::Verb(Verb::SnapshotCreate);
    let on = |name, text: &str, ask| Case::new(name, text, ask).after(deploy("v1", migrating(1, 1)));
    vec![
        on("a snapshot by hand", &file, create()),
        on("a snapshot of a server by hand", SERVER, create()),
        on("a snapshot put back", &file, Ask::RestoreSnapshot).after(create()).may_need_a_person(),
        on("a snapshot of a server put back", SERVER, Ask::RestoreSnapshot)
            .after(create())
            .may_need_a_person(),
        on("a snapshot of a server put beside", SERVER, Ask::RestoreBeside).after(create()),
        on("a snapshot put beside under its name", &mariadb, Ask::RestoreBeside).after(create()),
    ]
}

fn containers() -> Vec<Case> {
    let second = |name, ask| Case::new(name, CONTAINERS, ask).after(deploy("v1", good()));
    let breaking = |name, behaviour| {
        Case::new(name, CONTAINER_DATABASE, deploy("v2", behaviour)).after(deploy("v1", migrating(1, 1)))
    };
    vec![
        Case::new("first deploy of containers", CONTAINERS, deploy("v1", good())),
        second("containers", deploy("v2", good())),
        second("containers with one kept", Ask::Deploy("v2", good(), &["api"])),
        second("containers with a changed one that the page calls", Ask::Deploy("v2", good(), &["web"])),
        second(
            "containers with one kept that fail their bake",
            Ask::Deploy("v2", errors(), &["api", "worker"]),
        )
        .ends(Exit::NotHealthy),
        second("containers that are unhealthy", deploy("v2", unhealthy())).ends(Exit::NotHealthy),
        Case::new("rollback of containers with one kept", CONTAINERS, Ask::Verb(Verb::Rollback))
            .after(deploy("v1", good()))
            .after(Ask::Deploy("v2", good(), &["api"])),
        second("remove containers", Ask::RemoveAll),
        breaking("containers with a breaking migration", migrating(2, 2)).may_need_a_person(),
        breaking(
            "containers whose migration fails",
            Behaviour { migration: Migration::FailsForReal(2), ..migrating(2, 2) },
        )
        .ends(Exit::Migration),
    ]
}

fn backing() -> Vec<Case> {
    let redis = |verb| Ask::Service(verb, "redis");
    let only_redis = |behaviour| Ask::Deploy("v2", behaviour, &["web", "api", "worker"]);
    let on = |name, ask| Case::new(name, CONTAINERS, ask).after(deploy("v1", good()));
    vec![
        on("restart of a backing service", redis(Verb::BackingRestart)),
        on("a backing service made anew", redis(Verb::BackingApply)).after(only_redis(good())),
        on("a backing service made anew that is unhealthy", redis(Verb::BackingApply))
            .after(only_redis(unhealthy()))
            .ends(Exit::NotHealthy),
    ]
}

fn passwords() -> Vec<Case> {
    let name = "POSTGRES_PASSWORD";
    let first = |behaviour| Ask::DeployWith("v1", behaviour, name, "old");
    let rotate =
        |case, text: &str, behaviour| Case::new(case, text, Ask::Rotate(name, "new")).after(first(behaviour));
    let insists = || Behaviour { password: Some("old"), ..good() };
    vec![
        rotate("a password is rotated", PASSWORD, good()),
        rotate("a password is rotated of an app that insists on the old one", PASSWORD, insists())
            .ends(Exit::NotHealthy),
        rotate("a password is rotated of a bot alone", PASSWORD_OF_A_BOT, good()),
        rotate("a password is rotated of an app that is stopped", PASSWORD, good())
            .after(Ask::Verb(Verb::Stop)),
        Case::new("a password is rotated again", PASSWORD, Ask::Rotate(name, "newer"))
            .after(first(good()))
            .after(Ask::Rotate(name, "new")),
        Case::new("rollback across a rotated password", PASSWORD, Ask::Verb(Verb::Rollback))
            .after(first(good()))
            .after(deploy("v2", good()))
            .after(Ask::Rotate(name, "new")),
    ]
}

fn lifecycle() -> Vec<Case> {
    let on = |name, text: &str, ask| Case::new(name, text, ask).after(deploy("v1", good()));
    vec![
        on("restart", WEB_AND_BOT, Ask::Verb(Verb::Restart)),
        on("restart of a service", WEB_AND_BOT, Ask::Service(Verb::Restart, "web")),
        on("restart of a singleton", SINGLETON, Ask::Verb(Verb::Restart)),
        on("stop", WEB_AND_BOT, Ask::Verb(Verb::Stop)),
        on("stop of a service", WEB_AND_BOT, Ask::Service(Verb::Stop, "web")),
        on("stop of a bot", BOT_ALONE, Ask::Verb(Verb::Stop)),
        on("start", WEB_AND_BOT, Ask::Verb(Verb::Start)).after(Ask::Verb(Verb::Stop)),
        on("start of a service", WEB_AND_BOT, Ask::Service(Verb::Start, "bot")).after(Ask::Verb(Verb::Stop)),
        on("prune of nothing", WEB_AND_BOT, Ask::Verb(Verb::Prune)),
        on("prune", WEB_AND_BOT, Ask::Verb(Verb::Prune)).littered(),
        on("prune beside containers", CONTAINERS, Ask::Verb(Verb::Prune)).littered(),
        on("remove", WEB_AND_BOT, Ask::Verb(Verb::Remove)),
        on("remove of a bot", BOT_ALONE, Ask::Verb(Verb::Remove)),
        Case::new("a variable is set", GREETING, Ask::Set("GREETING", "hello")).after(Ask::DeployWith(
            "v1",
            good(),
            "GREETING",
            "good morning",
        )),
        on("a variable nobody uses is set", WEB_AND_BOT, Ask::Set("OTHER", "hello")),
    ]
}

/// Whether a fault can be put where nothing is asked to be waited for.
pub(crate) fn is_cancel(fault: Fault) -> bool {
    fault == Fault::Cancel
}
