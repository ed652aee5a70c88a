//! Backups to other machines: over SFTP to an `sshd` of the test's own, and to an S3 server that checks signatures.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use cutover_suites::kept::PASSWORD;
use cutover_testkit::site::{App, Told};
use cutover_testkit::ssh::{self, SshServer};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Place, records};

/// An `sshd` whose SFTP can be changed, and an `ssh` that knows it.
struct Sftp {
    server: SshServer,
    path: String,
}

impl Sftp {
    fn start(folder: &Path) -> Self {
        let (own, bin) = (folder.join("sshd"), folder.join("bin"));
        fs::create_dir(&own).unwrap();
        fs::create_dir(&bin).unwrap();
        let server = SshServer::start(&own, &[]).unwrap();
        server.configure(&[], "Subsystem sftp internal-sftp\n").unwrap();
        let known = folder.join("known_hosts");
        fs::write(&known, server.known_at(server.address())).unwrap();
        let options = "-o IdentitiesOnly=yes -o IdentityAgent=none -o StrictHostKeyChecking=yes";
        let (key, known) = (server.client_key().display(), known.display());
        let wrapper = format!(
            "#!/bin/sh\nexec /usr/bin/ssh -F none -i {key} {options} -o UserKnownHostsFile={known} \"$@\"\n"
        );
        fs::write(bin.join("ssh"), wrapper).unwrap();
        fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        Self { server, path }
    }

    async fn run(&self, app: &App<'_>, words: &[&str], exit: i32) -> Told {
        let mut command = app.command(words);
        command.env("PATH", &self.path);
        let told = app.site().run(command).await.unwrap().expect(exit).unwrap();
        println!("{}{}", told.talk, told.output);
        told
    }
}

/// The guestbook, with backups to `to`.
async fn app<'a>(place: &'a Place, to: &str, more: &str) -> App<'a> {
    let app = place.site.app("guestbook", "guestbook.localhost").unwrap();
    app.add_to_env(&format!("BACKUP_PASSWORD={PASSWORD}\nS3_KEY=a-key\nS3_SECRET=a-secret-that-is-long"))
        .unwrap();
    let backup = format!("backup: {{ to: \"{to}\", password: \"${{BACKUP_PASSWORD}}\", every: 31d{more} }}");
    place.deploy(&app, &backup).await;
    records(&app, 1).await;
    app
}

async fn over_sftp(name: &str, test: impl AsyncFnOnce(&Sftp, &App<'_>)) {
    if let Some(why) = ssh::missing() {
        return println!("not run: {name}: {why}");
    }
    let Some(place) = Place::new(name) else { return };
    let sftp = Sftp::start(place.site.folder());
    let to = format!("sftp://root@{}/{}", sftp.server.address(), place.repository().display());
    let app = app(&place, &to, "").await;
    // The schedule's own ssh does not know the server.
    let failed = &records(&app, 1).await[0];
    assert!(!failed.is_verified(), "{failed:?}");
    test(&sftp, &app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_over_sftp_and_a_server_that_lets_nobody_in_is_told() {
    over_sftp("a_backup_goes_over_sftp_and_a_server_that_lets_nobody_in_is_told", async |sftp, app| {
        sftp.run(app, &["backup", "run"], 0).await;
        sftp.server.authorize("").unwrap();

        let told = sftp.run(app, &["backup", "run"], 1).await;

        assert!(told.failure().contains("cannot be reached"), "{}", told.talk);
        sftp.server.authorize(&format!("{}\n", sftp.server.client_line())).unwrap();
        let told = sftp.run(app, &["backup", "list"], 0).await;
        assert_eq!(told.output.lines().count(), 1, "{}", told.output);
        assert!(told.output.contains("read back"), "{}", told.output);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_backup_over_sftp_that_cannot_be_written_leaves_the_others_as_they_are() {
    over_sftp(
        "a_backup_over_sftp_that_cannot_be_written_leaves_the_others_as_they_are",
        async |sftp, app| {
            sftp.run(app, &["backup", "run"], 0).await;
            sftp.server.configure(&[], "Subsystem sftp internal-sftp -R\n").unwrap();

            let told = sftp.run(app, &["backup", "run"], 1).await;

            assert!(told.failure().contains("nothing can be written"), "{}", told.talk);
            sftp.server.configure(&[], "Subsystem sftp internal-sftp\n").unwrap();
            sftp.run(app, &["backup", "verify"], 0).await;
        },
    )
    .await;
}

/// A server of S3 whose buckets are folders, and which checks signatures. Dropped, it ends, with all its connections. It does not list what lies in
/// folders of folders: restic by hand does not find its own packs there either, so that backups beyond `keep` stay.
struct S3 {
    serving: JoinSet<()>,
    address: std::net::SocketAddr,
}

impl S3 {
    async fn start(folder: &Path) -> Self {
        fs::create_dir(folder).unwrap();
        let mut service = S3ServiceBuilder::new(FileSystem::new(folder).unwrap());
        service.set_auth(SimpleAuth::from_single("a-key", "a-secret-that-is-long"));
        let service = service.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone());
                // A client may break off.
                connections.spawn(async { drop(connection.await) });
            }
        });
        Self { serving, address }
    }

    async fn stop(mut self) {
        self.serving.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_to_s3_and_a_wrong_key_or_a_server_that_is_gone_is_told() {
    let name = "a_backup_goes_to_s3_and_a_wrong_key_or_a_server_that_is_gone_is_told";
    let Some(place) = Place::new(name) else { return };
    let folder = place.site.folder().join("s3");
    let server = S3::start(&folder).await;
    let keys = ", key: \"${S3_KEY}\", secret: \"${S3_SECRET}\"";
    let app = app(&place, &format!("s3:http://{}/backups", server.address), keys).await;
    let first = &records(&app, 1).await[0];
    assert!(first.is_verified(), "{first:?}");
    let run = async |exit| {
        let told = app.cutover(&["backup", "run"]).await.unwrap().expect(exit).unwrap();
        println!("{}{}", told.talk, told.output);
        told
    };
    run(0).await;

    let good = fs::read_to_string(app.repository().join(".env")).unwrap();
    app.write_env(&good.replace("a-secret-that-is-long", "another-secret")).unwrap();
    let told = run(1).await;
    assert!(told.failure().contains("does not let this host in"), "{}", told.talk);
    assert!(!told.talk.contains("another-secret"), "{}", told.talk);
    app.write_env(&good).unwrap();
    let list = app.cutover(&["backup", "list"]).await.unwrap().expect(0).unwrap().output;
    assert_eq!(list.lines().count(), 1, "one of a day stays: {list}");
    let scratch = place.site.folder().join("scratch");
    app.cutover(&["backup", "restore", "--to", scratch.to_str().unwrap()]).await.unwrap().expect(0).unwrap();
    assert!(scratch.join("databases/main.sqlite").is_file());
    server.stop().await;
    let told = run(1).await;
    assert!(told.failure().contains("cannot be reached"), "{}", told.talk);
}
