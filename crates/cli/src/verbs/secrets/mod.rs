//! `secrets`: passwords that a server and its services must agree on.

mod arguments;
mod rotate;

pub(crate) use arguments::SecretsWord;
pub(super) use rotate::rotate;
