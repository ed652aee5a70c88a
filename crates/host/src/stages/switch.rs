//! Switch: the commit point. One atomic change of the app's own entries in the route table, durable and acknowledged with the hash of what
//! is served (S1, S2); for an app without routes, the live file.

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::journal::{Step, StepResult};
use cutover_core::plan::{Planned, Stage, SwitchPlan};
use cutover_core::release::Live;
use cutover_routes::Entry;

use super::Act;
use super::check::look_again;
use super::handover::HandedOver;
use crate::files;
use crate::journal::{StageError, Trouble};
use crate::ports::RouterErrorKind;

/// What was asked is live.
pub(crate) struct Switched(());

pub(crate) async fn switch(
    act: &Act<'_>,
    plan: &Planned<SwitchPlan>,
    handed: HandedOver,
) -> Result<Switched, StageError> {
    let Planned::Do(plan) = plan else { return Ok(Switched(())) };
    look_again(act, &handed.healthy).await?;
    match plan {
        SwitchPlan::Table { before, after } => {
            unmoved(act, before.as_ref(), after.as_ref()).await?;
            let effect = async { change(act, |_| after.clone()).await.map(|()| ((), StepResult::Done)) };
            let step = if after.is_some() { Step::Switch } else { Step::Unroute };
            act.journal.act(Stage::Switch, step, effect).await?;
            // From now on the table says what is live: a file from a time without routes would say something else.
            if let Err(error) = files::remove(&act.layout.live_file(act.app())) {
                act.journal.note(Stage::Switch, format!("an old live file stays: {error}"))?;
            }
        }
        SwitchPlan::LiveFile => {
            let effect = async { live_file(act, act.plan.becomes.as_ref()).map(|()| ((), StepResult::Done)) };
            act.journal.act(Stage::Switch, Step::Live, effect).await?;
        }
    }
    Ok(Switched(()))
}

fn live_file(act: &Act<'_>, live: Option<&Live>) -> Result<(), Trouble> {
    let path = act.layout.live_file(act.app());
    let Some(live) = live else { return files::remove(&path).map_err(Trouble::from) };
    files::ensure_folder(path.parent().unwrap_or(&path), 0o700)?;
    let text = serde_json::to_vec(live).map_err(|error| Trouble::plain(error.to_string()))?;
    files::replace(&path, &text, 0o600).map_err(Trouble::from)
}

/// The app's own entry is what the plan was made from (held or not), or what it shall become.
async fn unmoved(act: &Act<'_>, before: Option<&Entry>, after: Option<&Entry>) -> Result<(), StageError> {
    let unread =
        |error| Failure::new(Exit::Failed, "the route table cannot be read").because(format!("{error}"));
    let found = act.ports.router.read().await.map_err(unread)?;
    let now = found.table.owners.get(&act.app().owner());
    let facts = |entry: Option<&Entry>| entry.map(|entry| entry.facts.clone());
    if act.goes_back() || now == after || facts(now) == facts(before) {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, "somebody else changed the app's routes meanwhile")
        .next("deploy again: the plan is made anew")
        .into())
}

/// On the way back: a table change that landed since the look makes another way of it, so the host is looked at again. Behind a hold that
/// was just written nothing more can land.
pub(super) async fn still_as_found(act: &Act<'_>) -> Result<(), StageError> {
    let Some(SwitchPlan::Table { before, .. }) = act.plan.switch.todo().filter(|_| act.goes_back()) else {
        return Ok(());
    };
    let unread =
        |error| Failure::new(Exit::Failed, "the route table cannot be read").because(format!("{error}"));
    let found = act.ports.router.read().await.map_err(unread)?;
    let now = found.table.owners.get(&act.app().owner()).map(|entry| &entry.facts);
    if now == before.as_ref().map(|entry| &entry.facts) {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, "the routes changed since the host was looked at").into())
}

/// Replaces the app's own entry. A lost compare-and-swap is retried while only others' entries differ (S2).
pub(crate) async fn change(
    act: &Act<'_>,
    entry: impl Fn(&Entry) -> Option<Entry> + Send + Sync,
) -> Result<(), Trouble> {
    let owner = act.app().owner();
    loop {
        let found = act.ports.router.read().await?;
        let own = found.table.owners.get(&owner).cloned();
        let mut table = found.table;
        match entry(own.as_ref().unwrap_or(&Entry::default())) {
            Some(new) => table.owners.insert(owner.clone(), new),
            None => table.owners.remove(&owner),
        };
        match act.ports.router.replace(&found.hash, &table).await {
            Ok(_) => return Ok(()),
            Err(error) if error.kind == RouterErrorKind::Moved => {
                let now = act.ports.router.read().await?;
                if now.table.owners.get(&owner).cloned() != own {
                    return Err(error.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}
