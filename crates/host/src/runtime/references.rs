//! What an instance's open references are filled from, whatever carries it: one place, so that both runtimes mean the same by a name.

use std::collections::BTreeSet;

use cutover_core::named;
use cutover_core::names::{DatabaseName, ServiceName, VariableName};
use cutover_core::plan::InstanceSpec;
use cutover_core::secret::Secrets;
use cutover_core::template::{Lookup, Template, Unresolved};

/// The sources of one instance. What cutover gives stands before what the env file holds.
pub(super) struct Sources<'a> {
    pub(super) spec: &'a InstanceSpec,
    /// `None` where nothing secret may go: a word of a command is seen by every user of the machine.
    pub(super) values: Option<&'a Secrets>,
}

impl Lookup for Sources<'_> {
    fn variable(&self, name: &VariableName) -> Option<String> {
        let own = self.spec.given.get(name).cloned();
        own.or_else(|| Some(self.values?.get(name)?.expose().to_owned()))
    }

    fn service_url(&self, name: &ServiceName) -> Option<String> {
        self.spec.urls.get(name).cloned()
    }

    fn database_file(&self, name: &DatabaseName) -> Option<String> {
        self.spec.files.get(name).cloned()
    }
}

/// Whether what the author tells an instance, filled in, leads to a host by one of these names.
///
/// # Errors
/// A variable of it has no value.
pub(crate) fn names_host(
    spec: &InstanceSpec,
    values: &Secrets,
    hosts: &BTreeSet<String>,
) -> Result<bool, Unresolved> {
    let sources = Sources { spec, values: Some(values) };
    for (name, template) in &spec.settings.environment {
        if named::variable_names(name.as_str(), &template.resolve(&sources)?, hosts) {
            return Ok(true);
        }
    }
    let words = spec.settings.entrypoint.iter().chain(&spec.settings.command).flatten();
    let words = words.map(|word: &Template| word.resolve(&sources)).collect::<Result<Vec<_>, _>>()?;
    Ok(named::words_name(&words, hosts))
}
