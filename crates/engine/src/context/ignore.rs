//! The rules of `.dockerignore`, with the meaning the Docker client gives them. Pure.
//!
//! One pattern a line; `#` starts a comment; the last line that matches a path or one of its parent folders decides;
//! `!` brings back. `*` and `?` do not cross a `/`, `**` does.

/// Which files of a context are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rules {
    lines: Vec<Line>,
    kept: Vec<String>,
    never: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    brings_back: bool,
    pattern: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Exactly(char),
    /// `?`
    One,
    /// `*`
    Some,
    /// `**/`: any number of whole folders, also none.
    Folders,
    /// `**` at the end.
    Rest,
    /// `[a-z]`, `[^a-z]`
    Among {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// Number of the line, counted from 1, and what is wrong with it.
pub(super) type Problem = (usize, String);

impl Rules {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut lines = Vec::new();
        for (number, line) in text.lines().enumerate() {
            // Only in the first column: ` #x` names a file.
            if line.starts_with('#') {
                continue;
            }
            lines.extend(Line::parse(line.trim()).map_err(|problem| (number + 1, problem))?);
        }
        Ok(Self { lines, ..Self::default() })
    }

    /// Files that are sent whatever the lines say.
    pub(super) fn keep(&mut self, files: &[&str]) {
        self.kept.extend(files.iter().map(|file| (*file).to_owned()));
    }

    /// Patterns that no line brings back.
    pub(super) fn never(&mut self, patterns: &[String]) -> Result<(), Problem> {
        for (number, pattern) in patterns.iter().enumerate() {
            self.never.extend(Line::parse(pattern.trim()).map_err(|problem| (number + 1, problem))?);
        }
        Ok(())
    }

    /// Whether a path (relative, with `/`) is left out.
    pub(super) fn leave_out(&self, path: &str) -> bool {
        if decided(&self.never, path) {
            return true;
        }
        !self.kept.iter().any(|kept| kept == path) && decided(&self.lines, path)
    }

    /// Whether a folder and all below it is left out, so that it need not be walked.
    pub(super) fn leave_out_folder(&self, path: &str) -> bool {
        let below = format!("{path}/");
        let may_come_back = self.lines.iter().any(|line| line.brings_back)
            || self.kept.iter().any(|kept| kept.starts_with(&below));
        self.leave_out(path) && (!may_come_back || decided(&self.never, path))
    }
}

fn decided(lines: &[Line], path: &str) -> bool {
    let mut left_out = false;
    for line in lines {
        // A line that could only confirm what is so already need not be tried.
        if line.brings_back == left_out && line.matches_with_parents(path) {
            left_out = !line.brings_back;
        }
    }
    left_out
}

impl Line {
    fn parse(text: &str) -> Result<Option<Self>, String> {
        let (brings_back, text) = match text.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, text),
        };
        if brings_back && text.is_empty() {
            return Err("`!` needs a pattern after it".to_owned());
        }
        let cleaned = clean(text);
        if cleaned.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { brings_back, pattern: pieces(&cleaned)? }))
    }

    fn matches_with_parents(&self, path: &str) -> bool {
        let parents =
            path.char_indices().filter(|(_, character)| *character == '/').map(|(at, _)| &path[..at]);
        std::iter::once(path).chain(parents).any(|path| {
            let characters: Vec<char> = path.chars().collect();
            matches(&self.pattern, &characters)
        })
    }
}

/// Without leading, doubled and trailing slashes, `.` and `..`.
fn clean(pattern: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in pattern.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join("/")
}

fn pieces(pattern: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = pattern.chars().peekable();
    while let Some(character) = rest.next() {
        pieces.push(match character {
            '*' if rest.next_if_eq(&'*').is_some() => {
                rest.next_if_eq(&'/');
                if rest.peek().is_none() { Piece::Rest } else { Piece::Folders }
            }
            '*' => Piece::Some,
            '?' => Piece::One,
            '[' => among(&mut rest).ok_or_else(|| format!("`{pattern}`: the bracket is not closed"))?,
            '\\' => Piece::Exactly(
                rest.next().ok_or_else(|| format!("`{pattern}`: nothing follows the backslash"))?,
            ),
            other => Piece::Exactly(other),
        });
    }
    Ok(pieces)
}

