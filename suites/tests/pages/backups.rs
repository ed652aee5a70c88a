//! The pages of backups and of disaster: what was on the first server is lost, and another takes its place.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cutover_suites::engine::{DATABASES_IMAGE, POSTGRES_START, docker};
use cutover_suites::kept::records;
use cutover_suites::rows::{serves, written_while};
use cutover_testkit::machine::{Machine, User};
use cutover_testkit::site::Site;
use cutover_testkit::{SOON, wait_until};

use crate::page::Page;
use crate::shop::{FIRST, Shop};

/// The page that says how backups are configured: where they go, and what a drill asks.
const PAGE: &str = include_str!("../../../docs/backups.md");

const SNAPSHOT: &str = "main_20261126T040506007Z_7f3c9e1.dump.zst";
const REPOSITORY: &str = "sftp:backup@nas.example.com:/backups";
const ALL: &str = "select count(*) from orders";

/// What the page has of backups in its configurations, where they go and what a drill asks. One that is an app of its own stays by itself.
pub(crate) fn configuration() -> String {
    let blocks = PAGE.split("```yaml\n").skip(1).filter_map(|text| text.split("```").next());
    blocks.filter(|block| block.contains("backup:") && !block.starts_with("app:")).collect()
}

/// The line of what `cutover backup list` or `restic snapshots` says that has this in it begins with an ID.
fn id(list: &str, of: &str) -> String {
    let line =
        list.lines().find(|line| line.contains(of)).unwrap_or_else(|| panic!("{of} is not there: {list}"));
    line.split_whitespace().next().unwrap().to_owned()
}

fn upload(shop: &Shop<'_>) -> PathBuf {
    shop.app.volume("uploads").join("upload")
}

pub(crate) async fn backups(shop: &mut Shop<'_>) {
    let mut page = Page::read("backups");
    shop.commit("first", FIRST);
    let password = page.does(shop, "openssl rand -base64 32").await;
    shop.means("correct-horse-battery-staple", password.trim());
    page.answers(shop, "cutover env set BACKUP_PASSWORD --no-deploy", password.trim()).await;
    shop.deploy("first", FIRST).await;
    // The schedule makes one at once.
    records(shop.app, 1).await;
    shop.query("insert into orders values ('kept')").await;
    shop.query("create role reporting login password 'of reporting'").await;
    shop.query("grant select on orders to reporting").await;
    fs::write(upload(shop), "kept").unwrap();

    let (_, made) = written_while(shop.app.site(), "beside", page.does(shop, "cutover backup run")).await;

    assert!(made.contains("database main, volume uploads"), "{made}");
    let newest = id(&page.does(shop, "cutover backup list").await, "read back");
    shop.means("3f2a91c4", &newest);
    assert!(page.does(shop, "cutover backup verify").await.contains("database main: its dump came back"));
    let drilled = page.does(shop, "cutover backup drill").await;
    assert!(drilled.contains("select count(*) from orders"), "{drilled}");
    page.does(shop, "cutover backup restore --to /srv/scratch").await;
    page.does(shop, "cutover backup restore 3f2a91c4 --to /srv/other").await;
    for folder in ["scratch", "other"] {
        let folder = shop.app.site().folder().join("srv").join(folder);
        assert_eq!(fs::read_to_string(folder.join("volumes/uploads/upload")).unwrap(), "kept");
        assert!(fs::read(folder.join("databases/main.dump")).unwrap().starts_with(b"PGDMP"));
    }
    page.approves(shop, "cutover backup prune").await;
    let status = page.does(shop, "cutover status --check").await;
    assert!(status.contains("backup"), "{status}");
    put_back(shop, &mut page).await;
    page.ends();
}

