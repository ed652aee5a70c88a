//! Problems of a configuration: each with its place in the file, as the compiler shows its own.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use cutover_core::config::{Problem, Problems};

use super::json::Line;

/// All problems, in the order of the file.
pub(crate) fn problems(problems: &Problems) -> String {
    let renderer = Renderer::styled();
    problems.problems.iter().map(|problem| one(&renderer, problem, problems.text_of(problem))).collect()
}

/// The same for programs.
pub(crate) fn lines(problems: &Problems) -> impl Iterator<Item = Line<'_>> {
    problems.problems.iter().map(|problem| Line::Problem {
        file: &problem.file,
        line: problem.line,
        column: problem.column,
        path: &problem.path,
        what: &problem.what,
        allowed: &problem.allowed,
        nearest: problem.nearest.as_deref(),
        remedy: problem.remedy.as_deref(),
    })
}

fn one(renderer: &Renderer, problem: &Problem, text: &str) -> String {
    let title = if problem.path.is_empty() {
        problem.what.clone()
    } else {
        format!("{}: {}", problem.path, problem.what)
    };
    let label = problem.nearest.as_ref().map(|nearest| format!("did you mean `{nearest}`?"));
    let mut annotation = AnnotationKind::Primary.span(within(problem.span.clone(), text));
    if let Some(label) = &label {
        annotation = annotation.label(label.as_str());
    }
    let snippet = Snippet::source(text).path(problem.file.as_str()).annotation(annotation);
    let mut group = Group::with_title(Level::ERROR.primary_title(title.as_str())).element(snippet);
    if let Some((line, column)) = problem.also {
        group = group.element(Level::NOTE.message(format!("it belongs to {}:{line}:{column}", problem.file)));
    }
    if !problem.allowed.is_empty() {
        group = group.element(Level::NOTE.message(format!("allowed: {}", problem.allowed.join(", "))));
    }
    if let Some(remedy) = &problem.remedy {
        group = group.element(Level::HELP.message(remedy.as_str()));
    }
    format!("{}\n\n", renderer.render(&[group]))
}

/// A span that lies within the text and between characters, whatever the problem says.
fn within(span: std::ops::Range<usize>, text: &str) -> std::ops::Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    start..floor(span.end).max(start)
}