fn among(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Piece> {
    let negated = rest.next_if(|character| matches!(character, '^' | '!')).is_some();
    let mut ranges = Vec::new();
    loop {
        let first = match rest.next()? {
            ']' if !ranges.is_empty() => return Some(Piece::Among { negated, ranges }),
            '\\' => rest.next()?,
            other => other,
        };
        let last = if rest.next_if_eq(&'-').is_some() {
            match rest.next()? {
                ']' => {
                    ranges.extend([(first, first), ('-', '-')]);
                    return Some(Piece::Among { negated, ranges });
                }
                '\\' => rest.next()?,
                other => other,
            }
        } else {
            first
        };
        ranges.push((first, last));
    }
}

fn matches(pattern: &[Piece], path: &[char]) -> bool {
    let Some((piece, further)) = pattern.split_first() else { return path.is_empty() };
    match piece {
        Piece::Rest => true,
        Piece::Some => {
            let name = path.iter().position(|character| *character == '/').unwrap_or(path.len());
            (0..=name).any(|taken| matches(further, &path[taken..]))
        }
        Piece::Folders => {
            let starts =
                path.iter().enumerate().filter(|(_, character)| **character == '/').map(|(at, _)| at + 1);
            std::iter::once(0).chain(starts).any(|start| matches(further, &path[start..]))
        }
        Piece::Exactly(_) | Piece::One | Piece::Among { .. } => {
            path.split_first().is_some_and(|(first, rest)| piece.is(*first) && matches(further, rest))
        }
    }
}

impl Piece {
    fn is(&self, character: char) -> bool {
        match self {
            Self::Exactly(expected) => *expected == character,
            Self::One => character != '/',
            Self::Among { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&character)) != *negated
            }
            Self::Some | Self::Folders | Self::Rest => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(text: &str, path: &str) -> bool {
        Rules::parse(text).unwrap().leave_out(path)
    }

    #[test]
    fn a_pattern_leaves_out_what_it_matches_and_all_below() {
        let cases = [
            ("node_modules", "node_modules/a/b.js", true),
            ("node_modules", "web/node_modules/a.js", false),
            ("**/node_modules", "web/node_modules/a.js", true),
            ("**/node_modules", "node_modules/a.js", true),
            ("*.log", "x.log", true),
            ("*.log", "a/x.log", false),
            ("**/*.log", "a/b/x.log", true),
            ("a/**", "a/b/c", true),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "ab/z", false),
            ("**", "anything/at/all", true),
            ("*", "anything/at/all", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("/rooted", "rooted", true),
            ("./dotted/", "dotted/x", true),
            ("a/../b", "b", true),
            ("[a-c].txt", "b.txt", true),
            ("[^a-c].txt", "b.txt", false),
            ("[a-]", "-", true),
            (r"\*", "*", true),
            (r"\*", "x", false),
            ("**.go", "a/.go", true),
            ("dir", "directory", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(left_out(pattern, path), expected, "{pattern:?} on {path:?}");
        }
    }

    #[test]
    fn the_last_line_that_matches_decides() {
        let text = "*\n!src\n!Cargo.toml\nsrc/secret\n";
        assert!(left_out(text, "README.md"));
        assert!(!left_out(text, "src/main.rs"));
        assert!(!left_out(text, "Cargo.toml"));
        assert!(left_out(text, "src/secret/key"));
        assert!(!left_out("docs\n!docs/keep.md", "docs/keep.md"));
        assert!(left_out("docs\n!docs/keep.md", "docs/other.md"));
    }

    #[test]
    fn comments_and_empty_lines_say_nothing() {
        let text = "\u{feff}# *\n\n   \n  x  \n #y\n";
        assert!(left_out(text, "x"));
        assert!(!left_out(text, "z"));
        assert!(left_out(text, "#y"));
    }

    #[test]
    fn what_makes_no_sense_is_told_with_its_line() {
        assert_eq!(Rules::parse("a\n!\n").unwrap_err().0, 2);
        assert_eq!(Rules::parse("a\nb\n[x\n").unwrap_err().0, 3);
        assert_eq!(Rules::parse("x\\").unwrap_err().0, 1);
    }

    #[test]
    fn the_dockerfile_is_sent_even_if_ignored_and_env_files_never_are() {
        let mut rules = Rules::parse("*\n!.env").unwrap();
        rules.keep(&["Dockerfile", ".dockerignore"]);
        rules.never(&[".env".to_owned(), ".env.*".to_owned()]).unwrap();
        assert!(!rules.leave_out("Dockerfile"));
        assert!(rules.leave_out(".env"));
        assert!(rules.leave_out(".env.production"));
    }

    #[test]
    fn a_folder_is_skipped_only_if_nothing_below_can_come_back() {
        let rules = |text: &str| Rules::parse(text).unwrap();
        assert!(rules("node_modules").leave_out_folder("node_modules"));
        assert!(!rules("docs\n!docs/keep.md").leave_out_folder("docs"));
        let mut kept = rules("build");
        kept.keep(&["build/Dockerfile"]);
        assert!(!kept.leave_out_folder("build"));
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        let text = "**/a*a*a*a*b";
        let path = format!("{}/{}", "x/".repeat(20), "a".repeat(60));
        assert!(!left_out(text, &path));
    }
}
