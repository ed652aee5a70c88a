//! A small app whose first release serves, and the promises that are looked at after everything that goes wrong.

use std::time::Duration;

use cutover_testkit::site::{App, Process, Site, Told};
use cutover_testkit::{Answer, ask, wait_until};

use crate::golden::Golden;

/// A page that is served comes at once; what only ends takes moments.
const SOON: Duration = Duration::from_secs(20);

/// One service with a route: what most cases need. Nothing waits longer than it must.
pub(crate) const GOOD: &str = r"app: shop
services:
  web:
    artifact: web
    command: ./guestbook serve
    environment: { HOST: 127.0.0.1 }
    route: { host: shop.localhost }
    health: { path: /health, within: 3s }
bake: 0
";

pub(crate) struct Shop<'a> {
    pub(crate) app: App<'a>,
    pub(crate) site: &'a Site,
    /// The release that serves, and goes on serving.
    release: String,
}

impl<'a> Shop<'a> {
    /// The app, committed and not yet deployed.
    pub(crate) fn laid_out(site: &'a Site) -> Self {
        let app = site.app("shop", "shop.localhost").unwrap();
        app.commit("v1", |_| GOOD.to_owned()).unwrap();
        let shop = Self { app, site, release: String::new() };
        shop.behaves("");
        shop.app.record("v1").unwrap();
        shop
    }

    /// The app with its first release live.
    pub(crate) async fn serving(site: &'a Site) -> Self {
        let mut shop = Self::laid_out(site);
        shop.goes_live().await;
        shop
    }

    /// The first deploy.
    pub(crate) async fn goes_live(&mut self) {
        self.app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        self.release = self.get().await.release.unwrap();
    }

    /// Replaces the configuration, in the work tree only.
    pub(crate) fn configured(&self, text: &str) {
        std::fs::write(self.app.repository().join("cutover.yml"), text).unwrap();
    }

    /// How the next release behaves: knobs of the guestbook, as JSON without its braces.
    pub(crate) fn behaves(&self, knobs: &str) {
        let comma = if knobs.is_empty() { "" } else { ", " };
        let text = format!("{{ \"database\": \"memory\"{comma}{knobs} }}");
        std::fs::write(self.app.repository().join("web/behaviour.json"), text).unwrap();
    }

    /// A secret of every instance: its value is in the env file, and in nothing that is told.
    pub(crate) fn secret(&self, name: &str, value: &str) {
        use std::io::Write as _;
        let file = std::fs::OpenOptions::new().append(true).open(self.app.repository().join(".env"));
        writeln!(file.unwrap(), "{name}={value}").unwrap();
    }

    /// What a client sees.
    pub(crate) async fn get(&self) -> Answer {
        let asked = ask(self.site.http().unwrap(), "shop.localhost", "/");
        tokio::time::timeout(SOON, asked).await.unwrap().unwrap()
    }

    /// The same while it may not be served.
    pub(crate) async fn get_soon(&self) -> Option<Answer> {
        ask(self.site.http().ok()?, "shop.localhost", "/").await.ok().filter(|answer| answer.status == 200)
    }

    /// Runs a command that must fail, and looks at the promises.
    pub(crate) async fn fails(&self, golden: &mut Golden, case: &str, words: &[&str], exit: i32) -> Told {
        let told = self.app.cutover(words).await.unwrap();
        golden.failure(self.site, case, exit, &told);
        self.still_serves(case).await;
        told
    }

    /// The same release answers, `status` says so, the lock is free, and nothing is left over.
    pub(crate) async fn still_serves(&self, case: &str) {
        let answer = self.get().await;
        assert_eq!(
            (answer.status, answer.release.as_ref()),
            (200, Some(&self.release)),
            "{case}: {answer:?}"
        );
        let good = std::fs::read_to_string(self.app.repository().join("cutover.yml")).ok();
        self.configured(GOOD);
        let status = self.app.status().await.unwrap();
        if let Some(text) = good {
            self.configured(&text);
        }
        assert_eq!(status.live.map(|live| live.release.to_string()).as_ref(), Some(&self.release), "{case}");
        // Watch takes it for moments, to see to what lives.
        let run = status.lock.filter(|holder| holder.by != cutover_host::watch::HOLDER);
        assert_eq!(run, None, "{case}");
        self.nothing_is_left(case).await;
    }

    /// One instance with its keeper; neither runs, sessions nor candidates.
    async fn nothing_is_left(&self, case: &str) {
        let only = async || {
            let all = self.site.processes();
            let count = |is: &dyn Fn(&Process) -> bool| all.iter().filter(|found| is(&found.process)).count();
            let busy =
                count(&|process| matches!(process, Process::Run | Process::Session | Process::Other(_)));
            (count(&|process| process.is_instance_of("web")) == 1
                && count(&|process| process.is_keeper_of("web")) == 1
                && busy == 0)
                .then_some(())
        };
        let waited = wait_until("nothing but what serves", SOON, only).await;
        assert!(waited.is_ok(), "{case}: {:?}", self.site.processes());
    }

    /// All is good again: the next release goes live.
    pub(crate) async fn recovers(&mut self, case: &str) {
        self.configured(GOOD);
        self.behaves("");
        std::fs::write(self.app.repository().join("web/pages/about.html"), format!("<p>{case}</p>")).unwrap();
        self.app.record(&format!("after {case}")).unwrap();
        let told = self.app.cutover(&["deploy"]).await.unwrap();
        assert_eq!(told.exit, Some(0), "after {case}: {}", told.talk);
        let answer = self.get().await;
        assert_ne!(answer.release.as_ref(), Some(&self.release), "{case}");
        self.release = answer.release.unwrap();
        self.still_serves(case).await;
    }
}
