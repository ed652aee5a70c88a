//! What the promises say of a host after a verdict. What does not hold is told in words, the promise or rule first.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use cutover_core::env_file;
use cutover_core::exit::Exit;
use cutover_core::journal::{Entry, Step, What};
use cutover_core::layout;
use cutover_core::names::{InstanceName, VariableName};
use cutover_core::plan::Verb;
use cutover_core::release::{Live, RuntimeKind};
use cutover_core::state::{HostState, RestartPolicy, Role};
use cutover_core::verdict::Verdict;
use cutover_host::lock::AppLock;
use cutover_routes::RouteState;
use jiff::Timestamp;

use super::site::{Moment, SALT, Site};
use super::world::{PASSWORD, World, files_below, schema};

/// A promise that did not hold.
pub type Broken = String;

impl Site {
    /// Everything the promises say of the host after the verdict of a run that began at a moment.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn check(&self, before: &Moment, verdict: &Verdict) -> Result<Vec<Broken>> {
        let mut broken = std::mem::take(&mut self.machine().world.broken);
        {
            let entries = self.journal();
            whole(&entries, &mut broken);
            self.explained(before, &entries, &mut broken);
        }
        self.watch();
        broken.append(&mut self.machine().world.broken);
        let state = self.state()?;
        fits(&state, before, verdict, &mut broken);
        self.rests(&state, before, verdict, &mut broken);
        self.routes(state.live.as_ref(), &mut broken);
        instances(&state, &mut broken);
        if verdict.verb.is_of_backing() {
            backing(&state, before, verdict, &mut broken);
        }
        self.networks(state.live.as_ref(), &mut broken);
        self.databases(before, verdict, &mut broken);
        self.passwords(&state, &mut broken);
        self.beside(verdict, &mut broken);
        self.pruned(verdict, &mut broken);
        Ok(broken)
    }

    /// The lock is free, the run is over, and the host's env file says what the live release was made with.
    fn rests(&self, state: &HostState, before: &Moment, verdict: &Verdict, broken: &mut Vec<Broken>) {
        if AppLock::peek(&self.layout, &self.app).is_some() {
            broken.push("P2: the lock is held".to_owned());
        }
        if state.unfinished.is_some() {
            broken.push("P2: the run is unfinished".to_owned());
        }
        let live = state.live.as_ref();
        let same = live.map(|live| live.run) == before.live.as_ref().map(|live| live.run);
        let record =
            state.releases.iter().find(|record| live.is_some_and(|live| live.release == record.release.id));
        if let Some(record) = record
            && !record.lived
        {
            broken.push(format!("P4: release {} is live, the records do not say so", record.release.id));
        }
        if verdict.verb == Verb::Environment
            && let Some(record) = record
            && state.variables.as_ref().is_some_and(|now| *now != record.release.variables)
        {
            let which = if same { "the old" } else { "the new" };
            broken.push(format!("P2: {which} release serves, the host's env file says otherwise"));
        }
    }

    /// The server has the password that what is live is told; and so is every release from before that may go live again.
    fn passwords(&self, state: &HostState, broken: &mut Vec<Broken>) {
        let machine = self.machine();
        let (Some(server), Some(live)) = (&machine.world.password, &state.live) else { return };
        let name: VariableName = match PASSWORD.parse() {
            Ok(name) => name,
            Err(error) => return broken.push(format!("{PASSWORD}: {error}")),
        };
        for record in state.releases.iter().filter(|record| record.lived) {
            let release = &record.release.id;
            let text =
                std::fs::read_to_string(self.layout.release_env(&self.app, release)).unwrap_or_default();
            let own = env_file::parse(&text).unwrap_or_default().fingerprints(SALT);
            if own.get(&name) != Some(server) || record.release.variables.get(&name) != Some(server) {
                let is = if *release == live.release { "live" } else { "kept" };
                broken.push(format!("P2: a {is} release is told a password that the server refuses"));
            }
        }
        let host = state.variables.as_ref().and_then(|host| host.get(&name));
        if host.is_some_and(|host| host != server) {
            broken.push("P2: the host's env file says a password that the server refuses".to_owned());
        }
    }

    /// What is told to be put back beside a database is whole.
    fn beside(&self, verdict: &Verdict, broken: &mut Vec<Broken>) {
        let machine = self.machine();
        let half = machine.world.beside.iter().filter(|(_, text)| text.is_empty());
        if verdict.exit() == Exit::Done {
            broken.extend(half.map(|(name, _)| format!("P4: done, and {name} is not whole")));
        }
    }

    /// What is somebody's stays, whatever fails; what nothing needs goes, or it is told why not.
    fn pruned(&self, verdict: &Verdict, broken: &mut Vec<Broken>) {
        let Some(litter) = &self.litter else { return };
        let missing = litter.missing().into_iter();
        broken.extend(missing.map(|path| format!("S26: {} went, which is somebody's", path.display())));
        let is_told = self.journal().iter().any(|entry| matches!(entry.what, What::Warning { .. }));
        if verdict.verb.is_prune() && verdict.exit() == Exit::Done && !is_told {
            let left = litter.left().into_iter();
            broken.extend(left.map(|path| format!("P4: done, and {} is left", path.display())));
        }
    }

    /// Routes point at what is live, and nothing waits.
    fn routes(&self, live: Option<&Live>, broken: &mut Vec<Broken>) {
        let machine = self.machine();
        let Some(entry) = machine.world.table.owners.get(&self.app.owner()) else { return };
        for route in &entry.routes {
            let targets = match &route.state {
                RouteState::Serving { targets } => targets,
                RouteState::Held { .. } => {
                    broken.push(format!("P2: route {} is still held", route.name));
                    continue;
                }
                RouteState::Closed { .. } => continue,
            };
            let mut members = live.into_iter().flat_map(|live| live.members.values().flatten());
            if targets.is_empty() {
                broken.push(format!("P2: route {} has no targets", route.name));
            }
            for target in targets {
                if !members.any(|name| name.as_str() == target.id) {
                    broken
                        .push(format!("P2: route {} points at {}, which is not live", route.name, target.id));
                }
            }
        }
    }

    /// Containers that are live are in the network of their colour, and in no other.
    fn networks(&self, live: Option<&Live>, broken: &mut Vec<Broken>) {
        let Some(live) = live else { return };
        let machine = self.machine();
        let own = layout::slot_network(&self.app, live.slot);
        let other = layout::slot_network(&self.app, live.slot.idle());
        let members = machine
            .world
            .instances
            .iter()
            .filter(|(name, one)| live.has(name) && one.spec.runtime() == RuntimeKind::Container);
        let members: Vec<_> = members.collect();
        if members.len() < 2 {
            return;
        }
        for (name, instance) in members {
            if !instance.networks.contains_key(&own) {
                broken.push(format!("P1: {name} is live, and not in {own}"));
            }
            if instance.networks.contains_key(&other) {
                broken.push(format!("P1: {name} is live, and still in {other}"));
            }
        }
    }

    /// The database fits what is live, and no row is lost: a restore that was asked for keeps them in a snapshot.
    fn databases(&self, before: &Moment, verdict: &Verdict, broken: &mut Vec<Broken>) {
        let machine = self.machine();
        let world = &machine.world;
        let gone_back = self.live_in(world).is_some_and(|live| live.run == verdict.run);
        let restored = matches!(verdict.verb, Verb::Rollback | Verb::SnapshotRestore) && gone_back;
        let mut rows: BTreeSet<String> = BTreeSet::new();
        for file in databases(world) {
            let live = live_on(world, &file);
            let schema = schema(&file);
            for (name, (from, to)) in live {
                if !schema.is_some_and(|schema| (from..=to).contains(&schema)) {
                    broken.push(format!("P3: schema {schema:?}, {name} can live with {from} to {to}"));
                }
            }
        }
        // What is live may be stopped: it is started on what a rollback left that did not come to its end.
        let (then, now) = (before.schema, schema(&world.server_file()));
        if verdict.verb == Verb::Rollback && !gone_back && then != now {
            broken.push(format!("P3: schema {now:?} is left by a rollback that failed, it was {then:?}"));
        }
        // A file that nothing runs on any more still has its rows.
        let volumes = self.layout.app(&self.app).join("volumes");
        let kept = files_below(&world.backups).into_iter().filter(|_| restored);
        for file in files_below(&volumes).into_iter().chain(files_below(&world.volumes)).chain(kept) {
            rows.extend(std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned));
        }
        let lost = world.acknowledged.iter().find(|row| !rows.contains(&format!("row {row}")));
        if let Some(row) = lost.filter(|_| verdict.verb != Verb::Remove) {
            broken.push(format!("P3: row {row} was acknowledged and is lost"));
        }
    }

    /// The journal explains the host: whatever is other than before was intended.
    fn explained(&self, before: &Moment, entries: &[Entry], broken: &mut Vec<Broken>) {
        let machine = self.machine();
        let (then, now) = (&before.world, &machine.world);
        let intended = |wanted: &dyn Fn(&Step) -> bool| {
            entries.iter().any(|entry| matches!(&entry.what, What::Intent { step, .. } if wanted(step)))
        };
        let mut unless = |holds: bool, what: String| {
            if !holds {
                broken.push(format!("the journal does not explain that {what}"));
            }
        };
        let migrates = |step: &Step| matches!(step, Step::Migrate { .. } | Step::Rehearse { .. });
        for (name, instance) in &now.instances {
            let is = |step: &Step| matches!(step, Step::Create { instance } if instance == name);
            let one_off = instance.spec.role == Role::OneOff && intended(&migrates);
            let known = then.instances.contains_key(name) || one_off || intended(&is);
            unless(known, format!("{name} is there"));
        }
        for (name, was) in &then.instances {
            let Some(is) = now.instances.get(name) else {
                let gone = intended(&|step| matches!(step, Step::Remove { instance } if instance == name));
                unless(gone, format!("{name} is gone"));
                continue;
            };
            let rebooted = now.boots > then.boots;
            let stopped = intended(&|step| matches!(step, Step::Stop { instance } if instance == name));
            unless(!was.runs() || is.runs() || stopped || rebooted, format!("{name} does not run"));
            let started = intended(&|step| matches!(step, Step::Start { instance } if instance == name));
            unless(was.runs() || !is.runs() || started || rebooted, format!("{name} runs"));
            let policy = intended(&|step| matches!(step, Step::Restart { instance, .. } if instance == name));
            unless(was.restart == is.restart || policy, format!("{name} has another restart policy"));
            for network in is.networks.keys().filter(|network| !was.networks.contains_key(*network)) {
                let joined = intended(
                    &|step| matches!(step, Step::Join { instance, network: to } if instance == name && to == network),
                );
                unless(joined, format!("{name} is in {network}"));
            }
            for network in was.networks.keys().filter(|network| !is.networks.contains_key(*network)) {
                let left = intended(
                    &|step| matches!(step, Step::Leave { instance, network: from } if instance == name && from == network),
                );
                unless(left, format!("{name} is not in {network}"));
            }
        }
        let switches = |step: &Step| matches!(step, Step::Hold { .. } | Step::Switch | Step::Unroute);
        unless(then.table == now.table || intended(&switches), "the table changed".to_owned());
        let live = |step: &Step| matches!(step, Step::Live | Step::Switch | Step::Unroute);
        unless(before.live == self.live_in(now) || intended(&live), "another release is live".to_owned());
        for network in now.networks.keys().filter(|network| !then.networks.contains_key(*network)) {
            let made = intended(&|step| matches!(step, Step::Network { name } if name == network));
            unless(made, format!("network {network} is there"));
        }
    }
}