/// A database, under traffic, and a volume.
async fn put_back(shop: &mut Shop<'_>, page: &mut Page) {
    shop.query("delete from orders where text = 'kept'").await;
    fs::remove_file(upload(shop)).unwrap();

    page.does(shop, "cutover backup list").await;
    let brought = page.does(shop, "cutover backup restore 3f2a91c4").await;
    let name = brought.split_once("cutover snapshot restore ").unwrap().1.split_once('`').unwrap().0;
    shop.means(SNAPSHOT, name);
    let restored = page.approves(shop, "cutover snapshot restore main_20261126T040506007Z_7f3c9e1.dump.zst");
    written_while(shop.app.site(), "restored", restored).await;
    assert_eq!(shop.query(&format!("{ALL} where text = 'kept'")).await, "1");

    page.does(shop, "cutover backup restore 3f2a91c4 --to /srv/volumes").await;
    page.does(shop, "cutover stop").await;
    let copy =
        "cp -a /srv/volumes/volumes/uploads/. /var/lib/docker/volumes/cutover-shop.production.uploads/_data/";
    page.does(shop, copy).await;
    page.does(shop, "cutover start").await;
    assert_eq!(fs::read_to_string(upload(shop)).unwrap(), "kept");
    serves(shop.app, "first").await;
}

pub(crate) async fn disaster(shop: &mut Shop<'_>, machine: &Machine) {
    let mut page = Page::read("disaster");
    let password = shop.meant("correct-horse-battery-staple");
    let names = page.does(shop, "cutover env list").await;
    assert!(names.contains("BACKUP_PASSWORD") && !names.contains(&password), "{names}");
    page.does(shop, "cutover exec postgres pg_dumpall -U shop --roles-only | grep -w reporting > roles.sql")
        .await;
    let orders = shop.query(ALL).await;
    // What is written after the newest backup is lost.
    shop.app.cutover(&["backup", "run"]).await.unwrap().expect(0).unwrap();
    shop.query("insert into orders values ('afterwards')").await;
    let site = shop.app.site();
    site.kill_all().unwrap();

    // The disk of the backups is in the new server now.
    let backups = site.folder().join("backups");
    machine.put(&backups, "/srv/backups").await.unwrap();
    let repository = shop.meant(REPOSITORY);
    shop.means(REPOSITORY, "/srv/backups");
    shop.moves_to(machine);
    let target = machine.target(User::Root);
    shop.means("deploy@example.com", &target);
    shop.means("trust shop.example.com", &format!("trust {target}"));
    shop.means("-R shop.example.com", &format!("-R {}", machine.address()));
    let old = format!("{} {}\n", machine.address(), site.remote().server.client_line());
    fs::write(shop.app.repository().join("cutover.known_hosts"), old).unwrap();
    shop.commit("first", FIRST);
    the_day(shop, &mut page, &password).await;
    assert_eq!(shop.query(ALL).await, orders);
    assert_eq!(shop.query(&format!("{ALL} where text = 'kept'")).await, "1");
    let upload = "/var/lib/docker/volumes/cutover-shop.production.uploads/_data/upload";
    assert_eq!(machine.exec(&["cat", upload]).await.unwrap(), "kept");
    roles(shop, &mut page).await;
    shop.means(REPOSITORY, &repository);
    without_cutover(shop, &mut page, &orders).await;
    trial(shop, &mut page, machine).await;
    page.ends();
}

async fn the_day(shop: &mut Shop<'_>, page: &mut Page, password: &str) {
    page.does(shop, "ssh-keygen -R shop.example.com -f cutover.known_hosts").await;
    page.agrees(shop, "cutover key trust shop.example.com").await;
    page.does(shop, "cutover setup production").await;
    page.answers(shop, "cutover env set BACKUP_PASSWORD --no-deploy", password).await;
    assert!(page.does(shop, "cutover backup list").await.contains("read back"));
    page.does(shop, "cutover backup restore --all").await;
    let told = page.does(shop, "cutover deploy production").await;
    assert!(told.contains("database `main` is back from its backup"), "{told}");
    page.does(shop, "cutover status --check --wait 5m").await;
}

