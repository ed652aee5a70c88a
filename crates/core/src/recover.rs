//! From a journal and a look to what is done next: the same way for a failed stage, a cancel, a deadline and a crash.
//!
//! What is served and what runs decides; the journal explains it, it does not overrule it (S1). Not yet switched: the new goes, the old
//! goes on. Switched: finish, or switch back while the old is warm.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cutover_routes::Entry as RouteEntry;

use crate::config::settings::{Compatible, Strategy};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::gate::Check;
use crate::journal::{Entry, Step, StepResult, What};
use crate::names::{DatabaseName, InstanceName, ServiceName};
use crate::plan::specify::{reference, respecify};
use crate::plan::{
    CheckPlan, Direction, DrainPlan, Follow, GatedInstance, HandoverPlan, HeldDatabase, HostPlan,
    InstanceRef, Migration, Planned, RecordPlan, ServicePlan, Stage, StartPlan, SwitchPlan, Verb, VerifyPlan,
    WhyNot,
};
use crate::release::{Live, Release};
use crate::request::Stamp;
use crate::state::{HostState, Migrated, Restored, Role};
use crate::verdict::{Outcome, Verdict};

/// What is done next.
#[derive(Debug, Clone, PartialEq)]
pub enum Recovery {
    /// Nothing: this is how it ended.
    Settled(Box<Verdict>),
    /// This, by the same executor; then look again.
    Act(Box<HostPlan>),
    /// Nothing that cutover may do by itself.
    Person(Box<Failure>),
}

/// Where a run stands, read from its journal and the host as found.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The commit point was passed: what was asked is live.
    pub switched: bool,
    /// The failure that turned the run around, or stopped it.
    pub failed: Option<(Stage, Failure)>,
    /// A breaking migration was carried out, or a database put back, and its hold has ended: no way back by itself (S18).
    pub past_return: bool,
    /// What was replaced is no longer whole: no way back either.
    pub drained: bool,
}

/// Decides what is done next for a run whose process ended, or whose stage failed.
pub fn recover(journal: &[Entry], found: &HostState, stamp: Stamp) -> Recovery {
    let told = journal.iter().rposition(|entry| matches!(entry.what, What::Verdict { .. }));
    if let Some(What::Verdict { verdict }) = told.map(|at| &journal[at].what)
        && verdict.exit() != Exit::Person
    {
        return Recovery::Settled(verdict.clone());
    }
    let Some(goal) = goal(journal) else {
        let failure = Failure::new(Exit::Failed, "the run ended before it had a plan").next("start it again");
        return Recovery::Settled(Box::new(verdict_of_none(journal, found, stamp, failure)));
    };
    if is_untouched(journal) {
        return Recovery::Settled(Box::new(conclude(journal, found, stamp)));
    }
    let standing = standing(journal, goal, found);
    let carried_out = finished(journal);
    let onward_bound = standing.switched && !wants_back(&standing);
    let is_back = !standing.switched || goal.switch.todo().is_none();
    let is_done = match carried_out {
        Some(Direction::Forward) => onward_bound,
        Some(Direction::Back) => !onward_bound && is_back && clean(goal, found),
        None => false,
    };
    if is_done {
        return Recovery::Settled(Box::new(conclude(journal, found, stamp)));
    }
    // Once a person was told, each process that comes to settle tries once: the journal is not to grow without end.
    let most = if told.is_some() { 1 } else { crate::defaults::RECOVERIES as usize + 1 };
    let since = &journal[told.unwrap_or(0)..];
    if since.iter().filter(|entry| matches!(entry.what, What::Resumed { .. })).count() >= most {
        return Recovery::Person(Box::new(person(goal, &standing, found)));
    }
    if onward_bound {
        Recovery::Act(Box::new(onward(goal, &standing, journal)))
    } else {
        Recovery::Act(Box::new(back(goal, journal, found, stamp)))
    }
}

/// Whether a run that a person was told of is in nobody's way: no database waits to be put back, and nothing of it runs that is not live.
/// Then another run may go on from what is there.
pub fn is_out_of_the_way(journal: &[Entry], found: &HostState) -> bool {
    let Some(goal) = goal(journal) else { return true };
    let is_settled = standing(journal, goal, found).switched || clean(goal, found);
    is_settled && restores(goal, journal, found).is_empty()
}

/// The preflight failed: nothing was begun but to write the release's own files. There is nothing to take back, and the way back may need
/// the very thing that is missing.
fn is_untouched(journal: &[Entry]) -> bool {
    let only_looked = |entry: &Entry| match &entry.what {
        What::Intent { step, .. } => matches!(step, Step::Admit),
        What::Resumed { .. } => false,
        _ => true,
    };
    let failed =
        |entry: &Entry| matches!(&entry.what, What::Failed { stage, .. } if *stage <= Stage::Preflight);
    journal.iter().any(failed) && journal.iter().all(only_looked)
}

