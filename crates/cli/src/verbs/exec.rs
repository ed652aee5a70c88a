//! `exec`: a command in a live instance, or in a fresh one. Its streams are ours, and so is its exit code. Where standard input and output are
//! a terminal it gets one, too, and ours hands every key on.

use crate::asked::Command;
use clap::Args;
use cutover_core::names::ServiceName;
use std::io::{IsTerminal, Write};

use cutover_core::wire::{Ask, Reply};
use rustix::termios::{self, OptionalActions, Termios};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Desk, Ended, reach};
use crate::asked::ExecAsked;
use crate::hosts::{Hearing, HostError, Speaking, unexpected};

#[derive(Debug, Args)]
pub(crate) struct ExecArguments {
    /// In a fresh instance of the live release, removed afterwards
    #[arg(long)]
    once: bool,
    /// The service
    #[arg(value_name = "SERVICE")]
    service: ServiceName,
    /// The command and its words; a shell, if none is given
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl ExecArguments {
    pub(crate) fn into_command(self) -> Command {
        let shell = || vec!["sh".to_owned()];
        let command = if self.command.is_empty() { shell() } else { self.command };
        Command::Exec(ExecAsked { once: self.once, service: self.service, command })
    }
}

const PIECE: usize = 8 * 1024;

pub(super) async fn exec(desk: &Desk, asked: ExecAsked) -> Ended {
    let (app, mut channel) = reach(desk).await?;
    let ExecAsked { once, service, command } = asked;
    let has_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let terminal = if has_terminal { size() } else { None };
    channel.ask(&Ask::Exec { app, service, command, once, terminal }).await?;
    let (hearing, speaking) = channel.halves();
    let raw = if terminal.is_some() { Raw::enter() } else { None };
    let input = tokio::spawn(send_input(speaking, terminal.is_some()));
    let ended = hear(hearing).await;
    input.abort();
    drop(raw);
    ended
}

async fn hear(mut hearing: Hearing) -> Ended {
    loop {
        match hearing.reply().await.map_err(HostError::failure_of_command)? {
            Reply::Data { error: false, bytes } => {
                let heard = hearing.data(bytes, |piece| write(std::io::stdout(), piece)).await;
                heard.map_err(HostError::failure_of_command)?;
            }
            Reply::Data { error: true, bytes } => {
                let heard = hearing.data(bytes, |piece| write(std::io::stderr(), piece)).await;
                heard.map_err(HostError::failure_of_command)?;
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

/// What is typed or piped, and each new size of the terminal.
async fn send_input(mut speaking: Speaking, terminal: bool) -> Result<(), HostError> {
    let mut input = tokio::io::stdin();
    let mut piece = vec![0; PIECE];
    let mut resized = if terminal { signal(SignalKind::window_change()).ok() } else { None };
    loop {
        let read = tokio::select! {
            // An input that cannot be read has ended.
            read = input.read(&mut piece) => read.unwrap_or(0),
            () = next(&mut resized) => {
                if let Some((columns, rows)) = size() {
                    speaking.ask_with(&Ask::Resize { columns, rows }, &[]).await?;
                }
                continue;
            }
        };
        speaking.ask_with(&Ask::Input { bytes: read as u64 }, &piece[..read]).await?;
        if read == 0 {
            // The command goes on: a direction that is closed would mean that we left.
            std::future::pending::<()>().await;
        }
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Columns and rows of our terminal.
fn size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some((size.ws_col, size.ws_row))
}

/// Our terminal, while it hands on every key as it is. Dropped, it is as it was.
struct Raw(Termios);

impl Raw {
    fn enter() -> Option<Self> {
        let before = termios::tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(std::io::stdin(), OptionalActions::Drain, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no setting.
        termios::tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.0).ok();
    }
}
