//! A run's journal as sentences. What a line means to a reader is decided here once; how it is drawn is for [`super::progress`].

use std::collections::BTreeMap;
use std::time::Duration;

use cutover_core::journal::{Entry, Step, StepResult, What};
use cutover_core::plan::{Direction, Stage};
use cutover_core::state::RestartPolicy;

use super::time::span;
use super::{harmless_line, rehearsal};

/// What a reader hears of a line of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// A stage begins.
    Begins(Stage),
    /// A stage is over.
    Ends(Stage, Duration),
    /// An act is about to be done.
    Doing(Stage, String),
    /// Something worth reading.
    Said(Tone, String),
    /// What was asked for: it goes where answers go.
    Found(String),
}

/// How something is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// By the way.
    Note,
    /// It went less than well.
    Warning,
    /// It failed; what follows is the way back, or a person.
    Bad,
    /// Somebody else's words.
    Output,
}

/// What has been heard of a run so far; some lines can only be read with earlier ones.
#[derive(Debug, Default)]
pub(super) struct Listener {
    acts: BTreeMap<u64, Step>,
    plans: u32,
    recovers: bool,
}

impl Listener {
    /// What a reader hears of this line, if anything.
    pub(super) fn hear(&mut self, entry: &Entry) -> Option<Told> {
        let said = |tone, text: String| Some(Told::Said(tone, text));
        match &entry.what {
            What::Planned { plan } => {
                self.plans += 1;
                // The first plan was shown before the run began.
                let text = match (self.plans, plan.direction) {
                    (1, _) => return None,
                    (_, Direction::Back) => "going back to what was live before",
                    (_, Direction::Forward) if self.recovers => "going on with what was begun",
                    // What the plan had shown as the other way, for a migration that turned out to be pending.
                    (_, Direction::Forward) => "going on with the handover that the migration needs",
                };
                said(Tone::Note, text.to_owned())
            }
            What::Entered { stage } => Some(Told::Begins(*stage)),
            // The plan has said what is skipped; the verdict has the last word.
            What::Skipped { .. } | What::Verdict { .. } => None,
            What::Left { stage, took_ms } => Some(Told::Ends(*stage, Duration::from_millis(*took_ms))),
            What::Intent { stage, step } => {
                self.acts.insert(entry.seq, step.clone());
                Some(Told::Doing(*stage, act(step)))
            }
            What::Outcome { intent, result } => {
                let step = self.acts.remove(intent)?;
                if let (Step::Rehearse { database }, StepResult::Tried { findings }) = (&step, result) {
                    return Some(Told::Found(rehearsal::findings(database, findings)));
                }
                said(Tone::Note, result_text(&step, result)?)
            }
            What::Broke { intent, error, unknown } => {
                let act = self.acts.remove(intent).map_or_else(|| "an act".to_owned(), |step| act(&step));
                let perhaps = if *unknown { " (it may have happened all the same)" } else { "" };
                said(Tone::Bad, format!("{act}: {error}{perhaps}"))
            }
            What::Failed { stage, failure } => said(Tone::Bad, format!("{stage}: {failure}")),
            What::CancelAsked { by } => said(Tone::Warning, format!("{} asked to cancel", harmless_line(by))),
            What::Note { text, .. } => said(Tone::Note, text.clone()),
            What::Warning { text, .. } => said(Tone::Warning, text.clone()),
            What::Output { of, line } => said(Tone::Output, format!("{of}: {line}")),
            What::Resumed { attempt, why } => {
                self.recovers = true;
                if *attempt == 1 { None } else { said(Tone::Warning, format!("{why}, attempt {attempt}")) }
            }
        }
    }
}

/// An act, as it is about to be done.
fn act(step: &Step) -> String {
    match step {
        Step::Admit => "write the release's env file and record".to_owned(),
        Step::Fetch { image } => format!("fetch image {image}"),
        Step::Network { name } => format!("make network {name}"),
        Step::Volume { name } => format!("make volume {name}"),
        Step::Create { instance } => format!("create {instance}"),
        Step::Start { instance } => format!("start {instance}"),
        Step::Join { instance, network } => format!("let {instance} join {network}"),
        Step::Leave { instance, network } => format!("let {instance} leave {network}"),
        Step::Restart { instance, policy: RestartPolicy::UnlessStopped } => {
            format!("keep {instance} up from now on")
        }
        Step::Restart { instance, policy: RestartPolicy::No } => format!("no longer keep {instance} up"),
        Step::Stop { instance } => format!("stop {instance}"),
        Step::Remove { instance } => format!("remove {instance}"),
        Step::Rehearse { database } => format!("rehearse the migration of {database} on a copy"),
        Step::Pending { database } => format!("ask whether a migration of {database} is pending"),
        Step::Hold { services } => {
            let names: Vec<&str> = services.iter().map(cutover_core::names::ServiceName::as_str).collect();
            format!("hold new requests to {}", names.join(", "))
        }
        Step::Quiet { instances } => {
            let names: Vec<&str> = instances.iter().map(cutover_core::names::InstanceName::as_str).collect();
            format!("wait for requests in flight on {}", names.join(", "))
        }
        Step::Snapshot { database, .. } => format!("take a snapshot of {database}"),
        Step::Migrate { database } => format!("migrate {database}"),
        Step::Inspect { database } => format!("look at what the migration left in {database}"),
        Step::Restore { database, .. } => format!("put the snapshot of {database} back"),
        Step::Password { service, .. } => format!("change the password in the server of {service}"),
        Step::Switch => "switch the routes".to_owned(),
        Step::Live => "write which release is live".to_owned(),
        Step::Unroute => "take the routes out".to_owned(),
        Step::Discard { what } => format!("remove {what}"),
        Step::Record => "record the outcome".to_owned(),
    }
}