/// The plan that was asked for: the last one forward before any recovery (a rehearsal may have put its alternative in the first one's
/// place). The rest of a way forward is a plan, too, but it no longer says what was handed over.
pub fn goal(journal: &[Entry]) -> Option<&HostPlan> {
    let recovered =
        journal.iter().position(|entry| matches!(entry.what, What::Resumed { .. })).unwrap_or(journal.len());
    plans(&journal[..recovered]).filter(|plan| plan.direction == Direction::Forward).last()
}

fn plans(journal: &[Entry]) -> impl Iterator<Item = &HostPlan> {
    journal
        .iter()
        .filter_map(|entry| if let What::Planned { plan } = &entry.what { Some(plan.as_ref()) } else { None })
}

/// The direction of the newest plan, when its last stage is over.
fn finished(journal: &[Entry]) -> Option<Direction> {
    let at = journal.iter().rposition(|entry| matches!(entry.what, What::Planned { .. }))?;
    let What::Planned { plan } = &journal[at].what else { return None };
    let recorded =
        journal[at..].iter().any(|entry| matches!(entry.what, What::Left { stage: Stage::Record, .. }));
    recorded.then_some(plan.direction)
}

/// Where the run stands.
pub fn standing(journal: &[Entry], goal: &HostPlan, found: &HostState) -> Standing {
    let switched = match &goal.becomes {
        // Where nothing is switched, what is live stays what it was.
        Some(_) if goal.switch.todo().is_none() => found.live == goal.live,
        Some(_) => found.live.as_ref().is_some_and(|live| live.run == goal.run),
        None => found.live.is_none(),
    };
    let failed = failure(journal);
    let switched_before = switched || journal_switched(journal);
    let migrated = migrated(journal, goal);
    // What was put back is a schema from before, too: what was live cannot run on it.
    let breaking = migrated.iter().any(|migration| migration.compatible == Compatible::Breaking)
        || !restored(journal, goal).is_empty();
    let drained = drained(journal, goal, found);
    Standing { switched, failed, past_return: breaking && switched_before, drained }
}

/// The newest failure of the way forward: it turns a run around. One on the way back does not; that way is walked again.
fn failure(journal: &[Entry]) -> Option<(Stage, Failure)> {
    let mut forward = true;
    let mut failed = None;
    for entry in journal {
        match &entry.what {
            What::Planned { plan } => forward = plan.direction == Direction::Forward,
            What::Failed { stage, failure } if forward => failed = Some((*stage, failure.clone())),
            _ => {}
        }
    }
    failed
}

fn journal_switched(journal: &[Entry]) -> bool {
    outcomes(journal).any(|(step, _)| matches!(step, Step::Switch | Step::Live)) && {
        // A switch of a way back does not count as one forward.

        plans(journal).all(|plan| plan.direction == Direction::Forward)
    }
}

fn wants_back(standing: &Standing) -> bool {
    standing.failed.as_ref().is_some_and(|(stage, _)| *stage < Stage::Drain)
        && !standing.past_return
        && !standing.drained
}

/// Whether something that what was live before needs is gone or going.
fn drained(journal: &[Entry], goal: &HostPlan, found: &HostState) -> bool {
    let began = journal.iter().any(|entry| match &entry.what {
        What::Intent { stage: Stage::Drain, step } => matches!(step, Step::Stop { .. } | Step::Remove { .. }),
        _ => false,
    });
    let Some(live) = &goal.live else { return goal.verb != Verb::Deploy || began };
    began
        || live
            .members
            .values()
            .flatten()
            .any(|name| !found.instances.iter().any(|instance| instance.name == *name))
}

/// Steps with an outcome, in order.
fn outcomes(journal: &[Entry]) -> impl Iterator<Item = (&Step, &StepResult)> {
    journal.iter().filter_map(|entry| {
        let What::Outcome { intent, result } = &entry.what else { return None };
        journal.iter().find_map(|other| match &other.what {
            What::Intent { step, .. } if other.seq == *intent => Some((step, result)),
            _ => None,
        })
    })
}

/// Migrations of the goal that were begun on the database itself.
fn migrated<'a>(journal: &[Entry], goal: &'a HostPlan) -> Vec<&'a Migration> {
    let begun: BTreeSet<&DatabaseName> = journal
        .iter()
        .filter_map(|entry| {
            if let What::Intent { step: Step::Migrate { database }, .. } = &entry.what {
                Some(database)
            } else {
                None
            }
        })
        .collect();
    let direct = goal.migrate.todo().into_iter().flat_map(|plan| &plan.direct);
    let held =
        goal.handover.todo().into_iter().flat_map(|plan| &plan.databases).filter_map(|held| match held {
            HeldDatabase::Migrate { migration } => Some(migration.as_ref()),
            HeldDatabase::Restore { .. } => None,
        });
    direct.chain(held).filter(|migration| begun.contains(&migration.database)).collect()
}

