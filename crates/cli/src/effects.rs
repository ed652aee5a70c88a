//! What each verb does to the world, in one table, and what is asked before it does.

use cutover_core::names::{AppId, ServiceName};
use cutover_core::plan::Verb;
use cutover_core::request::Request;

/// What a verb does to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Looks only.
    Reads,
    /// Changes what runs; the way back is another verb.
    Changes,
    /// What it takes away does not come back.
    Destroys,
}

/// Every verb, as it is typed.
pub(crate) const TABLE: [(&str, Effect); 50] = [
    ("check", Effect::Reads),
    ("plan", Effect::Reads),
    ("deploy", Effect::Changes),
    ("rollback", Effect::Changes),
    ("status", Effect::Reads),
    ("history", Effect::Reads),
    ("releases", Effect::Reads),
    ("logs", Effect::Reads),
    ("exec", Effect::Changes),
    ("doctor", Effect::Reads),
    ("diff", Effect::Reads),
    ("env list", Effect::Reads),
    ("env diff", Effect::Reads),
    ("env push", Effect::Changes),
    ("env set", Effect::Changes),
    ("env unset", Effect::Destroys),
    ("secrets rotate", Effect::Changes),
    ("tunnel", Effect::Reads),
    ("attach", Effect::Reads),
    ("cancel", Effect::Changes),
    ("lock", Effect::Reads),
    ("stop", Effect::Changes),
    ("start", Effect::Changes),
    ("restart", Effect::Changes),
    ("remove", Effect::Destroys),
    ("backing apply", Effect::Changes),
    ("backing restart", Effect::Changes),
    ("backup run", Effect::Changes),
    ("backup list", Effect::Reads),
    ("backup verify", Effect::Reads),
    ("backup drill", Effect::Changes),
    ("backup restore", Effect::Changes),
    ("backup prune", Effect::Destroys),
    ("snapshot create", Effect::Changes),
    ("snapshot list", Effect::Reads),
    ("snapshot restore", Effect::Changes),
    ("snapshot verify", Effect::Reads),
    ("snapshot prune", Effect::Destroys),
    ("migrate rehearse", Effect::Changes),
    ("prune", Effect::Destroys),
    ("setup", Effect::Changes),
    ("upgrade", Effect::Changes),
    ("teardown", Effect::Destroys),
    ("key add", Effect::Changes),
    ("key list", Effect::Reads),
    ("key revoke", Effect::Destroys),
    ("key trust", Effect::Changes),
    ("schema", Effect::Reads),
    ("completion", Effect::Reads),
    ("man", Effect::Reads),
];

/// What a verb does, by the word it is typed as.
pub(crate) fn of(word: &str) -> Effect {
    // A verb that is not in the table is asked about: the test keeps this from happening.
    TABLE.iter().find(|(known, _)| *known == word).map_or(Effect::Destroys, |(_, effect)| *effect)
}

/// The word a request was typed as.
pub(crate) fn word(request: &Request) -> &'static str {
    match request.verb {
        Verb::Deploy => "deploy",
        Verb::Rollback => "rollback",
        Verb::Environment if request.unset.is_empty() => "env set",
        Verb::Environment => "env unset",
        Verb::SecretsRotate => "secrets rotate",
        Verb::Restart => "restart",
        Verb::Start => "start",
        Verb::Stop => "stop",
        Verb::Remove => "remove",
        Verb::BackingApply => "backing apply",
        Verb::BackingRestart => "backing restart",
        Verb::Prune => "prune",
        Verb::SnapshotCreate => "snapshot create",
        Verb::SnapshotRestore => "snapshot restore",
        Verb::SnapshotPrune => "snapshot prune",
        Verb::MigrateRehearse => "migrate rehearse",
    }
}

/// Whether the environment's name has to be typed before anything changes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    Open,
    Protected,
}

/// What must be answered before a request is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// Nothing.
    None,
    /// Yes or no, after this sentence.
    Yes(String),
    /// This name has to be typed, after this sentence.
    Type { name: String, about: String },
}

/// What must be answered before `request` is carried out.
pub(crate) fn question(request: &Request, id: &AppId, protection: Protection) -> Question {
    let AppId { app, .. } = id;
    if request.verb == Verb::Remove && request.volumes {
        return Question::Type {
            name: app.to_string(),
            about: format!("this removes {id} with its volumes: its data is gone for good"),
        };
    }
    let replaced = replaced(request, id);
    if protection == Protection::Protected {
        return match (of_protected(word(request), id), replaced) {
            (Question::Type { name, about }, Some(replaced)) => {
                Question::Type { name, about: format!("{about}: {replaced}") }
            }
            (question, _) => question,
        };
    }
    if let Some(replaced) = replaced {
        return Question::Yes(replaced);
    }
    if request.verb.is_of_backing() {
        let names: Vec<&str> = request.services.iter().map(ServiceName::as_str).collect();
        return Question::Yes(format!("backing service {} of {id} is down meanwhile", names.join(", ")));
    }
    match of(word(request)) {
        Effect::Reads | Effect::Changes => Question::None,
        Effect::Destroys => Question::Yes(destroys(request, id)),
    }
}

