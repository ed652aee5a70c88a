//! Others' words on a terminal: colours stay, whatever else would steer it is shown instead of done. An app's log line, a build's output or a
//! name that somebody gave themselves could otherwise paint over what is said here, or write the clipboard.

use std::borrow::Cow;
use std::iter::Peekable;
use std::str::Chars;

const ESCAPE: char = '\u{1b}';
const RESET: &str = "\u{1b}[0m";
/// The pictures of the control characters, in their order (U+2400 for U+0000).
const PICTURES: u32 = 0x2400;
const DELETE: char = '\u{7f}';

/// The text with its lines kept apart, each harmless.
pub(super) fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains(|letter: char| letter.is_control() && !matches!(letter, '\n' | '\t')) {
        return Cow::Borrowed(text);
    }
    // Where a line ends with CR LF only the LF is of its end here.
    let lines: Vec<String> =
        text.split('\n').map(|line| harmless_line(line.trim_end_matches('\r'))).collect();
    Cow::Owned(lines.join("\n"))
}

/// One line: colours and tabs as they are, every other control character as its picture; colours end with it.
pub(super) fn harmless_line(line: &str) -> String {
    let mut safe = String::with_capacity(line.len());
    let mut letters = line.chars().peekable();
    let mut coloured = false;
    while let Some(letter) = letters.next() {
        match letter {
            ESCAPE => match colours(&letters) {
                Some((sequence, rest)) => {
                    coloured = !matches!(sequence.as_str(), "[m" | "[0m");
                    safe.push(ESCAPE);
                    safe.push_str(&sequence);
                    letters = rest;
                }
                None => safe.push(picture(ESCAPE)),
            },
            '\t' => safe.push('\t'),
            control if control.is_control() => safe.push(picture(control)),
            other => safe.push(other),
        }
    }
    if coloured {
        safe.push_str(RESET);
    }
    safe
}

/// What follows an escape, where it only sets colours and weight (`[…m`), and what comes after it.
fn colours<'line>(after: &Peekable<Chars<'line>>) -> Option<(String, Peekable<Chars<'line>>)> {
    let mut rest = after.clone();
    let mut sequence = String::from(rest.next_if_eq(&'[')?);
    loop {
        let letter = rest.next()?;
        sequence.push(letter);
        match letter {
            '0'..='9' | ';' | ':' => {}
            'm' => return Some((sequence, rest)),
            _ => return None,
        }
    }
}

fn picture(control: char) -> char {
    let picture = match control {
        DELETE => char::from_u32(PICTURES + 0x21),
        '\0'..='\u{1f}' => char::from_u32(PICTURES + u32::from(control)),
        _ => None,
    };
    picture.unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_tabs_stay_and_end_with_the_line() {
        assert_eq!(harmless("a\tb\nc"), "a\tb\nc");
        assert_eq!(harmless("\u{1b}[1;31mred\u{1b}[0m"), "\u{1b}[1;31mred\u{1b}[0m");
        assert_eq!(harmless("\u{1b}[38:5:9mred\nnext"), "\u{1b}[38:5:9mred\u{1b}[0m\nnext");
    }

    #[test]
    fn what_steers_a_terminal_is_shown_and_not_done() {
        for (given, shown) in [
            // The clipboard.
            ("\u{1b}]52;c;c2VjcmV0\u{7}", "␛]52;c;c2VjcmV0␇"),
            ("\u{1b}[2K\u{1b}[1Adone", "␛[2K␛[1Adone"),
            ("failed\rdone  ", "failed␍done  "),
            // The same as one character each: CSI, OSC, NEL.
            ("\u{9b}2K\u{9d}52;c;x\u{9c}\u{85}", "�2K�52;c;x��"),
            // No colours, though it ends as they do.
            ("\u{1b}[>4;2m\u{1b}[?1m", "␛[>4;2m␛[?1m"),
            ("\u{1b}", "␛"),
            ("\u{1b}[31", "␛[31"),
            ("\u{8}\u{b}\u{7f}\u{1b}c", "␈␋␡␛c"),
        ] {
            assert_eq!(harmless(given), shown, "{given:?}");
        }
    }

    #[test]
    fn a_line_of_another_system_is_a_line() {
        assert_eq!(harmless("one\r\ntwo\r\n"), "one\ntwo\n");
    }

    #[test]
    fn a_name_cannot_begin_a_line() {
        assert_eq!(harmless_line("ada\ndone: all"), "ada␊done: all");
    }
}
