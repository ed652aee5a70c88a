//! Why a verb did not end well.

use cutover_core::config::Problems;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::recover::serving_text;
use cutover_core::state::HostState;

/// Why a verb did not end well.
#[derive(Debug)]
pub(crate) enum Stop {
    /// With the four answers.
    Failed(Box<Failure>),
    /// The configuration has problems: all of them.
    Problems(Box<Problems>),
    /// Nobody reads what is printed any more, or it cannot be printed.
    Output(std::io::Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

impl From<Problems> for Stop {
    fn from(problems: Problems) -> Self {
        Self::Problems(Box::new(problems))
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

impl Stop {
    /// The problems of the configuration that are worth pointing at in the file.
    pub(crate) fn problems(&self) -> Option<&Problems> {
        match self {
            Self::Problems(problems) if !problems.only_environment() => Some(problems),
            Self::Problems(_) | Self::Failed(_) | Self::Output(_) => None,
        }
    }

    /// The same; a failure that touched nothing says what serves.
    pub(crate) fn untouched(self, state: &HostState) -> Self {
        match self {
            Self::Failed(failure) => failure.untouched(&serving_text(state.live.as_ref())).into(),
            Self::Problems(_) | Self::Output(_) => self,
        }
    }

    /// The four answers; `None` where nobody is left to read them.
    pub(crate) fn failure(&self) -> Option<Failure> {
        match self {
            Self::Failed(failure) => Some(*failure.clone()),
            Self::Problems(problems) => Some(problems_failure(problems)),
            Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => None,
            Self::Output(error) => Some(
                Failure::new(Exit::Failed, "the answer could not be written")
                    .because(error.to_string())
                    .next("see where standard output leads to"),
            ),
        }
    }
}

fn problems_failure(problems: &Problems) -> Failure {
    if problems.only_environment() {
        return environment_failure(problems);
    }
    let what = match problems.problems.len() {
        1 => format!("{} has a problem", problems.file),
        count => format!("{} has {count} problems", problems.file),
    };
    let failure = Failure::new(Exit::Configuration, what);
    problems
        .problems
        .iter()
        .fold(failure, |failure, problem| {
            let path = if problem.path.is_empty() { String::new() } else { format!("{}: ", problem.path) };
            failure.because(format!(
                "{}:{}:{}: {path}{}",
                problem.file, problem.line, problem.column, problem.what
            ))
        })
        .next("mend what is shown above, and see with `cutover check`")
}

/// The command named no environment, or an unknown one: the file is good.
fn environment_failure(problems: &Problems) -> Failure {
    let mut failure = Failure::new(Exit::Usage, "the environment is not known");
    for problem in &problems.problems {
        failure.what.clone_from(&problem.what);
        failure = failure.because(format!("{} has: {}", problem.file, problem.allowed.join(", ")));
    }
    failure.next("name one: `-e ENV`, or CUTOVER_ENV")
}
