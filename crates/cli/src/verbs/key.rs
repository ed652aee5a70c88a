//! `key add|list|revoke|trust`: who may deploy from CI. Such a key opens sessions and nothing else.

use std::io::Read as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::wire::{Ask, Reply, SetupAsk, SetupReply};

use super::trust::{KeyTrustArguments, trust};
use super::{Desk, Ended, reach};
use crate::asked::{Command, KeyAsked};
use crate::hosts::unexpected;
use crate::render::Line;

#[derive(Debug, Subcommand)]
pub(crate) enum KeyWord {
    /// Let a public key deploy, as the user `cutover`
    Add(KeyAddArguments),
    /// Show the keys that may deploy
    List,
    /// Let a key deploy no longer
    Revoke(KeyRevokeArguments),
    /// Take a server's key into the file beside cutover.yml, once its fingerprint was compared
    Trust(KeyTrustArguments),
}

#[derive(Debug, Args)]
pub(crate) struct KeyAddArguments {
    /// A .pub file; `-` reads standard input
    #[arg(value_name = "FILE")]
    public: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct KeyRevokeArguments {
    /// Its fingerprint or its comment, as `cutover key list` shows them
    #[arg(value_name = "KEY")]
    key: String,
}

impl KeyWord {
    pub(crate) fn into_command(self) -> Command {
        match self {
            Self::Add(KeyAddArguments { public }) => Command::Key(KeyAsked::Add(public)),
            Self::List => Command::Key(KeyAsked::List),
            Self::Revoke(KeyRevokeArguments { key }) => Command::Key(KeyAsked::Revoke(key)),
            Self::Trust(arguments) => arguments.into_command(),
        }
    }
}

pub(super) async fn key(desk: &Desk, asked: KeyAsked) -> Ended {
    let question = match asked {
        KeyAsked::Add(file) => SetupAsk::AddKey { key: public_key(&file)? },
        KeyAsked::List => SetupAsk::Keys,
        KeyAsked::Revoke(key) => SetupAsk::RevokeKey { key },
        KeyAsked::Trust { host, fingerprint } => return trust(desk, &host, fingerprint.as_deref()),
    };
    let (_, mut channel) = reach(desk).await?;
    match channel.answer(&Ask::Setup(question)).await? {
        Reply::Setup(SetupReply::Keys { keys }) => {
            for key in &keys {
                let text = || format!("{}  {}  {}", key.fingerprint, key.kind, key.comment);
                desk.output.answer(&Line::Key { key }, text)?;
            }
        }
        Reply::Setup(SetupReply::Told { lines }) => {
            for line in &lines {
                desk.output.answer(&Line::Told { text: line }, || line.clone())?;
            }
        }
        Reply::Done => {
            desk.output
                .talk("the key may deploy: name the server as `cutover@…` in `hosts` where it is used; who has it has root on this server, and all its apps");
            desk.output.answer_json(&Line::Done)?;
        }
        other => return Err(unexpected("keys", &other).into()),
    }
    Ok(Exit::Done.code())
}

fn public_key(file: &std::path::Path) -> Result<String, Failure> {
    let unread = |error: std::io::Error| {
        Failure::new(Exit::Usage, "the public key cannot be read")
            .because(format!("{}: {error}", file.display()))
    };
    let mut text = String::new();
    if file == std::path::Path::new("-") {
        std::io::stdin().lock().read_to_string(&mut text).map_err(unread)?;
    } else {
        text = std::fs::read_to_string(file).map_err(unread)?;
    }
    if text.contains("PRIVATE KEY") {
        return Err(Failure::new(Exit::Usage, "this is a private key, which stays where it is")
            .because(format!("{} begins as one", file.display()))
            .next("give its public half: the file that ends in .pub"));
    }
    Ok(text.trim().to_owned())
}