/// What becomes of databases that a request replaces.
fn replaced(request: &Request, id: &AppId) -> Option<String> {
    let kept = "what was written since is kept in a snapshot of the present, and no longer served";
    if request.verb == Verb::Rollback && request.restore_databases {
        return Some(format!("this puts the databases of {id} back to the snapshot; {kept}"));
    }
    if request.verb == Verb::Rollback && request.migrate_down {
        return Some(format!(
            "this migrates the databases of {id} down: what that drops is kept in a snapshot of the present, and no longer served"
        ));
    }
    if request.verb == Verb::SnapshotRestore && request.snapshot.to.is_none() {
        let name = request.snapshot.name.as_deref().unwrap_or_default();
        return Some(format!("this puts {name} in the place of its database of {id}: {kept}"));
    }
    None
}

/// What must be answered before anything is done to a protected environment.
pub(crate) fn of_protected(what: &str, id: &AppId) -> Question {
    Question::Type {
        name: id.environment.to_string(),
        about: format!("{what} of {id}, a protected environment"),
    }
}

fn destroys(request: &Request, id: &AppId) -> String {
    if request.verb == Verb::Remove {
        return format!("this stops {id} and takes it off the host; volumes stay");
    }
    if request.verb.is_prune() {
        return "this takes away for good what is listed; what is live and what rollback can reach stays"
            .to_owned();
    }
    let names: Vec<&str> = request.unset.iter().map(cutover_core::names::VariableName::as_str).collect();
    format!("this takes {} out of the host's env file of {id}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;
    use crate::arguments::{Arguments, request};

    fn words(command: &clap::Command, before: &str, into: &mut BTreeSet<String>) {
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            let word = format!("{before}{}", verb.get_name());
            if verb.has_subcommands() {
                words(verb, &format!("{word} "), into);
            } else {
                into.insert(word);
            }
        }
    }

    #[test]
    fn every_verb_has_its_effect_and_nothing_else_has() {
        let mut typed = BTreeSet::new();
        words(&Arguments::command(), "", &mut typed);
        let listed: BTreeSet<String> = TABLE.iter().map(|(word, _)| (*word).to_owned()).collect();
        assert_eq!(typed, listed);
    }

    #[test]
    fn a_verb_that_reads_makes_no_request() {
        for verb in [
            Verb::Deploy,
            Verb::Rollback,
            Verb::Environment,
            Verb::SecretsRotate,
            Verb::Restart,
            Verb::Start,
            Verb::Stop,
            Verb::Remove,
            Verb::BackingApply,
            Verb::BackingRestart,
            Verb::Prune,
            Verb::SnapshotCreate,
            Verb::SnapshotRestore,
            Verb::SnapshotPrune,
            Verb::MigrateRehearse,
        ] {
            assert_ne!(of(word(&request(verb, "me"))), Effect::Reads, "{}", verb.as_str());
        }
    }

    #[test]
    fn what_is_asked_follows_from_the_effect_and_the_protection() {
        let id: AppId = "guestbook/production".parse().unwrap();
        let asks = |request: &Request, protection| question(request, &id, protection);
        let name = |question| match question {
            Question::Type { name, .. } => name,
            other => panic!("{other:?}"),
        };
        let deploy = request(Verb::Deploy, "me");
        assert_eq!(asks(&deploy, Protection::Open), Question::None);
        assert_eq!(name(asks(&deploy, Protection::Protected)), "production");
        let restore = Request { restore_databases: true, ..request(Verb::Rollback, "me") };
        assert!(matches!(asks(&restore, Protection::Open), Question::Yes(_)));
        let about = |question| match question {
            Question::Type { about, .. } => about,
            other => panic!("{other:?}"),
        };
        let down = Request { migrate_down: true, ..request(Verb::Rollback, "me") };
        assert!(matches!(asks(&down, Protection::Open), Question::Yes(_)));
        assert!(about(asks(&down, Protection::Protected)).contains("migrates the databases"));
        assert!(about(asks(&restore, Protection::Protected)).contains("puts the databases"));
        let named = |to: Option<&str>| Request {
            snapshot: cutover_core::request::SnapshotRequest {
                name: Some("main_20261126T040506007Z_7f3c9e1.sqlite".to_owned()),
                to: to.map(str::to_owned),
                ..Default::default()
            },
            ..request(Verb::SnapshotRestore, "me")
        };
        assert!(matches!(asks(&named(None), Protection::Open), Question::Yes(_)));
        assert!(about(asks(&named(None), Protection::Protected)).contains("in the place of its database"));
        assert_eq!(asks(&named(Some("scratch")), Protection::Open), Question::None);
        assert_eq!(name(asks(&named(Some("scratch")), Protection::Protected)), "production");
        let apply = request(Verb::BackingApply, "me");
        assert!(matches!(asks(&apply, Protection::Open), Question::Yes(_)));
        let remove = request(Verb::Remove, "me");
        assert!(matches!(asks(&remove, Protection::Open), Question::Yes(_)));
        let with_data = Request { volumes: true, ..remove };
        assert_eq!(name(asks(&with_data, Protection::Protected)), "guestbook");
    }
}
