//! What a cutover.yml, a compose file or an env file may say: read whole, and every problem points into it.
#![no_main]

use cutover_core::config::{Selection, Sources, compose_files, env_files, environments, parse};
use cutover_core::env_file;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for environment in ["production", "local"] {
        let environment = environment.parse().expect("a name");
        let selection = Selection { environment: Some(environment), ..Selection::default() };
        let sources = Sources { file: "cutover.yml", text, ..Sources::default() };
        let Err(problems) = parse(&sources, &selection) else { continue };
        assert!(!problems.problems.is_empty(), "refused without a reason");
        for problem in &problems.problems {
            assert!(text.get(problem.span.clone()).is_some(), "{problem} points to {:?}", problem.span);
            assert!(problem.line >= 1 && problem.column >= 1);
        }
    }
    compose_files(text);
    env_files(&[text]);
    drop(environments(text));
    drop(env_file::parse(text));
});
