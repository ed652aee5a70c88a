//! What belongs into a backup, and what is said of the rest.

use cutover_core::backup::items;

use crate::rehearsals::serving;

/// A server that a sidecar measures, folders of the host, and a service that keeps something of which nobody knows what.
const APP: &str = r#"
app: shop
services:
  web:
    image: web:1
    port: 8080
    volumes: ["uploads:/uploads", "/srv/media:/media", "/srv/tuning:/etc/tuning:ro", "/var/run/docker.sock:/var/run/docker.sock"]
databases:
  main: { engine: postgres, service: postgres }
backing:
  postgres:
    image: postgres:15
    volumes: ["pgdata:/var/lib/postgresql/data", "dumps:/dumps"]
  metrics:
    image: metrics:1
    volumes: ["pgdata:/watched:ro", "dumps:/dumps", "figures:/figures"]
"#;

#[test]
fn given_a_server_and_its_sidecar_then_its_files_are_left_to_the_dump_and_what_no_backup_has_is_said() {
    let mut host = serving(APP);
    let release = host.deploy("v2").unwrap().release.unwrap();

    let items = items(&release, "/var/lib/cutover");

    let volumes: Vec<&str> = items.volumes.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(volumes, ["dumps", "figures", "uploads"]);
    let servers: Vec<&str> = items.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(servers, ["main"]);
    assert_eq!(
        items.left_out,
        [
            "volume `pgdata` of the database server `postgres`: `main` is dumped instead, without the server's roles' passwords and memberships",
            "`/srv/media` of the host, which `web` may write: only volumes are taken",
        ]
    );
}