/// What came of an act, where a reader wants to know.
fn result_text(step: &Step, result: &StepResult) -> Option<String> {
    match (step, result) {
        (_, StepResult::Done | StepResult::Already | StepResult::Quiet { left: 0, closed: 0 }) => None,
        (Step::Rehearse { database }, StepResult::Rehearsed { pending: false, took_ms }) => Some(format!(
            "{database}: no migration is pending (rehearsed in {})",
            span(Duration::from_millis(*took_ms))
        )),
        (Step::Rehearse { database }, StepResult::Rehearsed { pending: true, took_ms }) => Some(format!(
            "{database}: a migration is pending; it went well on a copy in {}",
            span(Duration::from_millis(*took_ms))
        )),
        (Step::Pending { database }, StepResult::Rehearsed { pending, .. }) => Some(if *pending {
            format!("{database}: a migration is pending")
        } else {
            format!("{database}: no migration is pending, so no snapshot is taken")
        }),
        (Step::Snapshot { database, file }, StepResult::Snapshot { bytes, .. }) => {
            Some(format!("{database}: snapshot {file} ({})", size(*bytes)))
        }
        (Step::Migrate { database }, StepResult::Migrated { schema, .. }) => {
            let after = schema.after.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            (!after.is_empty()).then(|| format!("{database}: the schema is at {after}"))
        }
        (_, StepResult::Quiet { left: 0, closed }) => {
            Some(format!("{closed} WebSockets and event streams were closed"))
        }
        (_, StepResult::Quiet { left, closed }) => Some(format!(
            "{left} requests were cut at the deadline; {closed} WebSockets and event streams were closed"
        )),
        // The table before it has said how much, and the last line says it in all.
        (
            _,
            StepResult::Rehearsed { .. }
            | StepResult::Snapshot { .. }
            | StepResult::Migrated { .. }
            | StepResult::Inspected { .. }
            | StepResult::Tried { .. }
            | StepResult::Freed { .. },
        ) => None,
    }
}

/// A size as people read it.
pub(crate) fn size(bytes: u64) -> String {
    const KIB: u64 = 1024;
    match bytes {
        0..KIB => format!("{bytes} bytes"),
        KIB..1_048_576 => format!("{} KiB", bytes / KIB),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes / (KIB * KIB)),
        _ => format!("{}.{} GiB", bytes / 1_073_741_824, bytes % 1_073_741_824 * 10 / 1_073_741_824),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn hear_all(lines: Vec<What>) -> Vec<Told> {
        let mut listener = Listener::default();
        let run = "018f3c9e-0000-7000-8000-000000000001".parse().unwrap();
        (1..)
            .zip(lines)
            .filter_map(|(seq, what)| listener.hear(&Entry { run, seq, at: Timestamp::UNIX_EPOCH, what }))
            .collect()
    }

    #[test]
    fn an_outcome_is_read_with_the_act_it_belongs_to() {
        let told = hear_all(vec![
            What::Entered { stage: Stage::Migrate },
            What::Intent {
                stage: Stage::Migrate,
                step: Step::Rehearse { database: "main".parse().unwrap() },
            },
            What::Outcome { intent: 2, result: StepResult::Rehearsed { pending: true, took_ms: 210 } },
            What::Left { stage: Stage::Migrate, took_ms: 230 },
        ]);
        assert_eq!(
            told,
            [
                Told::Begins(Stage::Migrate),
                Told::Doing(Stage::Migrate, "rehearse the migration of main on a copy".to_owned()),
                Told::Said(
                    Tone::Note,
                    "main: a migration is pending; it went well on a copy in 210 ms".to_owned()
                ),
                Told::Ends(Stage::Migrate, Duration::from_millis(230)),
            ]
        );
    }

    #[test]
    fn an_act_that_broke_says_whether_it_may_have_happened() {
        let told = hear_all(vec![
            What::Intent { stage: Stage::Switch, step: Step::Switch },
            What::Broke { intent: 1, error: "no answer".to_owned(), unknown: true },
        ]);
        let text = "switch the routes: no answer (it may have happened all the same)".to_owned();
        assert_eq!(told[1], Told::Said(Tone::Bad, text));
    }
}