/// What is live runs and will go on; what is not is gone, but for warm ones and one stopped candidate a service.
fn instances(state: &HostState, broken: &mut Vec<Broken>) {
    let live = state.live.as_ref();
    for name in live.into_iter().flat_map(|live| live.members.values().flatten()) {
        match state.instances.iter().find(|found| found.name == *name) {
            Some(found) if !found.is_running() => {
                broken.push(format!("P2: {name} is live and does not run"));
            }
            Some(found) if found.restart == RestartPolicy::No => {
                broken.push(format!("S4: {name} is live, and an exit would be its end"));
            }
            Some(_) => {}
            None => broken.push(format!("P2: {name} is live and is not there")),
        }
    }
    let warm: BTreeSet<_> = state
        .releases
        .iter()
        .filter(|record| record.warm_until.is_some_and(|until| until > Timestamp::now()))
        .map(|record| &record.release.id)
        .collect();
    let mut stopped: BTreeMap<&str, u32> = BTreeMap::new();
    for found in &state.instances {
        let member = live.is_some_and(|live| live.has(&found.name));
        if found.role == Role::Backing || member || (found.is_running() && warm.contains(&found.release)) {
            continue;
        }
        if found.is_running() {
            broken.push(format!("P4: {} still runs and is not live", found.name));
        }
        if found.role == Role::OneOff {
            broken.push(format!("P4: {} is left", found.name));
        }
        if found.restart == RestartPolicy::UnlessStopped {
            broken.push(format!("S4: {} is not live, and a reboot would start it", found.name));
        }
        *stopped.entry(found.service.as_str()).or_default() += 1;
    }
    for (service, count) in stopped.into_iter().filter(|(_, count)| *count > 1) {
        broken.push(format!("P4: {count} instances of {service} are left, stopped"));
    }
}