/// What the records keep of the migrations that went live with a goal.
pub fn migration_records(journal: &[Entry], goal: &HostPlan) -> Vec<Migrated> {
    let taken: BTreeSet<&String> = outcomes(journal)
        .filter_map(|(step, _)| if let Step::Snapshot { file, .. } = step { Some(file) } else { None })
        .collect();
    migrated(journal, goal)
        .into_iter()
        .map(|migration| Migrated {
            database: migration.database.clone(),
            compatible: migration.compatible,
            snapshot: taken.contains(&migration.snapshot_file).then(|| migration.snapshot_file.clone()),
        })
        .collect()
}

/// The snapshots that a goal put in the place of databases, because somebody asked for it.
pub fn restored(journal: &[Entry], goal: &HostPlan) -> Vec<Restored> {
    let put: BTreeSet<(&DatabaseName, &String)> =
        outcomes(journal)
            .filter_map(|(step, _)| {
                if let Step::Restore { database, file } = step { Some((database, file)) } else { None }
            })
            .collect();
    let held = goal.handover.todo().into_iter().flat_map(|handover| &handover.databases);
    held.filter_map(|held| match held {
        HeldDatabase::Restore { database, snapshot: Some(snapshot), present: Some(_), .. }
            if put.contains(&(database, snapshot)) =>
        {
            Some(Restored { database: database.clone(), snapshot: snapshot.clone() })
        }
        _ => None,
    })
    .collect()
}

/// The rest of the way forward: what is done is not done again, the public route is verified and the bake begins anew (S20).
fn onward(goal: &HostPlan, standing: &Standing, journal: &[Entry]) -> HostPlan {
    let mut plan = goal.clone();
    plan.preflight = Planned::NotNeeded(WhyNot::AlreadyDone);
    plan.backing = Planned::NotNeeded(WhyNot::AlreadyDone);
    plan.snapshot = Planned::NotNeeded(WhyNot::AlreadyDone);
    plan.migrate = Planned::NotNeeded(WhyNot::AlreadyDone);
    plan.handover = Planned::NotNeeded(WhyNot::AlreadyDone);
    // The new instances are looked at again: started where a crash of the host took them, and gated.
    let mut instances: Vec<GatedInstance> =
        goal.check.todo().map(|check| check.instances.clone()).unwrap_or_default();
    instances.extend(goal.handover.todo().into_iter().flat_map(|handover| handover.incoming.iter().cloned()));
    if instances.is_empty() {
        plan.start = Planned::NotNeeded(WhyNot::AlreadyDone);
        plan.check = Planned::NotNeeded(WhyNot::AlreadyDone);
    } else {
        let joins = goal.start.todo().map(|start| start.joins.clone()).unwrap_or_default();
        plan.start = Planned::Do(StartPlan { retire: Vec::new(), waves: vec![instances.clone()], joins });
        plan.check = Planned::Do(CheckPlan { instances });
    }
    let broken = standing.failed.is_some();
    let baked = journal.iter().any(|entry| matches!(entry.what, What::Left { stage: Stage::Bake, .. }));
    if standing.drained || broken {
        // There is no way back to take: neither would tell anything that could be acted upon.
        plan.bake = Planned::NotNeeded(WhyNot::AlreadyDone);
    }
    if (broken || (standing.drained && baked))
        && let Planned::Do(verify) = &mut plan.verify
    {
        verify.routes.clear();
    }
    if broken && !standing.drained {
        // The gate has been passed once; what failed since is told to a person, not tried again and again.
        plan.start = Planned::NotNeeded(WhyNot::AlreadyDone);
        plan.check = Planned::NotNeeded(WhyNot::AlreadyDone);
    }
    plan
}

