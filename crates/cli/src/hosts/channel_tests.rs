use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use tokio::io::{AsyncBufReadExt, DuplexStream};

use super::*;

use proptest::prelude::*;

/// A session that says what the test tells it to.
struct FakeSession {
    reader: BufReader<tokio::io::ReadHalf<DuplexStream>>,
    writer: tokio::io::WriteHalf<DuplexStream>,
}

impl FakeSession {
    async fn heard(&mut self) -> Ask {
        let mut line = String::new();
        self.reader.read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }

    async fn says(&mut self, reply: &Reply) {
        let line = serde_json::to_string(reply).unwrap() + "\n";
        self.says_raw(line.as_bytes()).await;
    }

    async fn says_raw(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).await.unwrap();
    }
}

fn ends() -> (DuplexStream, FakeSession) {
    let (client, host) = tokio::io::duplex(4096);
    let (reader, writer) = tokio::io::split(host);
    (client, FakeSession { reader: BufReader::new(reader), writer })
}

fn hello(version: u32) -> Reply {
    Reply::Hello {
        version,
        package: "9.9.9".to_owned(),
        platform: "x86_64-linux".to_owned(),
        now: Timestamp::UNIX_EPOCH,
    }
}

async fn open(client: DuplexStream) -> Result<Channel, HostError> {
    let (reader, writer) = tokio::io::split(client);
    Channel::open(Target::Here, reader, writer, None).await
}

async fn opened() -> (Channel, FakeSession) {
    let (client, mut session) = ends();
    let opening = tokio::spawn(open(client));
    assert!(matches!(session.heard().await, Ask::Hello { version: WIRE_VERSION, .. }));
    session.says(&hello(WIRE_VERSION)).await;
    (opening.await.unwrap().unwrap(), session)
}

#[tokio::test]
async fn given_a_host_that_refused_and_ended_before_it_was_greeted_then_its_reason_is_told() {
    let (client, mut session) = ends();
    let failure = Box::new(Failure::new(Exit::Failed, "the state on this host cannot be opened"));
    session.says(&Reply::Failed { failure }).await;
    drop(session);
    let failure = open(client).await.err().unwrap().failure();
    assert!(failure.what.contains("the state"), "{failure:?}");
}

#[tokio::test]
async fn another_version_is_refused_with_both_named() {
    let (client, mut session) = ends();
    let opening = tokio::spawn(open(client));
    session.heard().await;
    session.says(&hello(WIRE_VERSION + 1)).await;
    let failure = opening.await.unwrap().err().unwrap().failure();
    assert_eq!(failure.exit, Exit::Failed);
    assert!(failure.cause[0].contains("9.9.9 (protocol 2)"), "{failure:?}");
}

fn server() -> Target {
    let here = std::path::Path::new("/app");
    let environment = "production".parse().unwrap();
    let Target::Server(server) = Target::of(&["deploy@web1".parse().unwrap()], &environment, here) else {
        panic!("no server")
    };
    Target::Server(Box::new(crate::hosts::target::Server { asks: false, ..*server }))
}

