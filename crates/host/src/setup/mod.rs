//! Turns this server into a host, as `cutover_core::setup` decides: look, act, look again. Each act may be done again, so that whoever was
//! killed in the middle begins anew. What could lock somebody out is on trial first: taken back unless another connection confirms it.

mod apart;
mod carry;
mod files;
mod firewall;
mod handover;
mod keys;
mod listeners;
mod logins;
mod look;
mod packages;
mod portless;
mod program;
mod record;
mod serving;
mod sockets;
mod sshd;
mod system;
mod trial;
mod undo;
mod units;

pub use apart::{goes_on as hand_over_goes_on, main as handover};
pub use firewall::is_gone as firewall_is_gone;
pub use keys::{add as add_key, list as list_keys, revoke as revoke_key};
pub use sockets::{inherited, offered, ready};
pub use trial::{confirm, expire, take_back};
pub(crate) use undo::removed as app_removed;
pub use undo::{look as look_undo, undo};
pub use units::{are_installed as units_are_installed, scope, start as start_units};

pub use carry::{Setup, SetupEvent, upgrade};
