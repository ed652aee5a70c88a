//! A disk of a server that fills while something is on its way there: layers of an image, chunks of an artifact, what an image is built from. What
//! serves goes on; it is told where there is no room; nothing torn stays; and when there is room again the same deploy goes on from there.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a part of tests: it stops where it fails, and says its numbers"
)]

use std::path::PathBuf;
use std::time::Instant;

use cutover_testkit::machine::{Machine, ServerApp};
use cutover_testkit::probe::{Probe, fetch_entries};
use cutover_testkit::site::{Binaries, Told};
use cutover_testkit::{SOON, wait_until};

use crate::built_there::Keeps;
use crate::engine;
use crate::hardships::{
    IMAGES, STATE, WITH_ENGINE, fill, in_four_parts, make_room, on_small_disks, says, serves,
};

/// So many files that no compression makes smaller than a half, of so many bytes each.
const PARTS: usize = 6;
const PART: usize = 3_000_000;
/// What passes before the disk fills: some of it whole.
const PASSES: usize = 5_000_000;

/// What is sent to a server goes this way: so many bytes pass, and then none until they may.
pub(crate) struct Way {
    folder: PathBuf,
}

impl Way {
    pub(crate) fn new(machine: &Machine) -> Self {
        let way = Self { folder: machine.folder().join("way") };
        std::fs::create_dir(&way.folder).unwrap();
        let (folder, ssh) = (way.folder.display(), machine.ssh_program().display().to_string());
        let script = format!(
            "#!/bin/sh\n[ -e {folder}/stops ] || exec {ssh} \"$@\"\npython3 {folder}/stops | exec {ssh} \"$@\"\n"
        );
        std::fs::write(way.program(), script).unwrap();
        std::fs::set_permissions(way.program(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        way
    }

    /// What `CUTOVER_SSH` names.
    pub(crate) fn program(&self) -> PathBuf {
        self.folder.join("ssh")
    }

    /// The next client stops after so many bytes; it counts all.
    pub(crate) fn stops_after(&self, bytes: usize) {
        let folder = self.folder.display();
        let script = [
            "import os, time",
            "def send(piece):",
            "    while piece: piece = piece[os.write(1, piece):]",
            "sent = 0",
            "while True:",
            "    piece = os.read(0, 65536)",
            "    if not piece: break",
            "    send(piece)",
            "    sent += len(piece)",
            &format!("    with open('{folder}/count', 'w') as count: count.write(str(sent))"),
            &format!("    os.replace('{folder}/count', '{folder}/sent')"),
            &format!("    if sent > {bytes} and not os.path.exists('{folder}/reached'):"),
            &format!("        open('{folder}/reached', 'w').close()"),
            &format!("        while not os.path.exists('{folder}/goes-on'): time.sleep(0.01)"),
        ];
        for name in ["reached", "goes-on", "sent"] {
            std::fs::remove_file(self.folder.join(name)).unwrap_or_default();
        }
        std::fs::write(self.folder.join("stops"), script.join("\n")).unwrap();
    }

    async fn reached(&self) {
        let file = self.folder.join("reached");
        wait_until("some of it is on its way", SOON, async || file.exists().then_some(())).await.unwrap();
    }

    fn goes_on(&self) {
        std::fs::write(self.folder.join("goes-on"), "").unwrap();
    }

    /// Bytes that the last client sent.
    pub(crate) fn sent(&self) -> u64 {
        std::fs::read_to_string(self.folder.join("sent")).unwrap().parse().unwrap()
    }
}

/// Text of which no half can be left out; another for each `seed`.
fn noise(seed: usize) -> String {
    let mut state = seed as u64 + 1;
    let next = move || {
        // Steele, Lea and Flood's SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        format!("{:016x}", mixed ^ (mixed >> 31))
    };
    std::iter::repeat_with(next).take(PART / 16).collect()
}

/// A release with much that no other has: each part in a layer of its own, where there are images.
fn commit(app: &ServerApp<'_>, subject: &str, seed: usize, edit: impl FnOnce(&str) -> String) {
    let parts: Vec<(String, String)> =
        (0..PARTS).map(|part| (format!("web/part-{part}"), noise(seed * PARTS + part))).collect();
    let mut files: Vec<(&str, &str)> =
        parts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let copies: String = (0..PARTS).map(|part| format!("COPY part-{part} /app/\n")).collect();
    let dockerfile = format!(
        "ARG BASE=scratch\nFROM ${{BASE}}\nWORKDIR /app\n{copies}COPY migrations /app/migrations\nCOPY pages /app/pages\n\
         COPY sql /app/sql\nCMD [\"/app/guestbook\", \"serve\"]\n"
    );
    files.push(("web/Dockerfile", &dockerfile));
    app.commit_with("v2", subject, edit, &files).unwrap();
}

/// Deploys while this folder's disk fills on the way; what is told.
async fn deployed_meanwhile(app: &ServerApp<'_>, way: &Way, folder: &str) -> Told {
    way.stops_after(PASSES);
    let began = Instant::now();
    let mut command = app.command(&["deploy"]);
    let client = tokio::spawn(command.env("CUTOVER_SSH", way.program()).output());
    way.reached().await;
    fill(app.machine(), folder).await;
    way.goes_on();
    let output = tokio::time::timeout(SOON * 2, client).await.unwrap().unwrap().unwrap();
    Told::new(&output, began.elapsed())
}

/// It is told in full, what serves serves, nothing torn is left, and the next one goes on from there.
async fn fills(app: &ServerApp<'_>, way: &Way, folder: &str, subject: &str, before: &str) -> String {
    let told = deployed_meanwhile(app, way, folder).await;
    let whole = way.sent();
    let text = in_four_parts(app, &["deploy"], &told);
    assert_eq!(told.exit, Some(1), "{}", told.talk);
    assert!(text.contains("make room"), "{text}");
    serves(app, before).await;
    let torn = "cd /var/lib/cutover && find layers parcels artifacts contexts -mindepth 1 -name '.*' ! -name '.pack.*' 2>/dev/null || true";
    assert_eq!(says(app.machine(), torn).await, "", "{subject}");

    make_room(app.machine(), folder).await;
    way.stops_after(usize::MAX);
    let mut command = app.command(&["deploy"]);
    let output = command.env("CUTOVER_SSH", way.program()).output().await.unwrap();
    assert!(output.status.success(), "{subject}: {}", String::from_utf8_lossy(&output.stderr));
    serves(app, subject).await;
    println!("{subject}: {whole} bytes until the disk was full, {} after there was room", way.sent());
    assert!(way.sent() < whole, "{subject}: what came whole came again");
    let left = "cd /var/lib/cutover && find layers parcels artifacts contexts -mindepth 1 -maxdepth 1 -name '.*' 2>/dev/null || true";
    assert_eq!(says(app.machine(), left).await, "", "{subject}");
    text
}

/// Each kind of thing that comes.
pub async fn all(machine: &Machine, keeps: Keeps) {
    let images = match keeps {
        Keeps::Usually => IMAGES,
        Keeps::InContainerd => "/var/lib/containerd",
    };
    on_small_disks(machine, images).await;
    keeps.begin(machine).await;
    let (binaries, engine) = (Binaries::beside_this_program().unwrap(), engine::usable().await.unwrap());
    let way = Way::new(machine);
    let shop = ServerApp::of_containers(machine, &binaries, &engine, "shop").await.unwrap();
    let shop = shop.set_up_with(WITH_ENGINE);
    let blog = ServerApp::of_processes(machine, &binaries, "blog").unwrap().set_up_with(WITH_ENGINE);
    for app in [&shop, &blog] {
        app.commit("v1", "first", str::to_owned).unwrap();
    }
    shop.cutover(&["setup"]).await.unwrap().expect(0).unwrap();
    shop.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    blog.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    shop.base_to_server().await.unwrap();
    let probes = [Probe::start(shop.traffic()), Probe::start(blog.traffic())];

    let mut told = Vec::new();
    commit(&shop, "layers", 1, str::to_owned);
    told.push(fills(&shop, &way, STATE, "layers", "first").await);
    commit(&shop, "layers for the engine", 2, str::to_owned);
    told.push(fills(&shop, &way, images, "layers for the engine", "layers").await);
    commit(&shop, "a context", 3, built_there);
    told.push(fills(&shop, &way, STATE, "a context", "layers for the engine").await);
    commit(&blog, "chunks", 4, str::to_owned);
    told.push(fills(&blog, &way, STATE, "chunks", "first").await);

    what_came_goes_where_there_is_no_room(&blog, &way).await;
    for (app, probe) in [&shop, &blog].into_iter().zip(probes) {
        let report = probe.stop().await;
        assert_eq!(report.failed(), 0, "{report}");
        println!("{}: {} requests, {} failed", app.id(), report.sent(), report.failed());
        let found = report.verify_entries(&fetch_entries(&app.traffic()).await.unwrap());
        assert!(found.is_complete(), "{:?} {:?}", found.missing, found.twice);
    }
    // The engines' own words are not ours to fix.
    let told = told.join("\n");
    if keeps == Keeps::InContainerd {
        return println!("{told}");
    }
    insta::assert_snapshot!("a_disk_that_fills_on_the_way_is_told", told);
}

/// What came whole fills the disk, too: whoever looks for room there finds it by `prune`, which works without any.
async fn what_came_goes_where_there_is_no_room(app: &ServerApp<'_>, way: &Way) {
    commit(app, "with room", 5, str::to_owned);
    assert_eq!(deployed_meanwhile(app, way, STATE).await.exit, Some(1));
    let came = "ls -A /var/lib/cutover/parcels | grep -c '^.pack' || true";
    assert_ne!(says(app.machine(), came).await, "0");
    let told = app.cutover(&["prune", "--yes"]).await.unwrap().expect(0).unwrap();
    println!("on a full disk: {}", told.talk.lines().last().unwrap_or_default());
    assert_eq!(says(app.machine(), came).await, "0", "{}{}", told.output, told.talk);
    serves(app, "chunks").await;
    make_room(app.machine(), STATE).await;
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    serves(app, "with room").await;
}

/// The same configuration, with images that the server builds.
pub fn built_there(text: &str) -> String {
    text.replace("build: { context: web,", "build: { on: host, context: web,")
        .replace("build: { context: bot,", "build: { on: host, context: bot,")
}
