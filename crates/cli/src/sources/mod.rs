//! What the client brings: the configuration, facts of git, variables, artifacts, images. Everything is looked at here and decided by
//! the plan.

mod artifact;
mod built;
mod contents;
mod git;
mod images;
mod platform;
mod project;
mod shipped;
mod start;
mod variables;

pub(crate) use artifact::Artifact;
pub(crate) use built::{older_images, remove_images};
pub(crate) use contents::{Contents, Making, Wanted, collect};
pub(crate) use git::Git;
pub(crate) use images::{BuildFrom, Images};
pub(crate) use project::{Identity, Project, is_declared_without_value};
pub(crate) use shipped::look_at_shipped;
pub(crate) use start::notes as notes_of_start;
pub(crate) use variables::{Overlay, ProcessEnvironment, local_values, overlay, placeholders, read_env_file};
