//! Building and naming images on a real engine.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test; figures are for people")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use cutover_engine::{
    BaseImages, BuildCache, BuildError, BuildSpec, Context, ContextError, ContextSource, Engine, Kind,
    OriginLabels, Reference,
};
use support::{BASE, on_engine};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

struct Source(tempfile::TempDir);

impl Source {
    fn new(dockerfile: &str) -> Self {
        let source = Self(tempfile::tempdir().unwrap());
        source.write("Dockerfile", &format!("FROM {BASE} AS wanted\n{dockerfile}\n"));
        source
    }

    fn write(&self, path: &str, text: &str) {
        std::fs::write(self.path().join(path), text).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    async fn spec(&self, labels: BTreeMap<String, String>) -> BuildSpec {
        let context =
            Context::open(ContextSource::WorkTree, self.path(), ".", "Dockerfile", &[]).await.unwrap();
        BuildSpec {
            context,
            target: None,
            arguments: BTreeMap::new(),
            labels,
            tag: None,
            platform: None,
            cache: BuildCache::Use,
            bases: BaseImages::Here,
            network: Some("none".to_owned()),
            logins: Vec::new(),
        }
    }
}

#[test]
fn an_image_is_built_with_arguments_target_and_labels() {
    on_engine("an_image_is_built_with_arguments_target_and_labels", |place| async move {
        let source = Source::new(
            "ARG WHO\nCOPY words /words\nRUN echo built for $WHO >> /words\nUSER 1000\nEXPOSE 8080\nSTOPSIGNAL SIGINT\n\
             HEALTHCHECK --interval=7s CMD true\nCMD [\"cat\", \"/words\"]\nFROM scratch AS unwanted",
        );
        source.write("words", "hello\n");
        let mut spec = source.spec(place.labels()).await;
        spec.target = Some("wanted".to_owned());
        spec.arguments.insert("WHO".to_owned(), "you".to_owned());
        spec.tag = Some(format!("cutover-test/{}:v1", place.id));
        let origin = OriginLabels { revision: Some("7f3c9e1".to_owned()), ..OriginLabels::default() };
        spec.labels.extend(origin.labels());
        let mut lines = Vec::new();
        let built = place.engine.build(&spec, &mut |line| lines.push(line.to_owned())).await.unwrap();
        assert!(lines.iter().any(|line| line.contains("echo built for")), "{lines:?}");
        assert_eq!(built.context, spec.context.hash().await.unwrap());

        let image = place.engine.inspect_image(spec.tag.as_deref().unwrap()).await.unwrap();
        assert_eq!(image.id, built.id);
        assert_eq!(image.labels["org.opencontainers.image.revision"], "7f3c9e1");
        assert_eq!((image.user.as_str(), image.stop_signal.as_deref()), ("1000", Some("SIGINT")));
        assert_eq!(image.exposed, [(8080, cutover_engine::Protocol::Tcp)]);
        assert_eq!(image.health.as_ref().unwrap().interval, Some(std::time::Duration::from_secs(7)));
        assert!(image.layers.len() >= 3 && !image.architecture.is_empty());

        let mut run = place.idle("runs");
        (run.image, run.command) = (built.id, None);
        let mut output = Vec::new();
        place.engine.run_once(&run, &mut |line| output.push(line.text)).await.unwrap();
        assert_eq!(output, ["hello", "built for you"]);
    });
}

#[test]
fn the_same_content_is_the_same_whatever_its_labels_and_name() {
    on_engine("the_same_content_is_the_same_whatever_its_labels_and_name", |place| async move {
        let source = Source::new("COPY words /words");
        source.write("words", &place.id);
        let mut first = source.spec(place.labels()).await;
        first.labels.insert("org.opencontainers.image.revision".to_owned(), "1".to_owned());
        let mut second = source.spec(place.labels()).await;
        second.labels.insert("org.opencontainers.image.revision".to_owned(), "2".to_owned());
        let first = place.engine.build(&first, &mut |_| {}).await.unwrap().id;
        let began = Instant::now();
        let second = place.engine.build(&second, &mut |_| {}).await.unwrap().id;
        println!("build from cache {:?}", began.elapsed());
        assert_ne!(first, second);
        let content = async |id: &str| place.engine.inspect_image(id).await.unwrap().content();
        assert_eq!(content(&first).await, content(&second).await);
        source.write("words", "changed");
        let third = place.engine.build(&source.spec(place.labels()).await, &mut |_| {}).await.unwrap().id;
        assert_ne!(content(&first).await, content(&third).await);
    });
}

#[test]
fn a_failed_step_is_told_with_its_last_lines() {
    on_engine("a_failed_step_is_told_with_its_last_lines", |place| async move {
        let source = Source::new("RUN echo before; echo why >&2; exit 3");
        let error = place.engine.build(&source.spec(place.labels()).await, &mut |_| {}).await.unwrap_err();
        let BuildError::Failed { message, last_lines } = error else { panic!("{error:?}") };
        assert!(message.contains("returned a non-zero code: 3"), "{message}");
        assert!(last_lines.iter().any(|line| line == "before"), "{last_lines:?}");
        assert!(last_lines.iter().any(|line| line == "why"), "{last_lines:?}");
    });
}

#[test]
fn a_dockerfile_that_makes_no_sense_is_told() {
    on_engine("a_dockerfile_that_makes_no_sense_is_told", |place| async move {
        let source = Source::new("FLY away");
        let error = place
            .engine
            .build(&source.spec(place.labels()).await, &mut |_| {})
            .await
            .unwrap_err()
            .to_string();
        assert!(error.to_lowercase().contains("fly"), "{error}");
    });
}

#[test]
fn a_context_that_breaks_is_the_cause_that_is_told() {
    on_engine("a_context_that_breaks_is_the_cause_that_is_told", |place| async move {
        let source = Source::new("COPY . /all");
        let spec = source.spec(place.labels()).await;
        // A folder that is gone when it is read.
        let path = source.path().to_owned();
        drop(source);
        assert!(!path.exists());
        let error = place.engine.build(&spec, &mut |_| {}).await.unwrap_err();
        assert!(matches!(error, BuildError::Context(ContextError::Read { .. })), "{error:?}");
    });
}

/// Answers a build once for each of `ends`, with those lines of a builder.
fn fake_builder(socket: &Path, ends: &'static [&'static str]) -> tokio::task::JoinHandle<usize> {
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        let mut builds = 0;
        while builds < ends.len() {
            let (mut client, _) = listener.accept().await.unwrap();
            let (mut asked, mut piece) = (Vec::new(), [0; 4096]);
            let is_build = |asked: &[u8]| asked.starts_with(b"POST");
            let end = |asked: &[u8]| {
                if is_build(asked) { b"\r\n0\r\n\r\n".as_slice() } else { b"\r\n\r\n".as_slice() }
            };
            while asked.is_empty() || !asked.ends_with(end(&asked)) {
                let read = client.read(&mut piece).await.unwrap();
                asked.extend_from_slice(&piece[..read]);
                assert!(read > 0, "{}", String::from_utf8_lossy(&asked));
            }
            let said = if is_build(&asked) { ends[builds] } else { "OK" };
            builds += usize::from(is_build(&asked));
            let head =
                "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\nConnection: close";
            let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{said}", said.len());
            client.write_all(answer.as_bytes()).await.unwrap();
        }
        builds
    })
}