/// The way back: the new goes, databases are put back while nothing has them open, what was live is started where it was stopped, gated,
/// and gets its routes back; the switch ends the hold.
fn back(goal: &HostPlan, journal: &[Entry], found: &HostState, stamp: Stamp) -> HostPlan {
    let live = goal.live.as_ref();
    let coming = coming(goal);
    let here: Vec<_> = found
        .instances
        .iter()
        .filter(|instance| {
            instance.ours
                && coming.contains(&instance.name)
                && !live.is_some_and(|live| live.has(&instance.name))
        })
        .collect();
    let one_off = found.instances.iter().filter(|instance| instance.ours && instance.role == Role::OneOff);
    let mut outgoing: Vec<_> = here.iter().map(|instance| reference(found, instance)).collect();
    let databases = restores(goal, journal, found);
    let (handed, following) = (handed(goal), following(goal));
    let among = |set: &BTreeSet<InstanceName>| {
        outgoing.iter().filter(|instance| set.contains(&instance.name)).cloned().collect::<Vec<_>>()
    };
    // Where nothing was live, nobody waits for the place: the routes go first, then what they point at.
    let in_place = if live.is_none() && databases.is_empty() { BTreeSet::new() } else { handed };
    let stopped_first: Vec<_> =
        one_off.clone().map(|instance| reference(found, instance)).chain(among(&in_place)).collect();
    let followed = among(&following);
    outgoing.extend(one_off.map(|instance| reference(found, instance)));
    let old: Vec<GatedInstance> = live
        .into_iter()
        .flat_map(|live| live.members.values().flatten())
        .filter_map(|name| found.instances.iter().find(|instance| instance.name == *name))
        .filter_map(|instance| respecify(found, instance))
        .collect();
    let runs =
        |name: &InstanceName| found.instances.iter().any(|other| other.name == *name && other.is_running());
    let (running, resting): (Vec<_>, Vec<_>) =
        old.into_iter().partition(|instance| runs(&instance.spec.name));
    let running: Vec<_> = running.into_iter().map(|instance| gated_as_it_stands(instance, journal)).collect();
    // What follows the routes forward follows them back: routes go back at once, a polling bot after them.
    let follows = |instance: &GatedInstance| {
        goal.verify
            .todo()
            .is_some_and(|verify| verify.follow.iter().any(|f| f.service == instance.spec.service))
    };
    let (back_after, back_first): (Vec<_>, Vec<_>) = resting.into_iter().partition(follows);
    let switched = standing(journal, goal, found).switched;
    // A table change that may still land is fenced off by another one: it compares before it swaps (S9).
    let hold = if switched || intended(journal, &Step::Switch) {
        goal.handover.todo().map(|handover| handover.hold.clone()).unwrap_or_default()
    } else {
        Vec::new()
    };
    let handover_needed = !(stopped_first.is_empty() && databases.is_empty() && back_first.is_empty());
    // What runs may need what is handed back, to pass its gate.
    let (at_once, afterwards) = if handover_needed { (Vec::new(), running) } else { (running, Vec::new()) };
    let follow = follow_back(goal, &followed, &back_after);
    let switch = match goal.switch.todo() {
        Some(SwitchPlan::Table { before, .. }) => {
            let now =
                found.table.as_ref().and_then(|table| table.table.owners.get(&goal.app.owner())).cloned();
            Planned::Do(SwitchPlan::Table { before: now, after: Some(fenced(before.as_ref(), goal)) })
        }
        Some(SwitchPlan::LiveFile) => Planned::Do(SwitchPlan::LiveFile),
        None => Planned::NotNeeded(WhyNot::Unchanged),
    };
    let joined = goal.start.todo().map(|start| start.joins.clone()).unwrap_or_default();
    let kept_candidates = kept_candidates(journal, goal, found, &coming);
    // Each that fails would add to what is kept.
    outgoing.extend(superseded(goal, found, &kept_candidates));
    HostPlan {
        direction: Direction::Back,
        made: stamp.now,
        fingerprint: found.fingerprint(),
        release: live
            .and_then(|live| found.releases.iter().find(|r| r.release.id == live.release))
            .map(|r| r.release.clone()),
        becomes: goal.live.clone(),
        services: BTreeMap::<ServiceName, ServicePlan>::new(),
        preflight: Planned::NotNeeded(WhyNot::NotInThisVerb),
        backing: Planned::NotNeeded(WhyNot::NotInThisVerb),
        snapshot: Planned::NotNeeded(WhyNot::NotInThisVerb),
        migrate: Planned::NotNeeded(WhyNot::NotInThisVerb),
        start: Planned::NotNeeded(WhyNot::NotInThisVerb),
        check: if at_once.is_empty() {
            Planned::NotNeeded(if live.is_none() { WhyNot::FirstDeploy } else { WhyNot::InHandover })
        } else {
            Planned::Do(CheckPlan { instances: at_once })
        },
        handover: if handover_needed {
            Planned::Do(HandoverPlan {
                hold,
                bounds: goal
                    .handover
                    .todo()
                    .map_or_else(crate::plan::default_hold, |handover| handover.bounds.clone()),
                outgoing: stopped_first,
                databases,
                incoming: back_first,
                afterwards,
            })
        } else {
            Planned::NotNeeded(WhyNot::None)
        },
        switch,
        verify: if follow.is_empty() {
            Planned::NotNeeded(WhyNot::NotInThisVerb)
        } else {
            Planned::Do(VerifyPlan { routes: Vec::new(), follow })
        },
        bake: Planned::NotNeeded(WhyNot::NotInThisVerb),
        drain: Planned::Do(DrainPlan {
            outgoing,
            deadline: goal.drain.todo().map_or(crate::defaults::DRAIN, |drain| drain.deadline),
            keep_warm: Duration::ZERO,
            leaves: joined,
            kept_candidates,
        }),
        record: RecordPlan {
            forget: Vec::new(),
            candidates: Vec::new(),
            networks: Vec::new(),
            volumes: Vec::new(),
            forget_app: false,
        },
        ..goal.clone()
    }
}

