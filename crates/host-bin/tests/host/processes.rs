//! The long-lived processes: `up` and what it keeps, `down`, and how they say what is in their way.

use crate::support::Root;
use cutover_core::exit::Exit;
use cutover_core::wire::{Ask, Reply};

#[test]
fn up_is_started_once_and_down_ends_it() {
    let root = Root::new();
    let mut conversation = root.talk();

    let Reply::Up { started: true, listeners } = conversation.ask(&Ask::Up) else { panic!() };
    let Reply::Up { started: false, listeners: again } = conversation.ask(&Ask::Up) else { panic!() };
    assert_eq!(listeners, again);
    std::net::TcpStream::connect(listeners[0]).unwrap();

    let down = root.runs(&["down"]);
    assert_eq!(down.status.code(), Some(0));
    assert!(String::from_utf8(down.stderr).unwrap().starts_with("stopped: up"));
    assert!(down.stdout.is_empty(), "standard output is for frames");
    assert!(std::net::TcpStream::connect(listeners[0]).is_err());
}

#[test]
fn a_taken_port_names_who_has_it_and_both_remedies() {
    let theirs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = theirs.local_addr().unwrap().to_string();
    let root = Root::listening(&address);

    let mut conversation = root.talk();
    conversation.send(&Ask::Up);
    let failure = conversation.hear_failure();
    let alone = root.runs(&["proxy"]);

    assert_eq!((failure.exit, failure.next.len()), (Exit::Refused, 2));
    let us = format!("(process {})", std::process::id());
    assert!(failure.cause[0].contains(&address) && failure.cause[0].contains(&us), "{failure:?}");
    let said = String::from_utf8(alone.stderr).unwrap();
    assert!(said.starts_with("error: the proxy was not started\n  cause: "), "{said}");
    assert!(said.contains(&us) && said.contains("\n  state: ") && said.contains("\n  next:  "), "{said}");
    assert_eq!(alone.status.code(), Some(1));
}

#[test]
fn a_second_one_is_told_that_there_is_one() {
    let root = Root::new();
    assert!(matches!(root.talk().ask(&Ask::Up), Reply::Up { started: true, .. }));

    for word in ["proxy", "watch", "up"] {
        let second = root.runs(&[word]);
        let said = String::from_utf8(second.stderr).unwrap();
        assert_eq!(second.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("another `{word}` of this installation runs (process ")), "{said}");
    }
}

#[test]
fn wrong_words_and_wrong_surroundings_say_what_is_wrong() {
    let root = Root::new();
    assert_eq!(root.runs(&["fly"]).status.code(), Some(2));
    let long = root.command(&["session"]).env("CUTOVER_ROOT", format!("/tmp/{}", "x".repeat(120))).output();
    assert_eq!(long.unwrap().status.code(), Some(0), "it is told when state is asked for");
    let proxy = root.command(&["proxy"]).env("CUTOVER_HTTP", "localhost").output().unwrap();
    let said = String::from_utf8(proxy.stderr).unwrap();
    assert!(said.contains("CUTOVER_HTTP is `localhost`: expected address:port"), "{said}");
}
