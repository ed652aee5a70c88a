//! A small app whose first release serves, and the promises that are looked at after everything that goes wrong.

use cutover_core::layout::label;
use cutover_engine::Phase;
use cutover_testkit::site::{App, Docker, Process, Site, Told};
use cutover_testkit::{Answer, SOON, ask, wait_until};

use super::Golden;

/// One service with a route: what most cases need. Nothing waits longer than it must.
pub const GOOD: &str = r"app: shop
services:
  web:
    artifact: web
    command: ./guestbook serve
    environment: { HOST: 127.0.0.1 }
    route: { host: shop.localhost }
    health: { path: /health, within: 3s }
bake: 0
";

/// The same as a container, before it has the app's own name and base image.
const CONTAINED: &str = r#"app: guestbook
services:
  web:
    build: { context: web, args: { BASE: "${BASE_IMAGE:-scratch}" } }
    port: 8000
    route: { host: guestbook.localhost }
    health: { path: /health, within: 3s }
bake: 0
"#;

/// The app, in its repository at its site.
pub struct Shop<'a> {
    pub app: App<'a>,
    pub site: &'a Site,
    /// The configuration of a release that is well.
    pub good: String,
    /// The release that serves, and goes on serving.
    release: String,
}

impl<'a> Shop<'a> {
    /// The app, committed and not yet deployed.
    pub fn laid_out(site: &'a Site) -> Self {
        let app = site.app("shop", "shop.localhost").unwrap();
        let good = app.own(if site.docker().is_some() { CONTAINED } else { GOOD });
        app.commit("v1", |_| good.clone()).unwrap();
        let shop = Self { app, site, good, release: String::new() };
        shop.behaves("");
        shop.app.record("v1").unwrap();
        shop
    }

    /// The app with its first release live.
    pub async fn serving(site: &'a Site) -> Self {
        let mut shop = Self::laid_out(site);
        shop.goes_live().await;
        shop
    }

    /// The first deploy.
    pub async fn goes_live(&mut self) {
        self.app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        self.release = self.get().await.release.unwrap();
    }

    /// Replaces the configuration, in the work tree only.
    pub fn configured(&self, text: &str) {
        std::fs::write(self.app.repository().join("cutover.yml"), text).unwrap();
    }

    /// How the next release behaves: knobs of the guestbook, as JSON without its braces.
    pub fn behaves(&self, knobs: &str) {
        let comma = if knobs.is_empty() { "" } else { ", " };
        let text = format!("{{ \"database\": \"memory\"{comma}{knobs} }}");
        std::fs::write(self.app.repository().join("web/behaviour.json"), text).unwrap();
    }

    /// A secret of every instance: its value is in the env file, and in nothing that is told.
    pub fn secret(&self, name: &str, value: &str) {
        self.app.add_to_env(&format!("{name}={value}")).unwrap();
    }

    /// What a client sees.
    pub async fn get(&self) -> Answer {
        let asked = ask(self.site.http().unwrap(), "shop.localhost", "/");
        tokio::time::timeout(SOON, asked).await.unwrap().unwrap()
    }

    /// The same while it may not be served.
    pub async fn get_soon(&self) -> Option<Answer> {
        ask(self.site.http().ok()?, "shop.localhost", "/").await.ok().filter(|answer| answer.status == 200)
    }

    /// Runs a command that must fail, and looks at the promises.
    pub async fn fails(&self, golden: &mut Golden, case: &str, words: &[&str], exit: i32) -> Told {
        let told = self.app.cutover(words).await.unwrap();
        golden.failure(self.site, case, exit, &told);
        self.still_serves(case).await;
        told
    }

    /// The same release answers, `status` says so, the lock is free, and nothing is left over.
    pub async fn still_serves(&self, case: &str) {
        self.still_answers(case).await;
        let bad = std::fs::read_to_string(self.app.repository().join("cutover.yml")).ok();
        self.configured(&self.good);
        let status = self.app.status().await.unwrap();
        if let Some(text) = bad {
            self.configured(&text);
        }
        assert_eq!(status.live.map(|live| live.release.to_string()).as_ref(), Some(&self.release), "{case}");
        // Watch takes it for moments, to see to what lives.
        let run = status.lock.filter(|holder| holder.by != cutover_host::watch::HOLDER);
        assert_eq!(run, None, "{case}");
        self.nothing_is_left(case).await;
    }

    /// One instance with its keeper, or in its container; neither runs, sessions nor candidates, but the failed one that is kept, stopped.
    async fn nothing_is_left(&self, case: &str) {
        let keepers = usize::from(self.site.docker().is_none());
        let only = async || {
            let all = self.site.processes();
            let count = |is: &dyn Fn(&Process) -> bool| all.iter().filter(|found| is(&found.process)).count();
            let busy =
                count(&|process| matches!(process, Process::Run | Process::Session | Process::Other(_)));
            (count(&|process| process.is_instance_of("web")) == 1
                && count(&|process| process.is_keeper_of("web")) == keepers
                && busy == 0)
                .then_some(())
        };
        let waited = wait_until("nothing but what serves", SOON, only).await;
        assert!(waited.is_ok(), "{case}: {:?}", self.site.processes());
        if let Some(docker) = self.site.docker() {
            self.no_container_is_left(docker, case).await;
        }
    }

    async fn no_container_is_left(&self, docker: &Docker, case: &str) {
        let ours = [(label::APP.to_owned(), self.app.id().to_string())].into_iter().collect();
        let (running, ended): (Vec<_>, Vec<_>) = docker
            .engine()
            .list(&ours)
            .await
            .unwrap()
            .into_iter()
            .partition(|found| found.phase == Phase::Running);
        assert!(running.len() == 1 && ended.len() <= 1, "{case}: {running:?}, and {ended:?}");
    }

    /// All is good again: the next release goes live.
    pub async fn recovers(&mut self, case: &str) {
        self.configured(&self.good);
        self.behaves("");
        self.changes(case);
        self.app.record(&format!("after {case}")).unwrap();
        let told = self.app.cutover(&["deploy"]).await.unwrap();
        assert_eq!(told.exit, Some(0), "after {case}: {}", told.talk);
        self.took_over(case).await;
        self.still_serves(case).await;
    }

    /// Another release serves, and goes on serving.
    pub async fn took_over(&mut self, case: &str) {
        let answer = self.get().await;
        assert_ne!(answer.release.as_ref(), Some(&self.release), "{case}");
        self.release = answer.release.unwrap();
    }

    /// Whichever release serves now goes on serving.
    pub async fn settles_for_what_serves(&mut self) -> String {
        let answer = self.get().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        self.release = answer.release.unwrap();
        self.release.clone()
    }

    /// The same release answers as before.
    pub async fn still_answers(&self, case: &str) {
        let answer = self.get().await;
        assert_eq!(
            (answer.status, answer.release.as_ref()),
            (200, Some(&self.release)),
            "{case}: {answer:?}"
        );
    }

    /// A release that differs from all others by its page, not yet deployed.
    pub fn changes(&self, page: &str) {
        let text = format!("<p>{page}</p>");
        std::fs::write(self.app.repository().join("web/pages/about.html"), text).unwrap();
    }
}