/// What was never stopped is asked, and no more: the log lines of its start may have been rotated away since.
fn gated_as_it_stands(mut instance: GatedInstance, journal: &[Entry]) -> GatedInstance {
    let name = &instance.spec.name;
    let stopped = journal.iter().any(
        |entry| matches!(&entry.what, What::Intent { step: Step::Stop { instance }, .. } if instance == name),
    );
    if !stopped {
        instance.gate.checks.retain(|gated| matches!(gated.check, Check::Http { .. } | Check::Tcp { .. }));
    }
    instance
}

/// The entry as it was, marked with the run that was taken back: other bytes than before, so that a change of that run which still hangs
/// somewhere finds another table than it expects.
fn fenced(before: Option<&RouteEntry>, goal: &HostPlan) -> RouteEntry {
    let mut entry = before.cloned().unwrap_or_default();
    entry.facts.insert("settled".to_owned(), goal.run.to_string());
    entry
}

fn intended(journal: &[Entry], wanted: &Step) -> bool {
    journal.iter().any(|entry| matches!(&entry.what, What::Intent { step, .. } if step == wanted))
}

/// Instances that a goal starts.
fn coming(goal: &HostPlan) -> BTreeSet<InstanceName> {
    let beside = goal.start.todo().into_iter().flat_map(|start| start.waves.iter().flatten());
    let handed = goal.handover.todo().into_iter().flat_map(|handover| &handover.incoming);
    let following = goal
        .verify
        .todo()
        .into_iter()
        .flat_map(|verify| verify.follow.iter().flat_map(|follow| &follow.incoming));
    beside.chain(handed).chain(following).map(|instance| instance.spec.name.clone()).collect()
}

/// Instances that a goal starts inside its handover: gone before what was live may start again.
fn handed(goal: &HostPlan) -> BTreeSet<InstanceName> {
    let handed = goal.handover.todo().into_iter().flat_map(|handover| &handover.incoming);
    handed.map(|instance| instance.spec.name.clone()).collect()
}

/// Instances that a goal starts after its routes were verified.
fn following(goal: &HostPlan) -> BTreeSet<InstanceName> {
    let following = goal
        .verify
        .todo()
        .into_iter()
        .flat_map(|verify| verify.follow.iter().flat_map(|follow| &follow.incoming));
    following.map(|instance| instance.spec.name.clone()).collect()
}

/// Services without routes on their way back: the new one stopped and gone, then the old one started and gated.
fn follow_back(goal: &HostPlan, outgoing: &[InstanceRef], incoming: &[GatedInstance]) -> Vec<Follow> {
    let services =
        goal.verify.todo().into_iter().flat_map(|verify| verify.follow.iter().map(|follow| &follow.service));
    services
        .map(|service| Follow {
            service: service.clone(),
            strategy: Strategy::Handover,
            outgoing: outgoing.iter().filter(|instance| instance.service == *service).cloned().collect(),
            incoming: incoming.iter().filter(|instance| instance.spec.service == *service).cloned().collect(),
        })
        .filter(|follow| !(follow.outgoing.is_empty() && follow.incoming.is_empty()))
        .collect()
}

