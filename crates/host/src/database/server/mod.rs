//! Databases in a server, by the server's own client programs: inside the server's instance, or on this host.

mod catalogue;
mod client;
mod dump;
pub(super) mod postgres;
mod restore;
mod tools;
mod url;

use std::path::Path;

use cutover_core::layout;

use crate::ports::{Server, Way};

/// What a person types to put a dump back, all of it or nothing. What was created since stays.
pub(crate) fn by_hand(server: &Server, dump: &Path) -> String {
    let restore = "pg_restore --clean --if-exists --single-transaction";
    let unpack = format!("zstd -dc {}", dump.display());
    let name = server.name.as_deref();
    match &server.way {
        Way::Inside { app, instance, .. } => {
            let container = layout::container(app, instance);
            let name = name.unwrap_or("$POSTGRES_DB");
            let inside = format!("PGPASSWORD=$POSTGRES_PASSWORD {restore} -U $POSTGRES_USER -d {name}");
            format!("{unpack} | docker exec -i {container} sh -c '{inside}'")
        }
        Way::Outside { url } => {
            let place = url::Url::parse(url.expose()).map(|url| url.words()).unwrap_or_default();
            format!("{unpack} | {restore} {place}")
        }
    }
}