/// They come in again, by the password that they had.
async fn roles(shop: &mut Shop<'_>, page: &mut Page) {
    assert_eq!(shop.query("select rolcanlogin from pg_roles where rolname = 'reporting'").await, "f");
    page.does(shop, "cutover exec postgres psql -U shop < roles.sql").await;
    let command = shop.shell(
        "cutover exec postgres sh -c \"PGPASSWORD='of reporting' psql -h 127.0.0.1 -U reporting -d shop -qAtc 'select count(*) > 0 from orders'\"",
    );
    let told = shop.app.site().run(command).await.unwrap().expect(0).unwrap();
    assert_eq!(told.output.trim(), "t");
}

/// A server that knows nothing of the app. Dropped, it goes.
struct Bare<'a> {
    site: &'a Site,
    container: String,
}

impl<'a> Bare<'a> {
    fn start(site: &'a Site) -> Self {
        let of_user =
            ["-e", "POSTGRES_USER=shop", "-e", "POSTGRES_DB=postgres", "-e", "POSTGRES_PASSWORD=bare"];
        let start = POSTGRES_START.replace("\\\\", "\\");
        let words = [
            ["run", "-d", "--rm"].as_slice(),
            &of_user,
            &[DATABASES_IMAGE, "sh", "-c", &format!("mkdir /data; {start}")],
        ];
        Self { site, container: docker(site, &words.concat()) }
    }

    /// Its own programs, for whoever types on its machine.
    fn programs(&self, folder: &Path) {
        for name in ["createdb", "pg_restore", "psql"] {
            let words = format!(
                "#!/bin/sh\nexec docker exec -i -e PGPASSWORD=bare {} {name} \"$@\"\n",
                self.container
            );
            fs::write(folder.join(name), words).unwrap();
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    async fn is_up(&self) {
        let address = self.site.docker().unwrap().address();
        let asks = ["exec", &self.container, "pg_isready", "-h", "127.0.0.1", "-U", "shop"];
        let answers = async || {
            let output = Command::new("docker").args(asks).env("DOCKER_HOST", address).output().ok()?;
            output.status.success().then_some(())
        };
        wait_until("the bare server answers", SOON, answers).await.unwrap();
    }
}

impl Drop for Bare<'_> {
    fn drop(&mut self) {
        docker(self.site, &["kill", &self.container]);
    }
}

async fn without_cutover(shop: &mut Shop<'_>, page: &mut Page, orders: &str) {
    shop.export("export RESTIC_CACHE_DIR=$(pwd)/../cache");
    page.exports(shop, "export RESTIC_REPOSITORY=sftp:backup@nas.example.com:/backups RESTIC_PASSWORD=correct-horse-battery-staple");
    let list = page.does(shop, "restic snapshots").await;
    shop.means("3f2a91c4", &id(&list, ",verified"));
    page.does(shop, "restic restore 3f2a91c4 --target /srv/alone").await;
    let alone = shop.app.site().folder().join("srv/alone");
    let at = |path: &Path| alone.join(path.strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(at(&upload(shop))).unwrap(), "kept");
    shop.means("9b1d7e02", &id(&list, "/dump"));
    page.does(shop, "restic dump 9b1d7e02 /databases/main.dump > main.dump").await;
    let server = Bare::start(shop.app.site());
    server.programs(&shop.bin());
    server.is_up().await;
    page.does(shop, "createdb -h localhost -U shop shop").await;
    page.does(shop, "pg_restore -h localhost -U shop -d shop --no-owner --no-acl < main.dump").await;
    let command = shop.shell(&format!("psql -h localhost -U shop -qAtc '{ALL}'"));
    let told = shop.app.site().run(command).await.unwrap().expect(0).unwrap();
    assert_ne!(told.output.trim(), "0");
    println!("{} of {orders} orders are in that dump", told.output.trim());
}

async fn trial(shop: &mut Shop<'_>, page: &mut Page, machine: &Machine) {
    page.does(shop, "cp -a /backups /trial").await;
    let site = shop.app.site().folder();
    assert_eq!(fs::read(site.join("trial/config")).unwrap(), fs::read(site.join("backups/config")).unwrap());
    shop.means("203.0.113.7", &machine.address().to_string());
    let told = page.does(shop, "curl --fail --header 'Host: shop.example.com' http://203.0.113.7/").await;
    assert!(told.contains("first"), "{told}");
}