/// Databases to be put back: those that were begun to be changed, unless the schema may stay (the hold has ended and the old release can
/// live with it).
fn restores(goal: &HostPlan, journal: &[Entry], found: &HostState) -> Vec<HeldDatabase> {
    // What was stopped for it runs again: it was put back before, and has been written to since.
    let opened = goal.handover.todo().is_some_and(|handover| {
        handover
            .outgoing
            .iter()
            .any(|old| found.instances.iter().any(|other| other.name == old.name && other.is_running()))
    });
    if opened || switched_forward(journal).is_some() || seen_switched(journal, goal, found) {
        return Vec::new();
    }
    let restored = put_back(journal);
    let taken: BTreeSet<&String> = outcomes(journal)
        .filter_map(|(step, _)| if let Step::Snapshot { file, .. } = step { Some(file) } else { None })
        .collect();
    let touched: BTreeSet<&DatabaseName> = journal
        .iter()
        .filter_map(|entry| match &entry.what {
            What::Intent { step: Step::Migrate { database } | Step::Restore { database, .. }, .. } => {
                Some(database)
            }
            _ => None,
        })
        .collect();
    let held = goal.handover.todo().into_iter().flat_map(|handover| &handover.databases);
    held.filter_map(|held| match held {
        HeldDatabase::Migrate { migration }
            if touched.contains(&migration.database) && !restored.contains(&migration.database) =>
        {
            let place = migration.place.clone()?;
            // `snapshot: none` was decided: there is nothing to put back, and what is there is not thrown away.
            if migration.snapshot == crate::config::settings::SnapshotPolicy::None {
                return None;
            }
            let snapshot = taken.contains(&migration.snapshot_file).then(|| migration.snapshot_file.clone());
            Some(HeldDatabase::Restore {
                database: migration.database.clone(),
                place,
                snapshot,
                present: None,
            })
        }
        HeldDatabase::Restore { database, place, present: Some(present), .. }
            if touched.contains(database) && taken.contains(present) && !restored.contains(database) =>
        {
            Some(HeldDatabase::Restore {
                database: database.clone(),
                place: place.clone(),
                snapshot: Some(present.clone()),
                present: None,
            })
        }
        _ => None,
    })
    .collect()
}

/// Whether this look, or that of an earlier way back, found the goal live: requests have been served by it since the hold.
fn seen_switched(journal: &[Entry], goal: &HostPlan, found: &HostState) -> bool {
    let by_goal =
        |entry: &RouteEntry| Live::from_facts(&entry.facts).is_some_and(|live| live.run == goal.run);
    let earlier = plans(journal).filter(|plan| plan.direction == Direction::Back).any(|plan| {
        match plan.switch.todo() {
            Some(SwitchPlan::Table { before: Some(before), .. }) => by_goal(before),
            _ => false,
        }
    });
    earlier || found.live.as_ref().is_some_and(|live| live.run == goal.run)
}

/// Databases that a way back has put back already: they may have been written to since.
fn put_back(journal: &[Entry]) -> BTreeSet<DatabaseName> {
    let mut back = false;
    let mut restored = BTreeSet::new();
    for entry in journal {
        match &entry.what {
            What::Planned { plan } => back = plan.direction == Direction::Back,
            What::Outcome { intent, .. } if back => {
                let of = journal.iter().find(|other| other.seq == *intent).map(|other| &other.what);
                if let Some(What::Intent { step: Step::Restore { database, .. }, .. }) = of {
                    restored.insert(database.clone());
                }
            }
            _ => {}
        }
    }
    restored
}

/// Where the way forward had switched: the first time that it is known to have.
fn switched_forward(journal: &[Entry]) -> Option<&Entry> {
    let mut forward = false;
    journal.iter().find(|entry| match &entry.what {
        What::Planned { plan } => {
            forward = plan.direction == Direction::Forward;
            false
        }
        What::Outcome { intent, .. } if forward => {
            let of = journal.iter().find(|other| other.seq == *intent).map(|other| &other.what);
            matches!(of, Some(What::Intent { step: Step::Switch | Step::Live, .. }))
        }
        _ => false,
    })
}

/// At most one failed candidate a service is kept, stopped, for a look: the first of those that a failing gate was about.
fn kept_candidates(
    journal: &[Entry],
    goal: &HostPlan,
    found: &HostState,
    coming: &BTreeSet<InstanceName>,
) -> Vec<InstanceName> {
    let failed_gate = journal
        .iter()
        .any(|entry| matches!(&entry.what, What::Failed { failure, .. } if failure.exit == Exit::NotHealthy));
    let mut kept: BTreeMap<ServiceName, InstanceName> = BTreeMap::new();
    if failed_gate {
        for instance in &found.instances {
            let candidate = coming.contains(&instance.name)
                && !goal.live.as_ref().is_some_and(|live| live.has(&instance.name));
            if candidate && instance.role == Role::Service {
                kept.entry(instance.service.clone()).or_insert_with(|| instance.name.clone());
            }
        }
    }
    kept.into_values().collect()
}

/// Failed candidates of earlier deploys in whose place one of this run is kept.
fn superseded(goal: &HostPlan, found: &HostState, kept: &[InstanceName]) -> Vec<InstanceRef> {
    let still = |name: &InstanceName| found.instances.iter().find(|other| other.name == *name);
    let services: BTreeSet<&ServiceName> =
        kept.iter().filter_map(still).map(|found| &found.service).collect();
    let earlier = goal.record.candidates.iter();
    earlier.filter(|old| services.contains(&old.service) && still(&old.name).is_some()).cloned().collect()
}

