//! `completion` and `man`: what shells and `man` know of the command line, made from the command line itself.

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;

use super::{Desk, Ended, Stop};
use crate::arguments::Arguments;
use crate::asked::Command;

#[derive(Debug, Args)]
pub(crate) struct CompletionArguments {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArguments {
    /// Write a page for each verb into this folder, instead of the first page to standard output
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

impl CompletionArguments {
    pub(crate) fn into_command(self) -> Command {
        Command::Completion { shell: self.shell }
    }
}

impl ManArguments {
    pub(crate) fn into_command(self) -> Command {
        Command::Man { out: self.out }
    }
}

pub(super) fn completion(desk: &Desk, shell: Shell) -> Ended {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "cutover", &mut text);
    desk.output.data(&String::from_utf8_lossy(&text))?;
    Ok(Exit::Done.code())
}

pub(super) fn man(desk: &Desk, out: Option<&Path>) -> Ended {
    let pages = pages()?;
    let Some(folder) = out else {
        let first = pages.into_iter().next().map(|(_, page)| page).unwrap_or_default();
        desk.output.data(&String::from_utf8_lossy(&first))?;
        return Ok(Exit::Done.code());
    };
    let count = pages.len();
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        pages.iter().try_for_each(|(name, page)| std::fs::write(folder.join(name), page))
    };
    write().map_err(|error| {
        Failure::new(Exit::Failed, format!("the pages were not written to {}", folder.display()))
            .because(error.to_string())
            .next("name a folder that this user may write to")
    })?;
    desk.output.talk(&format!("wrote {count} pages to {}", folder.display()));
    Ok(Exit::Done.code())
}

/// A page for the command and one for each verb, `cutover-env-set.1` and so on, the command's first.
fn pages() -> Result<Vec<(String, Vec<u8>)>, Stop> {
    let mut command = Arguments::command();
    command.build();
    let mut pages = Vec::new();
    let mut open = vec![("cutover".to_owned(), command)];
    while let Some((name, command)) = open.pop() {
        let verbs = command.get_subcommands().filter(|verb| verb.get_name() != "help");
        open.extend(verbs.map(|verb| (format!("{name}-{}", verb.get_name()), verb.clone())));
        let mut page = Vec::new();
        // Clap wants a name that lives on; pages are made once in a process's life.
        let title: &'static str = Box::leak(name.clone().into_boxed_str());
        clap_mangen::Man::new(command.name(title)).render(&mut page)?;
        pages.push((format!("{name}.1"), page));
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects;

    #[test]
    fn every_verb_has_a_page() {
        let pages = pages().unwrap();
        assert_eq!(pages[0].0, "cutover.1");
        for (word, _) in effects::TABLE {
            let name = format!("cutover-{}.1", word.replace(' ', "-"));
            let page = pages.iter().find(|(page, _)| *page == name);
            assert!(page.is_some_and(|(_, page)| page.len() > 200), "{name}");
        }
    }

    #[test]
    fn every_verb_is_completed_in_every_shell() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "cutover", &mut text);
            let text = String::from_utf8(text).unwrap();
            for (word, _) in effects::TABLE {
                assert!(word.split(' ').all(|part| text.contains(part)), "{word} in {shell}");
            }
        }
    }
}
