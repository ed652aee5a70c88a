//! `image:` from a registry that asks who is there: fetched before anything is touched, by its digest ever after, with credentials that nobody sees.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

use std::path::Path;

use cutover_suites::engine::on_engine;
use cutover_suites::registry::{PASSWORD, Registry, USER};
use cutover_testkit::get;
use cutover_testkit::site::{App, Binaries, Site, Told};

const HOST: &str = "shop.localhost";

/// On an engine, beside a registry; or says why it did not run.
async fn with_registry(name: &str, test: impl AsyncFnOnce(&Site, Registry)) {
    on_engine(name, Binaries::beside_this_program().unwrap(), async |site| {
        match Registry::start(site.docker().unwrap().engine()).await {
            Ok(registry) => test(site, registry).await,
            Err(why) => println!("not run: {name}: {why}"),
        }
    })
    .await;
}

fn configure(app: &App<'_>, registry: &Registry, image: &str) {
    let (id, server) = (&app.id().app, registry.server());
    let text = format!(
        "app: {id}\nregistry: {{ server: \"{server}\", username: {USER}, password: \"${{REGISTRY_TOKEN}}\" }}\nservices:\n  web:\n    \
         image: \"{server}/{image}\"\n    port: 80\n    init: true\n    route: {{ host: {HOST} }}\nbake: 0\n"
    );
    std::fs::write(app.repository().join("cutover.yml"), text).unwrap();
    app.record(image).unwrap();
}

async fn answer(site: &Site) -> String {
    get(site.http().unwrap(), HOST, "/").await.unwrap().trim().to_owned()
}

async fn deployed(app: &App<'_>) -> Told {
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap()
}

/// All four answers are given, and the password in none of them.
async fn refused(app: &App<'_>, words: &[&str]) -> String {
    let told = app.cutover(words).await.unwrap().expect(7).unwrap();
    println!("{}", told.failure());
    for part in ["error: ", "cause: ", "state: ", "next: "] {
        assert!(told.failure().contains(part), "no {part} in {}", told.talk);
    }
    assert!(!format!("{}{}", told.output, told.talk).contains(PASSWORD), "{}", told.talk);
    told.failure().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_image_is_fetched_and_its_password_is_seen_by_nobody() {
    with_registry("a_private_image_is_fetched_and_its_password_is_seen_by_nobody", async |site, registry| {
        registry.keep("shop/web:1", "one").unwrap();
        let app = site.app("shop", HOST).unwrap();
        configure(&app, &registry, "shop/web:1");

        // When nobody gave a password, then its name is told.
        assert!(refused(&app, &["deploy"]).await.contains("REGISTRY_TOKEN"));
        // When it is wrong, then the registry's answer is told.
        app.write_env("REGISTRY_TOKEN=not-the-password\n").unwrap();
        assert!(refused(&app, &["deploy"]).await.contains(&registry.server()));
        // When it is right, then the image runs.
        app.write_env(&format!("REGISTRY_TOKEN={PASSWORD}\n")).unwrap();
        deployed(&app).await;
        assert_eq!(answer(site).await, "one");
        only_env_files_have_it(&site.root());

        // When the registry has no such image, then the old release serves.
        configure(&app, &registry, "shop/web:9");
        let failure = refused(&app, &["deploy"]).await;
        assert!(failure.contains("shop/web:9") && failure.contains("is serving"), "{failure}");
        assert_eq!(answer(site).await, "one");
    })
    .await;
}

fn only_env_files_have_it(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            only_env_files_have_it(&path);
        } else if path.is_file() && path.file_name().is_some_and(|name| name != "env") {
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes());
            assert!(!found, "the password stands in {}", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_the_host_lost_is_fetched_again_by_its_digest() {
    with_registry(
        "an_image_that_the_host_lost_is_fetched_again_by_its_digest",
        async |site, mut registry| {
            let first = registry.keep("shop/web:1", "one").unwrap();
            let second = registry.keep("shop/web:2", "two").unwrap();
            let app = site.app("shop", HOST).unwrap();
            app.write_env(&format!("REGISTRY_TOKEN={PASSWORD}\n")).unwrap();
            configure(&app, &registry, "shop/web:1");
            deployed(&app).await;
            configure(&app, &registry, "shop/web:2");
            deployed(&app).await;
            assert_eq!(answer(site).await, "two");

            // When the tag means another image by now, and the host has lost the first one, then a rollback brings the first one.
            let lose = |digest: &str| {
                let image = format!("{}/shop/web@{digest}", registry.server());
                let id = registry.docker(&["image", "inspect", "--format", "{{.Id}}", &image]).unwrap();
                registry.docker(&["rmi", "--force", id.trim()]).unwrap();
            };
            lose(&first);
            registry.keep("shop/web:1", "another").unwrap();
            app.cutover(&["rollback", "--yes"]).await.unwrap().expect(0).unwrap();
            assert_eq!(answer(site).await, "one");

            // When it cannot be had, then nothing is touched.
            lose(&second);
            registry.down();
            let failure = refused(&app, &["rollback", "--yes"]).await;
            assert!(failure.contains("shop/web"), "{failure}");
            assert_eq!(answer(site).await, "one");

            // When CI names what it built by its digest, then that is what runs.
            registry.up().await.unwrap();
            let named = format!("web={}/shop/web@{second}", registry.server());
            app.cutover(&["deploy", "--image", &named]).await.unwrap().expect(0).unwrap();
            assert_eq!(answer(site).await, "two");
        },
    )
    .await;
}
