//! Databases of apps: files of SQLite on this host, and those in a server. One port for both; the engine is chosen by where the database lies.

mod content;
mod openers;
mod server;
pub(crate) mod sqlite;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;

use crate::meter::Meter;
use crate::ports::{
    Account, Alone, Content, Database, DatabaseError, Located, LockSamples, NotAlone, Server, ServerState,
    Taken,
};
use sqlite::Sqlite;

/// The databases that this host reaches.
#[derive(Debug, Clone)]
pub struct Databases {
    /// What counts the bytes of dumps.
    pub meter: Meter,
}

#[async_trait]
impl Database for Databases {
    async fn copy(&self, from: &Path, to: &Path) -> Result<u64, DatabaseError> {
        Sqlite::copy(from, to, &self.meter).await
    }

    async fn content(&self, file: &Path) -> Result<Content, DatabaseError> {
        Sqlite::content(file).await
    }

    async fn snapshot(&self, of: &Located, to: &Path) -> Result<Taken, DatabaseError> {
        match of {
            Located::File(file) => {
                let bytes = Sqlite::snapshot(file, to, &self.meter).await?;
                Ok(Taken { bytes, hash: None, counts: None, loose: Vec::new() })
            }
            Located::Server(server) => server::of(server, &self.meter).snapshot(to).await,
        }
    }

    async fn closed(&self, database: &Located) -> Result<(), DatabaseError> {
        match database {
            Located::File(file) => Sqlite::closed(file).await,
            Located::Server(server) => server::of(server, &self.meter).closed().await,
        }
    }

    async fn restore(&self, snapshot: &Path, to: &Located) -> Result<Option<String>, DatabaseError> {
        match to {
            // Nobody else could open it meanwhile without being seen.
            Located::File(file) => Sqlite::restore(snapshot, file).await.map(|()| None),
            Located::Server(server) => server::of(server, &self.meter).restore(snapshot).await,
        }
    }

    async fn check(&self, snapshot: &Path, of: &Located) -> Result<Vec<String>, DatabaseError> {
        match of {
            Located::File(_) => Sqlite::check(snapshot).await,
            Located::Server(server) => server::of(server, &self.meter).check(snapshot).await,
        }
    }

    async fn differing(&self, snapshot: &Path, file: &Path) -> Result<u64, DatabaseError> {
        Sqlite::differing(snapshot, file).await
    }

    async fn restore_beside(&self, snapshot: &Path, of: &Located, to: &str) -> Result<(), DatabaseError> {
        match of {
            Located::File(_) => Sqlite::restore_beside(snapshot, Path::new(to)).await,
            Located::Server(server) => server::of(server, &self.meter).restore_beside(snapshot, to).await,
        }
    }

    async fn restore_keeping(&self, snapshot: &Path, to: &Located) -> Result<Option<String>, DatabaseError> {
        match to {
            // Only candidates can have written to it.
            Located::File(file) => Sqlite::restore(snapshot, file).await.map(|()| None),
            Located::Server(server) => server::of(server, &self.meter).restore_keeping(snapshot).await,
        }
    }

    async fn rehearse_restore(&self, server: &Server, scratch: &Path) -> Result<(), DatabaseError> {
        server::of(server, &self.meter).rehearse_restore(scratch).await
    }

    async fn answer(&self, of: &Located, query: &str) -> Result<String, DatabaseError> {
        match of {
            Located::File(file) => Sqlite::answer(file, query).await,
            Located::Server(server) => server::of(server, &self.meter).answer(query).await,
        }
    }

    async fn kept(&self, server: &Server) -> Result<Vec<String>, DatabaseError> {
        server::of(server, &self.meter).kept().await
    }

    async fn drop_kept(&self, server: &Server, name: &str) -> Result<(), DatabaseError> {
        server::of(server, &self.meter).drop_kept(name).await
    }

    async fn roles(&self, of: &Server) -> Result<Vec<String>, DatabaseError> {
        server::of(of, &self.meter).roles().await
    }

    async fn make_roles(&self, of: &Server, roles: &[String]) -> Result<(), DatabaseError> {
        server::of(of, &self.meter).make_roles(roles).await
    }

    async fn look(&self, server: &Server) -> Result<ServerState, DatabaseError> {
        server::of(server, &self.meter).look().await
    }

    async fn alone(&self, server: &Server) -> Result<Alone, NotAlone> {
        server::of(server, &self.meter).alone().await
    }

    async fn migrating(&self, server: &Server) -> Result<Option<String>, DatabaseError> {
        server::of(server, &self.meter).migrating().await
    }

    async fn admits(&self, server: &Server, account: &Account) -> Result<bool, DatabaseError> {
        server::of(server, &self.meter).admits(account).await
    }

    async fn can_set_password(
        &self,
        server: &Server,
        from: &Account,
        to: &Account,
    ) -> Result<Vec<String>, DatabaseError> {
        server::of(server, &self.meter).can_set_password(from, to).await
    }

    async fn set_password(&self, server: &Server, from: &Account, to: &Account) -> Result<(), DatabaseError> {
        server::of(server, &self.meter).set_password(from, to).await
    }

    async fn fill(&self, fresh: &Server, snapshot: &Path, like: &Server) -> Result<Duration, DatabaseError> {
        server::of(fresh, &self.meter).fill(snapshot, like).await
    }

    async fn schema(&self, of: &Server) -> Result<BTreeMap<String, String>, DatabaseError> {
        server::of(of, &self.meter).schema().await
    }

    async fn locks(&self, of: &Server) -> Result<LockSamples, DatabaseError> {
        server::of(of, &self.meter).locks().await
    }

    async fn end_sessions(&self, server: &Server) -> Result<u64, DatabaseError> {
        server::of(server, &self.meter).end_sessions().await
    }
}