const REMOVED: &str = concat!(
    r#"{"stream":"Step 1/1 : FROM x\n"}"#,
    "\r\n",
    r#"{"errorDetail":{"message":"unable to find image \"sha256:3af46e45726d1d95e3ae18df7ecbbdd4a004bb2253e59c9050e958da4a1766b9\""}}"#,
    "\r\n",
);
const BUILT: &str = "{\"aux\":{\"ID\":\"sha256:5e74\"}}\r\n";

#[tokio::test]
async fn a_build_whose_cached_layer_was_removed_meanwhile_is_tried_once_more() {
    for (ends, builds, comes) in
        [(&[REMOVED, BUILT] as &'static [_], 2, true), (&[REMOVED, REMOVED], 2, false)]
    {
        // Given an engine whose builder misses a layer that it has just taken from its cache.
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("engine");
        let fake = fake_builder(&socket, ends);
        let engine = Engine::connect_to(&format!("unix://{}", socket.display())).await.unwrap();
        let mut told = Vec::new();
        let source = Source::new("COPY words /words");

        let spec = source.spec(BTreeMap::new()).await;
        let built = engine.build(&spec, &mut |line| told.push(line.to_owned())).await;

        assert_eq!(built.is_ok(), comes, "{built:?}");
        let again = told.iter().filter(|line| line.contains("built once more")).count();
        assert_eq!(again, 1, "{told:?}");
        let asked = tokio::time::timeout(Duration::from_secs(10), fake).await.unwrap().unwrap();
        assert_eq!(asked, builds);
    }
}

#[test]
fn an_image_removed_during_an_alike_build_does_not_fail_it() {
    on_engine("an_image_removed_during_an_alike_build_does_not_fail_it", |place| async move {
        // Given an image, and a build that finds all of its steps but the last in the cache.
        let steps: String = (0..6).map(|number| format!("COPY words /{number}\nENV N={number}\n")).collect();
        let source = Source::new(&steps);
        source.write("words", &place.id);
        let mut spec = source.spec(place.labels()).await;
        let first = place.engine.build(&spec, &mut |_| {}).await.unwrap().id;
        spec.labels.insert("now".to_owned(), place.id.clone());

        // When the image goes as soon as the build has taken a layer.
        let (mut lines, mut removal) = (Vec::new(), None);
        let mut on_line = |line: &str| {
            lines.push(line.to_owned());
            if line.contains("Using cache") && removal.is_none() {
                let (engine, image) = (place.engine.clone(), first.clone());
                removal = Some(tokio::spawn(async move { engine.remove_image(&image).await }));
            }
        };
        let built = place.engine.build(&spec, &mut on_line).await.unwrap();

        place.engine.inspect_image(&built.id).await.unwrap();
        println!("built again: {}", lines.iter().any(|line| line.contains("built once more")));
        if let Some(removal) = removal {
            // The builder's own container may use it just then: not removed is as well here.
            drop(removal.await.unwrap());
        }
    });
}

#[test]
fn images_are_named_listed_and_removed() {
    on_engine("images_are_named_listed_and_removed", |place| async move {
        let engine = &place.engine;
        let source = Source::new(&format!("RUN echo {} > /id", place.id));
        let id = engine.build(&source.spec(place.labels()).await, &mut |_| {}).await.unwrap().id;
        let name = Reference::split(&format!("cutover-test/{}:keep", place.id));
        engine.tag(&id, &name).await.unwrap();
        let listed = engine.list_images(&place.labels()).await.unwrap();
        assert_eq!(
            listed.iter().map(|image| (&image.id, &image.tags)).collect::<Vec<_>>(),
            [(&id, &vec![name.to_string()])]
        );

        let mut user = place.idle("user");
        user.image = name.to_string();
        let container = engine.create(&user).await.unwrap().id;
        let error = engine.remove_image(&name.to_string()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Conflict, "{error}");
        engine.kill_and_remove(&container, cutover_engine::RemoveVolumes::Unnamed).await.unwrap();
        engine.remove_image(&name.to_string()).await.unwrap();
        engine.remove_image(&name.to_string()).await.unwrap();
        assert_eq!(engine.inspect_image(&id).await.unwrap_err().kind, Kind::NotFoundImage);
    });
}
