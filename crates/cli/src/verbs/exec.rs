//! `exec`: a command in a live instance, or in a fresh one. Its output is ours, and so is its exit code.
//!
//! A command gets no terminal yet; what is piped into us is passed on.

use std::io::{IsTerminal, Write};

use cutover_core::wire::{Ask, Reply};
use tokio::io::AsyncReadExt;

use super::{Desk, Ended, reach};
use crate::asked::ExecAsked;
use crate::hosts::{Hearing, HostError, Speaking, unexpected};

const PIECE: usize = 8 * 1024;

pub(super) async fn exec(desk: &Desk, asked: ExecAsked) -> Ended {
    let (app, mut channel) = reach(desk).await?;
    let ExecAsked { once, service, command } = asked;
    channel.ask(&Ask::Exec { app, service, command, once, terminal: None }).await?;
    let (hearing, speaking) = channel.halves();
    let input = tokio::spawn(send_input(speaking));
    let ended = hear(hearing).await;
    input.abort();
    ended
}

async fn hear(mut hearing: Hearing) -> Ended {
    loop {
        match hearing.reply().await? {
            Reply::Data { error: false, bytes } => {
                hearing.data(bytes, |piece| write(std::io::stdout(), piece)).await?;
            }
            Reply::Data { error: true, bytes } => {
                hearing.data(bytes, |piece| write(std::io::stderr(), piece)).await?;
            }
            Reply::Exit { code } => return Ok(u8::try_from(code).unwrap_or(u8::MAX)),
            other => return Err(unexpected("data", &other).into()),
        }
    }
}

fn write(mut stream: impl Write, piece: &[u8]) -> std::io::Result<()> {
    stream.write_all(piece)?;
    stream.flush()
}

async fn send_input(mut speaking: Speaking) -> Result<(), HostError> {
    if std::io::stdin().is_terminal() {
        // Keys that are typed are not for a command without a terminal.
        speaking.ask_with(&Ask::Input { bytes: 0 }, &[]).await?;
    } else {
        send_piped(&mut speaking).await?;
    }
    // The command goes on: a direction that is closed would mean that we left.
    std::future::pending().await
}

async fn send_piped(speaking: &mut Speaking) -> Result<(), HostError> {
    let mut input = tokio::io::stdin();
    let mut piece = vec![0; PIECE];
    loop {
        // An input that cannot be read has ended.
        let read = input.read(&mut piece).await.unwrap_or(0);
        speaking.ask_with(&Ask::Input { bytes: read as u64 }, &piece[..read]).await?;
        if read == 0 {
            return Ok(());
        }
    }
}
