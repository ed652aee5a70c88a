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

#[cfg(test)]
mod tests {
    use cutover_core::config::{Selection, Sources, parse};

    use super::*;
    use crate::render::paint;

    fn problems_of(text: &str) -> String {
        let sources = Sources { file: "cutover.yml", text, ..Sources::default() };
        paint::plain(&problems(&parse(&sources, &Selection::default()).unwrap_err()))
    }

    #[test]
    fn every_problem_is_pointed_at() {
        let text = "app: shop\nservices:\n  web:\n    artifact: web\n    comand: ./server\n    port: 0\n    route: { host: shop.localhost }\n";
        insta::assert_snapshot!(problems_of(text), @r"
        error: services.web: an artifact needs a `command`: there is no image to name one
         --> cutover.yml:4:5
          |
        4 |     artifact: web
          |     ^^^^^^^^
          |
          = help: command: ./program

        error: services.web.comand: `comand` is not a key of `services.web`
         --> cutover.yml:5:5
          |
        5 |     comand: ./server
          |     ^^^^^^ did you mean `command`?
          |
          = note: allowed: artifact, port, route, health, ready, verify, strategy, replicas, hold, drain, restart_unhealthy, build, cap_add, cap_drop, command, cpus, depends_on, deploy, devices, dns, entrypoint, env_file, environment, extra_hosts, healthcheck, hostname, image, init, labels, logging, mem_limit, pids_limit, platform, ports, profiles, read_only, scale, security_opt, shm_size, stop_grace_period, stop_signal, sysctls, tmpfs, ulimits, user, volumes, working_dir

        error: services.web.port: port 0 means any port, and nobody could find it
         --> cutover.yml:6:11
          |
        6 |     port: 0
          |           ^
          |
          = help: write a port from 1 to 65535
        ");
    }

    #[test]
    fn an_empty_file_is_told_what_a_first_one_looks_like() {
        insta::assert_snapshot!(problems_of(""), @r"
        error: the file is empty
         --> cutover.yml:1:1
          |
        1 |
          | ^
          |
          = help: write a first one:
                  app: my-app
                  services:
                    web: { build: ., port: 8000, route: { host: example.com } }
                  environments: { production: { hosts: [deploy@example.com] } }
        ");
    }

    #[test]
    fn a_span_is_kept_within_its_text() {
        assert_eq!((within(1..9, "äb"), within(7..9, "ab")), (0..3, 2..2));
    }
}