/// One of each backing service runs and will go on: the new one when that is what the verdict says, else the one from before.
fn backing(state: &HostState, before: &Moment, verdict: &Verdict, broken: &mut Vec<Broken>) {
    let was = before.world.instances.values().filter(|one| one.spec.role == Role::Backing && one.runs());
    for was in was {
        let service = &was.spec.service;
        let of_it = state.instances.iter().filter(|found| found.service == *service);
        let (running, down): (Vec<_>, Vec<_>) = of_it.partition(|found| found.is_running());
        let [one] = running[..] else {
            broken.push(format!("P2: {} instances of backing service {service} run", running.len()));
            continue;
        };
        if !down.is_empty() {
            broken.push(format!("P4: {} instances of backing service {service} are left", down.len()));
        }
        if one.restart == RestartPolicy::No {
            broken.push(format!("S4: {} runs, and an exit would be its end", one.name));
        }
        let is_anew = one.name != was.spec.name;
        let fits = match verdict.exit() {
            Exit::Done => is_anew == (verdict.verb == Verb::BackingApply),
            Exit::Person => true,
            _ => !is_anew,
        };
        if !fits {
            broken.push(format!("P4: exit {:?}, and {} runs", verdict.exit(), one.name));
        }
    }
}

/// Instances that run on a database, with the schemas they can live with.
fn live_on<'a>(world: &'a World, file: &std::path::Path) -> Vec<(&'a InstanceName, (u32, u32))> {
    let on = world
        .instances
        .iter()
        .filter(|(_, one)| one.runs() && world.database(&one.spec).as_deref() == Some(file));
    on.filter_map(|(name, one)| Some((name, world.behaviour(&one.spec.content).schemas?))).collect()
}

