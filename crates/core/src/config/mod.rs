//! cutover.yml: from text to a settled configuration, with all its problems at once.

pub mod settings;
