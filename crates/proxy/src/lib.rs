//! The data plane: takes requests in, finds their route, gives them to a target, brings the answer back.
//!
//! It knows [`cutover_routes`] and nothing of deploys. In the order of a request's life:
//! `listen` accepts · `serve` reads a request · `request` leads it through: `address` → `route` → `hold` → `balance` →
//! `forward` → `body` or `upgrade`. Beside it `control` answers on a socket: `table` replaces what is served (`store` makes it
//! durable first), `drain` empties targets, `figures` tells what was counted.
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![warn(missing_docs)]

mod address;
mod balance;
mod ballast;
mod body;
mod clients;
mod control;
mod deadline;
mod door;
mod drain;
mod figures;
mod forward;
mod headers;
mod hold;
mod inflight;
mod listen;
mod lock;
mod pace;
mod plane;
mod pool;
mod refuse;
mod request;
mod route;
mod serve;
mod store;
mod streams;
mod table;
mod target;
mod upgrade;
mod websocket;

pub use deadline::Limits;
pub use plane::{Options, Proxy, ProxyError, run};
pub use refuse::{ERROR_HEADER, Reason};
pub use store::StoreError;
