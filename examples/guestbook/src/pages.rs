//! Pages from `pages/*.html`: text with `{{names}}`, whose values are escaped for HTML unless they are markup that
//! was rendered here. No logic in templates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub(crate) enum PageError {
    #[error("{} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("page `{page}` has a `{{{{` that is never closed")]
    NeverClosed { page: String },
    #[error("page `{page}` asks for `{name}`, which nobody gives it")]
    Unknown { page: String, name: String },
    #[error("there is no page `{0}`")]
    NoSuchPage(String),
}

/// What stands for a placeholder.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Text from anywhere; escaped.
    Text(String),
    /// Markup that came out of `Pages::render`.
    Markup(String),
}

pub(crate) type Values = BTreeMap<String, Value>;

#[derive(Debug)]
enum Piece {
    Literal(String),
    Placeholder(String),
}

/// All templates of the release, parsed at the start, so that a broken one is an error of the start.
#[derive(Debug)]
pub(crate) struct Pages {
    templates: BTreeMap<String, Vec<Piece>>,
}

impl Pages {
    pub(crate) fn load(folder: &Path) -> Result<Self, PageError> {
        let read = |source| PageError::Read { path: folder.to_owned(), source };
        let mut templates = BTreeMap::new();
        for item in std::fs::read_dir(folder).map_err(read)? {
            let path = item.map_err(read)?.path();
            let Some(page) = page_name(&path) else { continue };
            let text = std::fs::read_to_string(&path).map_err(|source| PageError::Read { path, source })?;
            let pieces = parse(&page, &text)?;
            templates.insert(page, pieces);
        }
        Ok(Self { templates })
    }

    pub(crate) fn has(&self, page: &str) -> bool {
        self.templates.contains_key(page)
    }

    pub(crate) fn render(&self, page: &str, values: &Values) -> Result<String, PageError> {
        let pieces = self.templates.get(page).ok_or_else(|| PageError::NoSuchPage(page.to_owned()))?;
        let mut markup = String::new();
        for piece in pieces {
            match piece {
                Piece::Literal(text) => markup.push_str(text),
                Piece::Placeholder(name) => match values.get(name) {
                    Some(Value::Text(text)) => escape_into(&mut markup, text),
                    Some(Value::Markup(rendered)) => markup.push_str(rendered),
                    None => return Err(PageError::Unknown { page: page.to_owned(), name: name.clone() }),
                },
            }
        }
        Ok(markup)
    }
}

fn page_name(path: &Path) -> Option<String> {
    let is_page = path.extension().is_some_and(|extension| extension == "html");
    is_page.then(|| path.file_stem().map(|stem| stem.to_string_lossy().into_owned())).flatten()
}

fn parse(page: &str, text: &str) -> Result<Vec<Piece>, PageError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, behind) =
            after.split_once("}}").ok_or_else(|| PageError::NeverClosed { page: page.to_owned() })?;
        pieces.push(Piece::Literal(before.to_owned()));
        pieces.push(Piece::Placeholder(name.trim().to_owned()));
        rest = behind;
    }
    pieces.push(Piece::Literal(rest.to_owned()));
    Ok(pieces)
}

/// Escapes for element content and for attribute values in either kind of quotes.
fn escape_into(markup: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => markup.push_str("&amp;"),
            '<' => markup.push_str("&lt;"),
            '>' => markup.push_str("&gt;"),
            '"' => markup.push_str("&quot;"),
            '\'' => markup.push_str("&#39;"),
            other => markup.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(text: &str) -> Result<Pages, PageError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("index.html"), text).unwrap();
        std::fs::write(folder.path().join("notes.txt"), "{{ no page").unwrap();
        Pages::load(folder.path())
    }

    #[test]
    fn given_text_with_markup_then_it_is_escaped_once_in_content_and_attributes() {
        let values = Values::from([("name".into(), Value::Text(r#"<b onclick='x'>&amp; "you""#.into()))]);
        let page = pages(r#"<p title="{{name}}">{{ name }}</p>"#).unwrap().render("index", &values).unwrap();
        let escaped = "&lt;b onclick=&#39;x&#39;&gt;&amp;amp; &quot;you&quot;";
        assert_eq!(page, format!(r#"<p title="{escaped}">{escaped}</p>"#));
    }

    #[test]
    fn given_a_value_that_looks_like_a_placeholder_then_it_is_not_replaced_again() {
        let values = Values::from([("name".into(), Value::Text("{{name}}".into()))]);
        assert_eq!(pages("{{name}}").unwrap().render("index", &values).unwrap(), "{{name}}");
    }

    #[test]
    fn given_markup_then_it_goes_in_as_it_is() {
        let values = Values::from([("entries".into(), Value::Markup("<li>one</li>".into()))]);
        let page = pages("<ul>{{entries}}</ul>").unwrap().render("index", &values).unwrap();
        assert_eq!(page, "<ul><li>one</li></ul>");
    }

    #[test]
    fn given_a_broken_template_then_the_error_names_page_and_fault() {
        assert_eq!(
            pages("a {{name").unwrap_err().to_string(),
            "page `index` has a `{{` that is never closed"
        );
        let unknown = pages("{{nmae}}").unwrap().render("index", &Values::new()).unwrap_err();
        assert_eq!(unknown.to_string(), "page `index` asks for `nmae`, which nobody gives it");
    }
}
