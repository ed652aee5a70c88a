//! `env diff`: the local env file against the host's, by salted hashes. No value is shown, and none leaves either side.

use std::collections::{BTreeMap, BTreeSet};

use cutover_core::exit::Exit;
use cutover_core::hash::ContentHash;
use cutover_core::names::VariableName;

use crate::hosts;
use crate::render::{self, Compared, Line};
use crate::sources::{Project, local_values};
use crate::verbs::{Desk, Ended, observe};

/// Exits with 4 where something differs.
pub(in crate::verbs) async fn diff(desk: &Desk) -> Ended {
    let project = Project::open(&desk.place)?;
    let identity = project.identity(&desk.place)?;
    let (path, local) = local_values(&project.folder, &identity.id.environment)?;
    let mut host = hosts::open(&identity.target).await?;
    let state = observe(&mut host, &identity.id, BTreeSet::new()).await?;
    let there = state.variables.clone().unwrap_or_default();
    let compared = compare(&local.fingerprints(&state.salt), &there);
    if compared.is_empty() {
        desk.output.talk(&format!("neither {} nor the host's env file has a variable", path.display()));
    }
    for (name, how) in &compared {
        desk.output.answer(&Line::Variable { name, compared: *how }, || render::compared(name, *how))?;
    }
    let same = compared.values().all(|how| *how == Compared::Same);
    Ok(if same { Exit::Done } else { Exit::NotHealthy }.code())
}

fn compare(
    here: &BTreeMap<VariableName, ContentHash>,
    there: &BTreeMap<VariableName, ContentHash>,
) -> BTreeMap<VariableName, Compared> {
    let names: BTreeSet<&VariableName> = here.keys().chain(there.keys()).collect();
    let how = |name: &VariableName| match (here.get(name), there.get(name)) {
        (Some(one), Some(other)) if one == other => Compared::Same,
        (Some(_), Some(_)) => Compared::Differs,
        (Some(_), None) => Compared::Added,
        (None, _) => Compared::Missing,
    };
    names.into_iter().map(|name| (name.clone(), how(name))).collect()
}

#[cfg(test)]
mod tests {
    use cutover_core::env_file;

    use super::*;

    #[test]
    fn names_are_told_apart_by_what_is_behind_them_and_no_value_is_told() {
        let values = |text: &str| env_file::parse(text).unwrap().fingerprints("salt");
        let compared = compare(&values("A=1\nB=2\nC=3\n"), &values("B=2\nC=4\nD=5\n"));
        let told: Vec<String> =
            compared.iter().map(|(name, how)| render::plain(&render::compared(name, *how))).collect();
        insta::assert_snapshot!(told.join("\n"), @r"
        added    A (only here)
        same     B
        differs  C
        missing  D (only on the host)
        ");
    }
}
