//! What containers write on a real engine.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use cutover_engine::{LogQuery, OutputStream};
use futures_util::StreamExt;
use support::on_engine;

#[test]
fn output_is_read_in_order_with_its_stream() {
    on_engine("output_is_read_in_order_with_its_stream", |place| async move {
        let engine = &place.engine;
        let id = engine
            .create(&place.spec("talks", "echo one; sleep 0.1; echo two >&2; sleep 0.1; echo -n three"))
            .await
            .unwrap()
            .id;
        engine.start(&id).await.unwrap();
        let mut stream = std::pin::pin!(engine.logs(&id, LogQuery { follow: true, ..LogQuery::default() }));
        let mut lines = Vec::new();
        while let Some(line) = stream.next().await {
            lines.push(line.unwrap());
        }
        let told: Vec<_> = lines.iter().map(|line| (line.stream, line.text.as_str())).collect();
        assert_eq!(
            told,
            [(OutputStream::Output, "one"), (OutputStream::Error, "two"), (OutputStream::Output, "three")]
        );

        assert_eq!(engine.last_lines(&id, 1).await.unwrap()[0].text, "three");
        let since = LogQuery { since: lines[1].at, ..LogQuery::default() };
        let later: Vec<_> = engine.logs(&id, since).map(|line| line.unwrap().text).collect().await;
        assert_eq!(later, ["two", "three"]);
    });
}

#[test]
fn a_long_line_stays_one_line() {
    on_engine("a_long_line_stays_one_line", |place| async move {
        let script = "x=aaaaaaaaaaaaaaaa; for i in 1 2 3 4 5 6 7 8 9 10 11; do x=$x$x; done; echo $x";
        let id = place.engine.create(&place.spec("talks", script)).await.unwrap().id;
        place.engine.start(&id).await.unwrap();
        place.engine.wait(&id).await.unwrap();
        let lines = place.engine.last_lines(&id, 10).await.unwrap();
        assert_eq!(lines.iter().map(|line| line.text.len()).collect::<Vec<_>>(), [16 << 11]);
    });
}
