//! The migrations in `./migrations`, by sqlx's own migrator: `ledger-migrate run`, or `ledger-migrate revert VERSION` for all that came after it.

use std::error::Error;
use std::path::Path;

use sqlx::migrate::Migrator;
use sqlx::{AnyConnection, Connection as _};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    sqlx::any::install_default_drivers();
    let migrator = Migrator::new(Path::new("migrations")).await?;
    let mut connection = AnyConnection::connect(&std::env::var("DATABASE_URL")?).await?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["run"] => migrator.run(&mut connection).await?,
        ["revert", version] => migrator.undo(&mut connection, version.parse()?).await?,
        _ => return Err("ledger-migrate run | revert VERSION".into()),
    }
    Ok(())
}
