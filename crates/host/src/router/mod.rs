//! What carries requests to instances.

pub mod proxy;
