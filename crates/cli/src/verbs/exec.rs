//! `exec`: a command in an instance, with this terminal as its own where there is one. Its exit code becomes ours.

use std::io::{IsTerminal, Write};

use cutover_core::wire::{Ask, Reply};
use rustix::termios::{self, OptionalActions, Termios};
use tokio::io::AsyncReadExt;

use super::{Desk, Ended, Stop, reach};
use crate::asked::ExecAsked;
use crate::hosts::{Hearing, HostError, Speaking, unexpected};

const PIECE: usize = 8 * 1024;

pub(super) async fn exec(desk: &Desk, asked: ExecAsked) -> Ended {
    let (app, mut channel) = reach(desk).await?;
    let terminal = (std::io::stdin().is_terminal() && std::io::stdout().is_terminal())
        .then(|| termios::tcgetwinsize(std::io::stdout()).ok())
        .flatten()
        .map(|size| (size.ws_col, size.ws_row));
    let ExecAsked { once, service, command } = asked;
    channel.ask(&Ask::Exec { app, service, command, once, terminal }).await?;
    let (hearing, speaking) = channel.halves();
    // Raw only while the command runs, whatever ends it.
    let raw = terminal.is_some().then(Raw::enter).transpose()?;
    let input = tokio::spawn(send_input(speaking));
    let ended = hear(hearing).await;
    input.abort();
    drop(raw);
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

/// The terminal hands over keys as they are typed; as it was, once this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self, Stop> {
        let before = termios::tcgetattr(std::io::stdin()).map_err(std::io::Error::from)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).map_err(std::io::Error::from)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Best effort: where the terminal is gone there is nothing left to mend.
        termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0).ok();
    }
}
