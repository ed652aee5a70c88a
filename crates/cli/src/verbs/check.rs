//! `check` and `schema`: what can be said of a configuration without any host.

use crate::arguments::VariableArguments;
use crate::asked::{Command, Place};
use clap::Args;
use std::collections::BTreeMap;

use cutover_core::config::Selection;
use cutover_core::exit::Exit;
use cutover_core::names::{EnvironmentName, VariableName};

use super::{Desk, Ended, Stop};
use crate::render::{Form, Line};
use crate::sources::Project;

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    #[command(flatten)]
    variables: VariableArguments,
    /// The environment; without one, all are checked
    #[arg(value_name = "ENV")]
    word: Option<EnvironmentName>,
}

impl CheckArguments {
    pub(crate) fn into_command(self, place: &mut Place) -> Result<Command, clap::Error> {
        place.also(self.word)?;
        Ok(Command::Check { variables: self.variables.into_map() })
    }
}

pub(super) fn check(desk: &Desk, variables: &BTreeMap<VariableName, String>) -> Ended {
    let project = Project::open(&desk.place)?;
    let environments = match &desk.place.environment {
        Some(named) => vec![named.clone()],
        None => project.environments()?,
    };
    let notes = check_all(&project, &environments, variables)?;
    let names: Vec<String> = environments.iter().map(ToString::to_string).collect();
    let line = Line::Checked { file: &project.file, environments: &names, notes: &notes };
    if desk.output.form() == Form::Text {
        for note in &notes {
            desk.output.talk(&format!("note: {note}"));
        }
    }
    desk.output.answer(&line, || format!("{} is good (checked for {})", project.file, names.join(", ")))?;
    Ok(Exit::Done.code())
}

/// Checks every environment; the first with problems of its own ends it, since most problems are all environments'.
fn check_all(
    project: &Project,
    environments: &[EnvironmentName],
    variables: &BTreeMap<VariableName, String>,
) -> Result<Vec<String>, Stop> {
    let mut notes: Vec<String> = Vec::new();
    for environment in environments {
        let selection = Selection {
            environment: Some(environment.clone()),
            set: variables.clone(),
            ..Selection::default()
        };
        let config = project.config(&selection)?;
        notes.extend(config.notes.into_iter().filter(|note| !notes.contains(note)).collect::<Vec<_>>());
    }
    Ok(notes)
}

pub(super) fn schema(desk: &Desk) -> Ended {
    let text = serde_json::to_string_pretty(&cutover_core::config::schema())
        .map_err(|error| std::io::Error::other(error.to_string()))?;
    desk.output.data(&text)?;
    Ok(Exit::Done.code())
}
