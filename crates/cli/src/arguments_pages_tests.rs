//! What the pages say to type can be typed: each command of theirs, in a block or within a sentence, is read by the command line itself.

use std::fs;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;

use super::*;

/// What a placeholder stands for where not any word will do.
const PLACEHOLDERS: [(&str, &str); 5] = [
    ("RULE", "older-commit"),
    ("RUN", "019a0b3c-0000-7000-8000-000000000000"),
    ("SERVICE[:PORT]", "web:8080"),
    ("SHELL", "bash"),
    ("VERB", "deploy"),
];

/// A command of a page.
#[derive(Debug)]
struct Typed {
    page: String,
    text: String,
    /// Within a sentence, where the name of a verb stands for all of its words.
    is_mentioned: bool,
}

fn pages() -> Vec<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| top.join(name)).to_vec();
    let mut folders = vec![top.join("docs"), top.join("examples")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

/// All commands of `cutover` on a page.
fn commands(page: &Path) -> Vec<Typed> {
    let (mut found, mut sentences, mut fence) = (Vec::new(), String::new(), None);
    let typed = |text: &str, is_mentioned| Typed {
        page: page.display().to_string(),
        text: text.to_owned(),
        is_mentioned,
    };
    for line in fs::read_to_string(page).unwrap().lines() {
        match (line.trim_start().strip_prefix("```"), fence.is_some()) {
            (Some(_), true) => fence = None,
            (Some(language), false) => fence = Some(language.to_owned()),
            (None, true) if matches!(fence.as_deref(), Some("sh" | "console")) => {
                let line = line.strip_prefix("$ ").unwrap_or(line);
                if line.starts_with("cutover ") {
                    found.push(typed(line, false));
                }
            }
            (None, true) => {}
            (None, false) => sentences = sentences + line + "\n",
        }
    }
    for paragraph in sentences.split("\n\n") {
        let paragraph = paragraph.replace('\n', " ").replace("\\|", "|");
        let in_backquotes = paragraph.split('`').skip(1).step_by(2);
        found.extend(in_backquotes.filter(|text| text.starts_with("cutover ")).map(|text| typed(text, true)));
    }
    found
}

/// The words of a command as a shell splits them, up to what is the shell's own.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in text.chars() {
        match (character, quote) {
            (character, Some(open)) if character == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (' ', None) => words.extend(word.take()),
            ('<' | '>' | ';', None) => break,
            ('#', None) if word.is_none() => break,
            (character, _) => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    let own = words.iter().position(|word| word == "|" || word == "&&").unwrap_or(words.len());
    words.truncate(own);
    words
}

/// A word with what its placeholder stands for; `create|list` is one or the other, `[ID]` may stay away, `…` is what nobody needs.
fn filled(word: &str) -> Vec<String> {
    let is_placeholder =
        |word: &str| word.chars().all(|letter| letter.is_ascii_uppercase() || "_=".contains(letter));
    let fill = |word: &str| if is_placeholder(word) { word.to_ascii_lowercase() } else { word.to_owned() };
    if let Some((_, value)) = PLACEHOLDERS.iter().find(|(name, _)| *name == word) {
        return vec![(*value).to_owned()];
    }
    let word = word.trim_start_matches('[').trim_end_matches(']');
    if word == "…" { Vec::new() } else { word.split('|').map(fill).collect() }
}

/// What the command line has against it.
fn objection(typed: &Typed) -> Option<String> {
    let words: Vec<Vec<String>> =
        words(&typed.text).iter().map(|word| filled(word)).filter(|word| !word.is_empty()).collect();
    let ways = words.iter().map(Vec::len).max().unwrap_or(1);
    (0..ways).find_map(|way| {
        let chosen = words.iter().map(|word| &word[way.min(word.len() - 1)]);
        let error = Arguments::try_parse_from(chosen)
            .and_then(|arguments| arguments.into_command("ada@laptop", Timestamp::UNIX_EPOCH))
            .err()?;
        let is_named_only = typed.is_mentioned
            && matches!(
                error.kind(),
                ErrorKind::MissingRequiredArgument
                    | ErrorKind::MissingSubcommand
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            );
        let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
        (!is_named_only && !is_help).then(|| format!("{}: {}: {error}", typed.page, typed.text))
    })
}

#[test]
fn what_the_pages_say_to_type_can_be_typed() {
    let all: Vec<Typed> = pages().iter().flat_map(|page| commands(page)).collect();
    let in_blocks = all.iter().filter(|typed| !typed.is_mentioned).count();
    assert!(
        in_blocks > 30 && all.len() > 200,
        "{in_blocks} of {} are in blocks: were they found?",
        all.len()
    );
    let objections: Vec<String> = all.iter().filter_map(objection).collect();
    assert!(objections.is_empty(), "{}", objections.join("\n"));
}

#[test]
fn a_command_is_split_as_a_shell_does_it() {
    let split = |text| words(text).join(" · ");
    assert_eq!(
        split("cutover exec db psql -c 'select 1' > out   # says 1"),
        "cutover · exec · db · psql · -c · select 1"
    );
    assert_eq!(split("cutover env list | sort"), "cutover · env · list");
    let wrong = |text: &str, is_mentioned| {
        objection(&Typed { page: "page".to_owned(), text: text.to_owned(), is_mentioned }).is_some()
    };
    assert!(wrong("cutover rollback --restore", true) && wrong("cutover snapshot create|lst", true));
    assert!(wrong("cutover snapshot verify", false) && !wrong("cutover snapshot verify", true));
    assert!(!wrong("cutover backup restore [ID] --to FOLDER", true));
}
