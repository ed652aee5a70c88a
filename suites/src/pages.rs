//! What stands to be typed on a page of the documentation.

use std::collections::VecDeque;
use std::path::Path;

/// The commands in the blocks of a page of `docs`, in its order, without what is said of them.
///
/// # Panics
/// When there is no such page, or nothing to be typed on it.
pub fn commands(name: &str) -> VecDeque<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/{name}.md"));
    let text = std::fs::read_to_string(path).expect("a page");
    let (mut commands, mut fence) = (VecDeque::new(), None);
    for line in text.lines() {
        match (line.strip_prefix("```"), fence) {
            (Some(_), Some(_)) => fence = None,
            (Some(language), None) => fence = Some(language),
            (None, Some("sh" | "console")) => commands.push_back(command(line)),
            (None, _) => {}
        }
    }
    assert!(!commands.is_empty(), "{name} has no commands: were they found?");
    commands
}

fn command(line: &str) -> String {
    let line = line.strip_prefix("$ ").unwrap_or(line);
    line.split(" # ").next().unwrap_or(line).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The run itself is long; that nothing is new on a page, and typed by nobody, is known at once.
    #[test]
    fn each_command_of_these_pages_is_typed_by_the_suite_of_pages() {
        const TYPED: [&str; 2] =
            [include_str!("../tests/pages/backups.rs"), include_str!("../tests/pages/migrations.rs")];
        let typed = TYPED.concat().replace("\\\"", "\"");
        for page in ["migrations", "rollback", "backups", "disaster"] {
            for command in commands(page) {
                assert!(typed.contains(&format!("\"{command}\"")), "{page}: nobody types `{command}`");
            }
        }
    }
}
