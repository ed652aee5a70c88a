//! The four answers of a failure, as text: what failed, why, what is serving now, what to do next.

use cutover_core::failure::Failure;

use super::harmless_line;
use super::paint::{self, Text};

/// The four answers, the end of the log that tells why among them.
pub(crate) fn failure(failure: &Failure) -> String {
    let mut text = Text::default();
    text.line(format!("{} {}", paint::bad("error:"), paint::strong(&failure.what)));
    part(&mut text, "cause:", &failure.cause);
    for line in &failure.log {
        text.line(format!("         {} {line}", paint::quiet("|"), line = harmless_line(line)));
    }
    part(&mut text, "state:", std::slice::from_ref(&failure.state));
    part(&mut text, "next:", &failure.next);
    text.finish()
}

fn part(text: &mut Text, word: &str, lines: &[String]) {
    // Two that say the same say it once: remedies come from several causes.
    let mut told: Vec<&String> = Vec::new();
    for line in lines {
        if !told.contains(&line) {
            told.push(line);
        }
    }
    let lines = told.into_iter().flat_map(|line| line.lines());
    for (index, line) in lines.enumerate() {
        let word = if index == 0 { word } else { "" };
        text.line(format!("  {} {line}", paint::column(word, 6, |word| paint::strong(word))));
    }
}

#[cfg(test)]
mod tests {
    use cutover_core::exit::Exit;

    use super::*;

    #[test]
    fn the_four_answers_stand_one_below_the_other() {
        let mut sample = Failure::new(
            Exit::NotHealthy,
            "release 7f3c9e1 was not put live: service `web` did not become healthy",
        )
        .because("GET /health on green answered 500 (12 tries in 30s)")
        .because("listening on: 127.0.0.1:8080 only")
        .while_serving("blue (release 41d0aa2) is serving; green is stopped and kept; database not migrated")
        .next("the app listens on 127.0.0.1: make it listen on 0.0.0.0")
        .next("see `cutover logs web --release 7f3c9e1`");
        sample.log = vec!["listening on 127.0.0.1:8080".to_owned()];
        insta::assert_snapshot!(paint::plain(&failure(&sample)), @r"
        error: release 7f3c9e1 was not put live: service `web` did not become healthy
          cause: GET /health on green answered 500 (12 tries in 30s)
                 listening on: 127.0.0.1:8080 only
                 | listening on 127.0.0.1:8080
          state: blue (release 41d0aa2) is serving; green is stopped and kept; database not migrated
          next:  the app listens on 127.0.0.1: make it listen on 0.0.0.0
                 see `cutover logs web --release 7f3c9e1`
        ");
    }
}
