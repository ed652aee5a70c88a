//! The question before something changes: asked on a terminal, answered by `--yes` elsewhere.

use std::io::{BufRead, IsTerminal};

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;

use super::Desk;
use crate::asked::Conduct;
use crate::effects::Question;

/// Asks what must be asked; an error when the answer is no, or nobody is there to give one.
pub(super) fn approve(desk: &Desk, question: &Question, conduct: Conduct) -> Result<(), Failure> {
    if conduct.yes { Ok(()) } else { answer(desk, question) }
}

/// The same where nothing was answered beforehand.
pub(super) fn answer(desk: &Desk, question: &Question) -> Result<(), Failure> {
    if *question == Question::None {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(nobody_there(question));
    }
    let prompt = match question {
        Question::None => return Ok(()),
        Question::Yes(about) => format!("{about}\nGo on? [y/N] "),
        Question::Type { name, about } => format!("{about}\nType `{name}` to go on: "),
    };
    desk.output.talk(&prompt);
    let mut answer = String::new();
    // An input that ended is no answer, and no answer is a no.
    std::io::stdin().lock().read_line(&mut answer).ok();
    if is_approved(question, answer.trim()) { Ok(()) } else { Err(declined()) }
}

fn is_approved(question: &Question, answer: &str) -> bool {
    match question {
        Question::None => true,
        Question::Yes(_) => matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"),
        Question::Type { name, .. } => answer == name,
    }
}

fn declined() -> Failure {
    Failure::new(Exit::Cancelled, "it was not approved").because("the answer was not the one asked for")
}

fn nobody_there(question: &Question) -> Failure {
    let about = match question {
        Question::None => "",
        Question::Yes(about) | Question::Type { about, .. } => about,
    };
    Failure::new(Exit::Usage, "this needs an approval, and there is no terminal to ask on")
        .because(about)
        .next("give the answer on the command line: `--yes`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_name_approves_what_a_name_was_asked_for() {
        let name = Question::Type { name: "production".to_owned(), about: String::new() };
        assert!(is_approved(&name, "production"));
        assert!(!is_approved(&name, "y") && !is_approved(&name, "Production") && !is_approved(&name, ""));
        let yes = Question::Yes(String::new());
        assert!(is_approved(&yes, "Y") && is_approved(&yes, "yes") && !is_approved(&yes, ""));
    }
}
