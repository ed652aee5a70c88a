//! Backing: networks, volumes and backing services that are absent; started and healthy before anything else. A deploy never replaces one that
//! a release stands on.

use cutover_core::defaults;
use cutover_core::journal::{Step, StepResult, What};
use cutover_core::plan::{HostPlan, NetworkSpec, Planned, Stage, elsewhere};
use cutover_core::release::RuntimeKind;

use super::Act;
use super::check::{admit_to_restarts, gate};
use super::preflight::Admitted;
use super::start::{retire, run};
use crate::backup;
use crate::journal::StageError;
use crate::ports::{Runtime, RuntimeError, RuntimeErrorKind};

/// What the release stands on is there.
pub(crate) struct Backed {
    /// The plan to go on with, where a network is elsewhere than was planned.
    pub(crate) instead: Option<HostPlan>,
}

pub(crate) async fn backing(act: &Act<'_>, admitted: Admitted) -> Result<Backed, StageError> {
    let backed = all(act, admitted).await?;
    backup::bring_back(act).await?;
    Ok(backed)
}

async fn all(act: &Act<'_>, _: Admitted) -> Result<Backed, StageError> {
    let instead = networks(act).await?;
    let act = &Act { plan: instead.as_ref().unwrap_or(act.plan), ..*act };
    let Planned::Do(plan) = &act.plan.backing else { return Ok(Backed { instead }) };
    for volume in &plan.volumes {
        let runtime = act.ports.runtime(volume.runtime);
        let make = async { runtime?.ensure_volume(act.app(), volume).await.map(|()| ((), StepResult::Done)) };
        act.journal.act(Stage::Backing, Step::Volume { name: volume.name.clone() }, make).await?;
    }
    for instance in &plan.retire {
        retire(act, Stage::Backing, instance).await?;
    }
    for instance in &plan.instances {
        run(act, Stage::Backing, &instance.spec).await?;
        gate(act, Stage::Backing, std::slice::from_ref(instance)).await?;
        admit_to_restarts(act, Stage::Backing, std::slice::from_ref(instance)).await?;
    }
    Ok(Backed { instead })
}

/// Makes the networks that are absent. Where somebody was quicker the plan moves, and is on record before anything else is made by it.
async fn networks(act: &Act<'_>) -> Result<Option<HostPlan>, StageError> {
    let Planned::Do(plan) = &act.plan.backing else { return Ok(None) };
    let mut instead: Option<HostPlan> = None;
    for network in &plan.networks {
        let now = instead.as_ref().unwrap_or(act.plan);
        let runtime = act.ports.runtime(RuntimeKind::Container);
        let make = async {
            let moved = make(runtime?.as_ref(), now, &network.name).await?;
            Ok::<_, RuntimeError>((moved, StepResult::Done))
        };
        let moved =
            act.journal.act(Stage::Backing, Step::Network { name: network.name.clone() }, make).await?;
        if let Some(moved) = moved {
            let why = "the subnet that was planned for it was taken meanwhile; it has another";
            act.journal.note(Stage::Backing, format!("network {}: {why}", network.name))?;
            act.journal.write(What::Planned { plan: Box::new(moved.clone()) })?;
            instead = Some(moved);
        }
    }
    Ok(instead)
}

/// Makes one network of a plan; the plan as it is now, where the network is elsewhere.
async fn make(runtime: &dyn Runtime, plan: &HostPlan, name: &str) -> Result<Option<HostPlan>, RuntimeError> {
    let mut moved: Option<HostPlan> = None;
    let mut tries = 1;
    loop {
        let now = moved.as_ref().unwrap_or(plan);
        let Some(network) = wanted(now, name) else { return Ok(moved) };
        let error = match runtime.ensure_network(network).await {
            Ok(()) => return Ok(moved),
            Err(error) => error,
        };
        if error.kind != RuntimeErrorKind::Exists || tries == defaults::SUBNET_TRIES {
            return Err(error);
        }
        tries += 1;
        let engine = runtime.engine(&plan.app).await?;
        moved = Some(engine.and_then(|engine| elsewhere(now, name, &engine)).ok_or(error)?);
    }
}

fn wanted<'a>(plan: &'a HostPlan, name: &str) -> Option<&'a NetworkSpec> {
    plan.backing.todo()?.networks.iter().find(|network| network.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cutover_core::hash::ContentHash;
    use cutover_core::names::RunId;
    use cutover_core::plan::{BackingPlan, Direction, PLAN_VERSION, RecordPlan, Verb, WhyNot};

    use super::*;
    use crate::watch::fake::FakeRuntime;

    /// A plan that makes this network.
    fn plan(network: NetworkSpec) -> HostPlan {
        let backing = BackingPlan { networks: vec![network], ..BackingPlan::default() };
        HostPlan {
            version: PLAN_VERSION,
            run: RunId::new(uuid::Uuid::now_v7()),
            app: "shop/local".parse().unwrap(),
            verb: Verb::Deploy,
            by: "ann@laptop".to_owned(),
            made: jiff::Timestamp::now(),
            fingerprint: ContentHash::of(b"a world"),
            allowed: std::collections::BTreeSet::new(),
            direction: Direction::Forward,
            release: None,
            live: None,
            becomes: None,
            services: BTreeMap::new(),
            variables: BTreeMap::new(),
            preflight: Planned::NotNeeded(WhyNot::None),
            backing: Planned::Do(backing),
            snapshot: Planned::NotNeeded(WhyNot::None),
            migrate: Planned::NotNeeded(WhyNot::None),
            start: Planned::NotNeeded(WhyNot::None),
            check: Planned::NotNeeded(WhyNot::None),
            handover: Planned::NotNeeded(WhyNot::None),
            switch: Planned::NotNeeded(WhyNot::None),
            verify: Planned::NotNeeded(WhyNot::None),
            bake: Planned::NotNeeded(WhyNot::None),
            drain: Planned::NotNeeded(WhyNot::None),
            record: RecordPlan::default(),
            notes: vec![],
        }
    }

    fn network(name: &str) -> NetworkSpec {
        let (subnet, range) = ("10.213.4.0/24".to_owned(), "10.213.4.0/25".to_owned());
        NetworkSpec { name: name.to_owned(), subnet, range }
    }

    #[tokio::test]
    async fn given_a_subnet_that_another_installation_took_meanwhile_then_the_plan_moves() {
        let engine = FakeRuntime::new(RuntimeKind::Container);
        engine.ensure_network(&network("another-edge")).await.unwrap();

        let moved = make(&engine, &plan(network("edge")), "edge").await.unwrap().unwrap();

        let edge = wanted(&moved, "edge").unwrap();
        assert_ne!(edge.subnet, "10.213.4.0/24");
        assert_eq!(engine.engine(&moved.app).await.unwrap().unwrap().networks["edge"], edge.subnet);
        let again = make(&engine, &moved, "edge").await.unwrap();
        assert!(again.is_none(), "it is there, where the plan says");
    }

    #[tokio::test]
    async fn given_a_network_that_another_app_has_just_made_elsewhere_then_the_plan_follows() {
        let engine = FakeRuntime::new(RuntimeKind::Container);
        let there = NetworkSpec { subnet: "10.213.9.0/24".to_owned(), ..network("edge") };
        engine.ensure_network(&there).await.unwrap();

        let moved = make(&engine, &plan(network("edge")), "edge").await.unwrap().unwrap();

        let edge = wanted(&moved, "edge").unwrap();
        assert_eq!((edge.subnet.as_str(), edge.range.as_str()), ("10.213.9.0/24", "10.213.9.0/25"));
    }
}