/// Whether nothing of the goal is left but kept candidates, stopped.
fn clean(goal: &HostPlan, found: &HostState) -> bool {
    let coming = coming(goal);
    !found.instances.iter().any(|instance| {
        instance.ours
            && (coming.contains(&instance.name) || instance.role == Role::OneOff)
            && !goal.live.as_ref().is_some_and(|live| live.has(&instance.name))
            && instance.is_running()
    })
}

/// What a person is told of a run that recoveries did not bring to an end.
pub fn unsettled(journal: &[Entry], found: &HostState) -> Failure {
    match goal(journal) {
        Some(goal) => person(goal, &standing(journal, goal, found), found),
        None => Failure::new(Exit::Person, format!("a run of {} could not be settled by itself", found.app))
            .because("its journal holds no plan")
            .while_serving(serving_text(found.live.as_ref()))
            .next("`cutover status` shows what runs"),
    }
}

fn person(goal: &HostPlan, standing: &Standing, found: &HostState) -> Failure {
    let mut failure = Failure::new(
        Exit::Person,
        format!("{} of {} could not be settled by itself", goal.verb.as_str(), goal.app),
    );
    if let Some((stage, last)) = &standing.failed {
        failure = failure.because(format!("stage {stage}: {}", last.what));
        failure.cause.extend(last.cause.iter().cloned());
        failure.next.extend(last.next.iter().cloned());
    }
    failure.while_serving(serving_text(found.live.as_ref())).next("`cutover status` shows what runs; `cutover attach` replays what was tried; then `cutover deploy` again")
}

/// What is serving, as a sentence.
pub fn serving_text(live: Option<&Live>) -> String {
    match live {
        None => "nothing is serving".to_owned(),
        Some(live) if live.members.is_empty() => {
            format!("release {} is live, all of it stopped", live.release)
        }
        Some(live) => format!("{} (release {}) is serving", live.slot, live.release),
    }
}

/// The verdict of a run whose plan, forward or back, has been carried out.
pub fn conclude(journal: &[Entry], found: &HostState, stamp: Stamp) -> Verdict {
    let goal = goal(journal);
    let standing = goal.map(|goal| standing(journal, goal, found));
    let switched = standing.as_ref().is_some_and(|standing| standing.switched);
    let mut verdict = verdict_of(journal, found, stamp);
    let failure = match standing.and_then(|standing| Some((standing.failed.clone()?, standing))) {
        None if switched => None,
        None => Some(killed()),
        // What was asked is live; what did not work at first has been done since.
        Some(((stage, failure), standing)) if switched && made_good(journal) && !standing.past_return => {
            verdict.warnings.push(format!("stage {stage} did not work at first: {failure}"));
            None
        }
        Some(((_, failure), standing)) if switched && !wants_back(&standing) => {
            Some(went_on(failure, &standing))
        }
        Some(((_, failure), _)) => Some(failure),
    };
    if let Some(failure) = failure {
        let mut failure = match goal {
            Some(goal) if !switched => with_what_is_gone(failure, goal, found),
            _ => failure,
        };
        let first = goal.is_some_and(|goal| goal.live.is_none());
        failure.state = if first && found.live.is_none() {
            "nothing was serving; nothing is".to_owned()
        } else {
            state_text(journal, goal, found)
        };
        if failure.next.is_empty() {
            failure
                .next
                .push(format!("see `cutover attach {}` for what was tried; then deploy again", stamp.run));
        }
        verdict.outcome = Outcome::Failed { failure };
    }
    verdict
}

/// Whether ways on have done all that failed before the drain. Once something has failed they no longer bake, and ask no route.
fn made_good(journal: &[Entry]) -> bool {
    let asks = |plan: &HostPlan| plan.verify.todo().is_some_and(|verify| !verify.routes.is_empty());
    let mut ways = None;
    let mut open: BTreeMap<Stage, bool> = BTreeMap::new();
    for entry in journal {
        match (&entry.what, ways) {
            (What::Planned { plan }, _) => {
                ways = (plan.direction == Direction::Forward).then(|| asks(plan));
            }
            (What::Failed { stage, .. }, Some(asked)) if *stage < Stage::Drain => {
                *open.entry(*stage).or_default() |= asked;
            }
            (What::Left { stage, .. }, Some(asks)) if open.get(stage).is_some_and(|asked| asks || !asked) => {
                open.remove(stage);
            }
            _ => {}
        }
    }
    open.is_empty()
}

fn killed() -> Failure {
    Failure::new(Exit::Failed, "the run was ended from outside")
        .because("its process died before the switch; what it had begun was taken back")
        .next("start it again")
}

