//! What an instance's open references are filled from, whatever carries it: one place, so that both runtimes mean the same by a name.

use cutover_core::names::{DatabaseName, ServiceName, VariableName};
use cutover_core::plan::InstanceSpec;
use cutover_core::secret::Secrets;
use cutover_core::template::Lookup;

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