#[tokio::test]
async fn an_older_server_is_upgraded_and_an_older_client_is_replaced() {
    for (version, next) in
        [(WIRE_VERSION - 1, "cutover upgrade production"), (WIRE_VERSION + 1, "install cutover 9.9.9")]
    {
        let (client, mut session) = ends();
        let (reader, writer) = tokio::io::split(client);
        let opening = tokio::spawn(Channel::open(server(), reader, writer, None));
        session.heard().await;
        session.says(&hello(version)).await;
        let failure = opening.await.unwrap().err().unwrap().failure();
        assert!(failure.next[0].contains(next), "{failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_given_up() {
    let (client, _session) = ends();
    let (reader, writer) = tokio::io::split(client);
    let began = tokio::time::Instant::now();
    let failure = Channel::open(server(), reader, writer, None).await.err().unwrap().failure();
    assert!(began.elapsed() < std::time::Duration::from_mins(1));
    assert_eq!(failure.what, "cutover-host on deploy@web1 did not answer");
}

#[tokio::test(start_paused = true)]
async fn over_a_network_signs_of_life_go_out_while_nothing_is_asked() {
    let (client, mut session) = ends();
    let (reader, writer) = tokio::io::split(client);
    let opening = tokio::spawn(Channel::open(server(), reader, writer, None));
    assert!(matches!(session.heard().await, Ask::Hello { .. }));
    assert_eq!(session.heard().await, Ask::Alive { silence_ms: 15_000 });
    session.says(&hello(WIRE_VERSION)).await;
    let channel = opening.await.unwrap().unwrap();
    let mut signs = [0; 3];
    session.reader.read_exact(&mut signs).await.unwrap();
    assert_eq!(&signs, b"\n\n\n");
    assert!(channel.note_of_clocks().unwrap().contains("the clock of deploy@web1 is "));
}

#[tokio::test]
async fn bulk_goes_behind_its_question_and_comes_behind_its_reply() {
    let (mut channel, mut session) = opened().await;
    let asking = tokio::spawn(async move {
        channel.ask_with(&Ask::Input { bytes: 3 }, b"abc").await.unwrap();
        let Reply::Data { bytes, .. } = channel.reply().await.unwrap() else { panic!("no data") };
        let mut got = Vec::new();
        channel
            .data(bytes, |piece| {
                got.extend_from_slice(piece);
                Ok(())
            })
            .await
            .unwrap();
        channel.done().await.unwrap();
        got
    });
    assert_eq!(session.heard().await, Ask::Input { bytes: 3 });
    let mut bulk = [0; 3];
    session.reader.read_exact(&mut bulk).await.unwrap();
    assert_eq!(&bulk, b"abc");
    session.says(&Reply::Data { error: false, bytes: 5 }).await;
    session.says_raw(b"a\nb\nc").await;
    session.says(&Reply::Done).await;
    assert_eq!(asking.await.unwrap(), b"a\nb\nc");
}

#[tokio::test]
async fn a_refusal_comes_as_it_was_said() {
    let (mut channel, mut session) = opened().await;
    let failure = Failure::new(Exit::Locked, "another deploy holds the lock");
    session.says(&Reply::Failed { failure: Box::new(failure.clone()) }).await;
    let error = channel.reply().await.unwrap_err();
    assert_eq!(error.failure_of_run("1"), failure);
}

#[tokio::test]
async fn a_session_that_ends_leaves_the_outcome_of_a_run_unknown() {
    let (mut channel, mut session) = opened().await;
    session.says_raw(b"{\"reply\":\"done").await;
    drop(session);
    let failure = channel.reply().await.unwrap_err().failure_of_run("018f");
    assert_eq!(failure.exit, Exit::Unknown);
    assert!(failure.state.contains("run 018f goes on"), "{failure:?}");
}

#[tokio::test]
async fn a_reply_that_was_not_due_is_named() {
    let (mut channel, mut session) = opened().await;
    session.says(&Reply::Lock { holder: None }).await;
    let error = channel.done().await.unwrap_err();
    assert_eq!(error.to_string(), "the session does not speak this protocol: `done` was due, `lock` came");
}

/// Greets, then says these bytes and ends; how many replies were understood before the end.
async fn hears(bytes: Vec<u8>) -> usize {
    let (mut channel, mut session) = opened().await;
    let saying = tokio::spawn(async move {
        let said = session.writer.write_all(&bytes).await;
        // Both halves go: the end is heard.
        drop(session);
        said
    });
    let mut replies = 0;
    while let Ok(reply) = channel.reply().await {
        replies += 1;
        if let Reply::Data { bytes, .. } = reply
            && channel.data(bytes, |_| Ok(())).await.is_err()
        {
            break;
        }
    }
    drop(channel);
    saying.await.unwrap().ok();
    replies
}

fn any_frames() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        Just(b"\n".to_vec()),
        Just(b"{\"reply\":\"done\"}\n".to_vec()),
        any::<u64>().prop_map(
            |bytes| format!("{{\"reply\":\"data\",\"error\":false,\"bytes\":{bytes}}}\n").into_bytes()
        ),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_replies_or_the_end(bytes in any_frames()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let most = bytes.len();
        prop_assert!(runtime.block_on(hears(bytes)) <= most);
    }
}