/// A failure with no way back: the new release goes on, and a person must know (S18).
fn went_on(failure: Failure, standing: &Standing) -> Failure {
    let mut failure = failure;
    failure.exit = Exit::Person;
    if standing.past_return {
        failure
            .cause
            .push("the old release cannot run on the migrated database, so the new one goes on".to_owned());
        failure.next.insert(0, "mend it with a new release, or `cutover rollback --restore-db` (what was written since is then not served)".to_owned());
    } else {
        failure.cause.push("what was live before is no longer all there, so the new one goes on".to_owned());
        failure.next.insert(0, "mend it with a new release, or `cutover rollback`".to_owned());
    }
    failure
}

/// That the old release serves is said only when all of it is there and passed its gate (S14).
fn with_what_is_gone(mut failure: Failure, goal: &HostPlan, found: &HostState) -> Failure {
    let members = goal.live.iter().flat_map(|live| live.members.values().flatten());
    let is_gone = |name: &&InstanceName| !found.instances.iter().any(|other| other.name == **name);
    let gone: Vec<String> = members.filter(is_gone).map(|name| format!("`{name}`")).collect();
    if !gone.is_empty() {
        failure.exit = Exit::Person;
        failure.cause.push(format!("{} of what served before is no longer there", gone.join(", ")));
        failure.next.insert(0, "`cutover restart` makes it anew, or deploy again".to_owned());
    }
    failure
}

fn state_text(journal: &[Entry], goal: Option<&HostPlan>, found: &HostState) -> String {
    let mut parts = vec![serving_text(found.live.as_ref())];
    let Some(goal) = goal else { return parts.remove(0) };
    let coming = coming(goal);
    let kept = found.instances.iter().any(|instance| {
        coming.contains(&instance.name) && !found.live.as_ref().is_some_and(|l| l.has(&instance.name))
    });
    if kept {
        parts.push("the failed candidate is stopped and kept".to_owned());
    }
    parts.extend(schema_text(journal, goal));
    parts.join("; ")
}

/// What became of the databases, as far as it is known (S17).
fn schema_text(journal: &[Entry], goal: &HostPlan) -> Option<String> {
    let touched = migrated(journal, goal);
    let ended: BTreeSet<&DatabaseName> = outcomes(journal)
        .filter_map(|(step, _)| if let Step::Migrate { database } = step { Some(database) } else { None })
        .collect();
    let restored = outcomes(journal).any(|(step, _)| matches!(step, Step::Restore { .. }));
    let half = touched
        .iter()
        .find(|migration| !(ended.contains(&migration.database) || (restored && migration.place.is_some())));
    if let Some(half) = half {
        let database = &half.database;
        return Some(format!(
            "the schema of `{database}` is not known: its migration did not come to its end"
        ));
    }
    if restored {
        return Some("the database was put back as it was".to_owned());
    }
    if !touched.is_empty() {
        return Some("the database is migrated".to_owned());
    }
    let databases = goal.release.iter().flat_map(|release| release.databases.values());
    databases
        .into_iter()
        .any(|database| database.migrate.is_some())
        .then(|| "database not migrated".to_owned())
}

fn verdict_of_none(journal: &[Entry], found: &HostState, stamp: Stamp, failure: Failure) -> Verdict {
    let mut verdict = verdict_of(journal, found, stamp);
    let failure = failure.while_serving(serving_text(found.live.as_ref()));
    verdict.outcome = Outcome::Failed { failure };
    verdict
}

fn verdict_of(journal: &[Entry], found: &HostState, stamp: Stamp) -> Verdict {
    let goal = goal(journal);
    let started = journal.first().map_or(stamp.now, |entry| entry.at);
    let warnings = journal.iter().filter_map(|entry| {
        if let What::Warning { text, .. } = &entry.what { Some(text.clone()) } else { None }
    });
    Verdict {
        run: stamp.run,
        app: found.app.clone(),
        verb: goal.map_or(Verb::Deploy, |goal| goal.verb),
        release: goal.and_then(|goal| goal.release.as_ref()).map(|release: &Release| release.id.clone()),
        serving: found.live.as_ref().map(|live| live.release.clone()),
        outcome: Outcome::Done,
        allowed: goal.map(|goal| goal.allowed.iter().copied().collect()).unwrap_or_default(),
        by: goal.map(|goal| goal.by.clone()).unwrap_or_default(),
        started,
        finished: stamp.now,
        switched_ms: switched_forward(journal)
            .filter(|_| goal.is_some_and(|goal| standing(journal, goal, found).switched))
            .and_then(|entry| u64::try_from(entry.at.duration_since(started).as_millis()).ok()),
        warnings: warnings.collect(),
    }
}