/// The journal's own form: no gaps, every end has a beginning, and the verdict is the last word.
fn whole(entries: &[Entry], broken: &mut Vec<Broken>) {
    let mut open = BTreeSet::new();
    for (entry, seq) in entries.iter().zip(1..) {
        if entry.seq != seq {
            broken.push(format!("the journal has {} where {seq} was due", entry.seq));
        }
        match &entry.what {
            What::Intent { .. } => {
                open.insert(entry.seq);
            }
            What::Outcome { intent, .. } | What::Broke { intent, .. } if !open.remove(intent) => {
                broken.push(format!("entry {seq} of the journal ends {intent}, which was not begun"));
            }
            _ => {}
        }
    }
    if !matches!(entries.last().map(|entry| &entry.what), Some(What::Verdict { .. })) {
        broken.push("the journal does not end with its verdict".to_owned());
    }
}

/// The verdict says what is so, and its exit code fits what serves.
fn fits(state: &HostState, before: &Moment, verdict: &Verdict, broken: &mut Vec<Broken>) {
    let live = state.live.as_ref();
    let exit = verdict.exit();
    let run = |live: Option<&Live>| live.map(|live| live.run);
    if verdict.serving.as_ref() != live.map(|live| &live.release) {
        let serves = live.map(|live| &live.release);
        broken.push(format!("P4: the verdict says {:?} serves, {serves:?} does", verdict.serving));
    }
    let switches_nothing = match verdict.verb {
        Verb::Prune | Verb::SnapshotPrune | Verb::SnapshotCreate | Verb::MigrateRehearse => true,
        // Beside its database.
        Verb::SnapshotRestore => verdict.release.is_none(),
        _ => false,
    };
    let switched = match verdict.verb {
        Verb::Remove => live.is_none(),
        _ if switches_nothing => run(live) == run(before.live.as_ref()),
        _ => run(live) == Some(verdict.run),
    };
    if exit == Exit::Done && !switched {
        broken.push("P4: done, and what was asked is not live".to_owned());
    }
    if !matches!(exit, Exit::Done | Exit::Person) && run(live) != run(before.live.as_ref()) {
        broken.push(format!("P2: exit {exit:?}, and what served before does not serve"));
    }
    if verdict.switched_ms.is_some() && !switched {
        broken.push("P4: the verdict tells the time of a switch that does not hold".to_owned());
    }
    if verdict.switched_ms.is_none()
        && switched
        && exit == Exit::Done
        && !(switches_nothing || verdict.verb == Verb::Remove)
    {
        broken.push("P4: the verdict does not tell when it was switched".to_owned());
    }
}

/// Database files of plain processes and in an engine's volumes.
fn databases(world: &World) -> BTreeSet<std::path::PathBuf> {
    world
        .instances
        .values()
        .filter_map(|instance| world.database(&instance.spec))
        .filter(|file| file.exists())
        .collect()
}
