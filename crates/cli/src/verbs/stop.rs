//! Why a verb did not end well.

use cutover_core::config::Problems;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;

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
    let count = problems.problems.len();
    let plural = if count == 1 { "1 problem" } else { "problems" };
    let what = if count == 1 {
        format!("{} has {plural}", problems.file)
    } else {
        format!("{} has {count} {plural}", problems.file)
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
        .next("mend them and run `cutover check`")
}
