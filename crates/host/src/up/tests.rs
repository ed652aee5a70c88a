//! The supervisor is tried as it ships, with the real binaries, in the suites; here what needs no child.

use cutover_core::layout::Layout;
use cutover_core::release::RuntimeKind;
use cutover_core::state::{FoundInstance, InstanceState, RestartPolicy, Role};

use super::*;
use crate::lock::{AppLock, ProcessLock};
use crate::watch::fake::{self, FakeRuntime};

fn instance(name: &str, state: InstanceState) -> FoundInstance {
    FoundInstance {
        name: name.parse().unwrap(),
        service: "web".parse().unwrap(),
        role: Role::Service,
        release: "r1".parse().unwrap(),
        slot: cutover_core::names::Slot::Blue,
        replica: 1,
        run: cutover_core::names::RunId::new(uuid::Uuid::nil()),
        runtime: RuntimeKind::Process,
        spec: cutover_core::hash::ContentHash::of(b"spec"),
        address: None,
        state,
        restart: RestartPolicy::UnlessStopped,
        ours: true,
    }
}

fn running(name: &str) -> FoundInstance {
    instance(name, InstanceState::Running { since: jiff::Timestamp::UNIX_EPOCH, restarts: 0 })
}

fn root_with_an_app() -> (tempfile::TempDir, Layout, AppId) {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::under(folder.path());
    let app: AppId = "shop/local".parse().unwrap();
    std::fs::create_dir_all(layout.app(&app)).unwrap();
    (folder, layout, app)
}

#[tokio::test]
async fn down_stops_what_runs_of_ours_and_says_so() {
    let (_folder, layout, app) = root_with_an_app();
    let runtime = FakeRuntime::new(RuntimeKind::Process);
    runtime.put(running("web-blue-1-0"));
    runtime.put(instance("web-green-1-0", InstanceState::Exited { exit: fake::exit(1) }));
    runtime.put(FoundInstance { ours: false, ..running("theirs-blue-1-0") });

    let stopped = down(&layout, &runtime).await.unwrap();

    assert_eq!(stopped.instances, [(app, "web-blue-1-0".parse().unwrap())]);
    assert_eq!(stopped.processes, Vec::<&str>::new());
    assert_eq!(runtime.acts(), ["stop web-blue-1-0"]);
}

#[tokio::test]
async fn down_touches_nothing_while_a_run_is_at_work() {
    let (_folder, layout, app) = root_with_an_app();
    let runtime = FakeRuntime::new(RuntimeKind::Process);
    runtime.put(running("web-blue-1-0"));
    let holder = cutover_core::journal::LockHolder {
        app: app.clone(),
        run: cutover_core::names::RunId::new(uuid::Uuid::nil()),
        by: "ann".into(),
        verb: cutover_core::plan::Verb::Deploy,
        since: jiff::Timestamp::UNIX_EPOCH,
        pid: std::process::id(),
    };
    let _lock = AppLock::take(&layout, &app, &holder).unwrap();

    let error = down(&layout, &runtime).await.unwrap_err();

    assert_eq!(error.to_string(), "shop/local is being changed: deploy by ann since 1970-01-01T00:00:00Z");
    assert_eq!(runtime.acts(), Vec::<String>::new());
}

#[tokio::test]
async fn what_a_killed_supervisor_left_does_not_count_as_kept() {
    let (_folder, layout, _app) = root_with_an_app();
    let _proxy = ProcessLock::take(&layout, "proxy").unwrap();
    let _watch = ProcessLock::take(&layout, "watch").unwrap();
    assert!(!is_up(&layout));

    let _up = ProcessLock::take(&layout, "up").unwrap();

    assert!(is_up(&layout));
}

#[tokio::test]
async fn an_up_that_ends_without_a_word_is_told_with_its_log() {
    let (_folder, layout, _app) = root_with_an_app();

    let error = ensure_up(&layout, std::path::Path::new("/bin/true"), None).await.unwrap_err();

    assert!(
        error.to_string().starts_with("`cutover-host up` did not become ready: it ended without a word"),
        "{error}"
    );
}
