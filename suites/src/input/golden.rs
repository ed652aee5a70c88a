//! What people read, collected case by case and compared as a whole.

use std::path::Path;

use cutover_testkit::redact;
use cutover_testkit::site::{Site, Told};

/// Where the approved ones lie.
const SNAPSHOTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/input/snapshots");

/// The texts of one test, and what is wrong with them whatever they say.
pub struct Golden {
    name: &'static str,
    cases: Vec<String>,
    wrong: Vec<String>,
}

impl Golden {
    /// None yet; `name` is that of the approved ones.
    pub fn new(name: &'static str) -> Self {
        Self { name, cases: Vec::new(), wrong: Vec::new() }
    }

    /// Adds what a command said about `case`, which is to be a failure in four parts with this exit code.
    pub fn failure(&mut self, site: &Site, case: &str, exit: i32, told: &Told) {
        let text = relevant(&told.talk);
        self.add(site, &format!("{case} · exit {exit}"), text);
        let missing = ["error: ", "\n  cause: ", "\n  state: ", "\n  next:  "];
        let missing: Vec<&str> =
            missing.into_iter().filter(|part| !text.contains(part)).map(str::trim).collect();
        if told.exit != Some(exit) || !missing.is_empty() {
            self.wrong.push(format!(
                "{case}: exit {:?}, missing: {missing:?}\n{}\n{}",
                told.exit, told.output, told.talk
            ));
        }
    }

    /// Adds a text as it is.
    pub fn add(&mut self, site: &Site, title: &str, text: &str) {
        let host = site.binaries().host.parent().unwrap_or(Path::new("/"));
        let text = redact(text, &[(site.folder(), "SITE"), (host, "PROGRAMS")]);
        self.cases.push(format!("── {title}\n{}\n", text.trim_end()));
    }

    /// Compares all of it with what was approved.
    pub fn compare(self) {
        insta::with_settings!({ snapshot_path => SNAPSHOTS, prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(self.name, self.cases.join("\n"));
        });
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n────\n"));
    }
}

/// Without the plan and the stages, which are told while all is well; with the pointers into a configuration.
fn relevant(talk: &str) -> &str {
    if talk.contains(" --> cutover.yml:") {
        return talk;
    }
    talk.rfind("\nerror: ").map_or(talk, |start| &talk[start + 1..])
}
