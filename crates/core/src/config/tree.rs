//! YAML as a tree with positions: anchors and merge keys resolved, duplicate keys reported, size and depth bounded. The only file that
//! knows the YAML library.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::problem::{Draft, Issues, ProblemKind};
use crate::template::Template;

/// Nodes of one file, aliases written out: more is an alias bomb, not a configuration.
const MOST_NODES: usize = 20_000;
/// Levels of nesting.
const MOST_DEPTH: usize = 48;

/// Where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    /// Index of the file.
    pub(crate) file: usize,
    /// First byte.
    pub(crate) start: usize,
    /// One past the last byte.
    pub(crate) end: usize,
    /// Of the first byte, from 1.
    pub(crate) line: usize,
    /// Of the first byte, in characters, from 1.
    pub(crate) column: usize,
}

/// A value with its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
    pub(crate) tag: Tag,
}

/// What Compose's merge tags say of a value that overrides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    Plain,
    /// `!reset`: the value goes.
    Reset,
    /// `!override`: it replaces, instead of being merged.
    Override,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Scalar {
        text: String,
        /// Quoted, or a block: always text.
        quoted: bool,
        /// What of the text is still open after the public references were filled.
        open: Option<Template>,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) span: Span,
}

impl Node {
    pub(crate) fn scalar(text: impl Into<String>, span: Span) -> Self {
        Self { span, value: Value::Scalar { text: text.into(), quoted: true, open: None }, tag: Tag::Plain }
    }

    pub(crate) fn map(entries: Vec<(Key, Node)>, span: Span) -> Self {
        Self { span, value: Value::Map(entries), tag: Tag::Plain }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        self.entries().iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Node> {
        match &mut self.value {
            Value::Map(entries) => entries.iter_mut().find(|(key, _)| key.text == name).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The entries of a map; of anything else none.
    pub(crate) fn entries(&self) -> &[(Key, Node)] {
        if let Value::Map(entries) = &self.value { entries } else { &[] }
    }

    /// The items of a list; of anything else none.
    pub(crate) fn items(&self) -> &[Node] {
        if let Value::List(items) = &self.value { items } else { &[] }
    }

    /// The text of a scalar, filled or not.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Value::Scalar { text, .. } = &self.value { Some(text) } else { None }
    }

    /// What it is, for people.
    pub(crate) fn found(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Scalar { text, quoted: true, .. } => format!("the text {text:?}"),
            Value::Scalar { text, .. } => format!("`{text}`"),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }
}

/// Reads a file. `None`: nothing in it, or not YAML (then the problem is among the issues).
pub(crate) fn read(text: &str, file: usize, issues: &mut Issues) -> Option<Node> {
    // A byte order mark is not part of the first key.
    let shown = text.strip_prefix('\u{feff}').unwrap_or(text);
    let places = Places::new(shown, text.len() - shown.len(), file);
    let mut builder = Builder::new();
    for event in Parser::new_from_str(shown) {
        let taken = match event {
            Ok((event, span)) => builder.take(event, places.span(span), issues),
            Err(error) => Err((error.info().to_owned(), places.point(*error.marker()))),
        };
        match taken {
            Ok(Step::Goes) => {}
            Ok(Step::Ends) => break,
            Err((what, span)) => {
                issues.add(syntax(&what, span));
                return None;
            }
        }
    }
    builder.root.filter(|node| !matches!(node.value, Value::Null))
}

fn syntax(what: &str, span: Span) -> Draft {
    // The library's words choose a hint and nothing else.
    let hint = if what.contains("tabs") {
        Some("YAML is indented with spaces, never with tabs")
    } else if what.contains("flow mapping") {
        Some("between `{` and `}`, text with `${…}`, `,`, `{` or `: ` in it needs quotes")
    } else {
        None
    };
    let draft = Draft::new(ProblemKind::Syntax, span, "", format!("this is not YAML: {what}"));
    if let Some(hint) = hint { draft.remedy(hint) } else { draft }
}

/// From the library's lines and columns to bytes.
struct Places<'t> {
    text: &'t str,
    lines: Vec<usize>,
    /// Columns are bytes then.
    ascii: bool,
    offset: usize,
    file: usize,
}

impl<'t> Places<'t> {
    fn new(text: &'t str, offset: usize, file: usize) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, lines, ascii: text.is_ascii(), offset, file }
    }

    fn byte(&self, marker: saphyr_parser::Marker) -> usize {
        let start = self.lines.get(marker.line().max(1) - 1).copied().unwrap_or(self.text.len());
        if self.ascii {
            return (start + marker.col()).min(self.text.len());
        }
        let rest = &self.text[start..];
        start + rest.char_indices().nth(marker.col()).map_or(rest.len(), |(at, _)| at)
    }

    fn span(&self, span: saphyr_parser::Span) -> Span {
        let (start, end) = (self.byte(span.start), self.byte(span.end));
        Span {
            file: self.file,
            start: start + self.offset,
            end: end.max(start) + self.offset,
            line: span.start.line().max(1),
            column: span.start.col() + 1,
        }
    }

    /// One character, for what has no length.
    fn point(&self, marker: saphyr_parser::Marker) -> Span {
        let mut span = self.span(saphyr_parser::Span::empty(marker));
        let rest = self.text.get(span.start - self.offset..).unwrap_or_default();
        span.end += rest.chars().next().map_or(0, char::len_utf8);
        span
    }
}

enum Step {
    Goes,
    Ends,
}

type Broken = (String, Span);

/// A list or map that is not closed yet.
struct Frame {
    span: Span,
    anchor: usize,
    tag: Tag,
    kind: FrameKind,
}

enum FrameKind {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, key: Option<Key> },
}

struct Builder {
    stack: Vec<Frame>,
    anchors: BTreeMap<usize, (Node, usize)>,
    nodes: usize,
    documents: usize,
    root: Option<Node>,
}

impl Builder {
    fn new() -> Self {
        Self { stack: Vec::new(), anchors: BTreeMap::new(), nodes: 0, documents: 0, root: None }
    }

    fn take(&mut self, event: Event<'_>, span: Span, issues: &mut Issues) -> Result<Step, Broken> {
        match event {
            Event::StreamEnd => return Ok(Step::Ends),
            Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err((
                        "a second document begins here; one file is one configuration".to_owned(),
                        span,
                    ));
                }
            }
            Event::Alias(id) => self.alias(id, span, issues)?,
            Event::Scalar(text, style, anchor, tag) => {
                let node = Node { span, value: scalar(&text, style), tag: tag_of(tag.as_deref()) };
                self.put(node, anchor, issues)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(span, anchor, tag_of(tag.as_deref()), FrameKind::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                let kind = FrameKind::Map { entries: Vec::new(), key: None };
                self.open(span, anchor, tag_of(tag.as_deref()), kind)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span, issues)?,
        }
        Ok(Step::Goes)
    }

    fn open(&mut self, span: Span, anchor: usize, tag: Tag, kind: FrameKind) -> Result<(), Broken> {
        if self.stack.len() >= MOST_DEPTH {
            return Err((format!("it is nested deeper than {MOST_DEPTH} levels"), span));
        }
        self.stack.push(Frame { span, anchor, tag, kind });
        Ok(())
    }

    fn close(&mut self, end: Span, issues: &mut Issues) -> Result<(), Broken> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let (value, last) = match frame.kind {
            FrameKind::List(items) => {
                let last = items.last().map(|node| node.span.end);
                (Value::List(items), last)
            }
            FrameKind::Map { entries, .. } => {
                let last = entries.last().map(|(_, node)| node.span.end);
                (Value::Map(merged(entries, issues)), last)
            }
        };
        // A block ends where its last value does; only a flow collection has an end mark of its own.
        let end = if end.end > end.start { end.end } else { last.unwrap_or(frame.span.end) };
        let span = Span { end: end.max(frame.span.start), ..frame.span };
        self.put(Node { span, value, tag: frame.tag }, frame.anchor, issues)
    }

    fn alias(&mut self, id: usize, span: Span, issues: &mut Issues) -> Result<(), Broken> {
        let (node, size) = self
            .anchors
            .get(&id)
            .ok_or_else(|| ("this alias stands inside its own anchor".to_owned(), span))?;
        let (node, size) = (node.clone(), *size);
        self.nodes += size;
        if self.nodes > MOST_NODES {
            return Err((format!("with its aliases written out it has more than {MOST_NODES} values"), span));
        }
        // As a key it is pointed at where it stands; as a value where it is written, for that is where it can be mended.
        let as_key = matches!(self.stack.last(), Some(Frame { kind: FrameKind::Map { key: None, .. }, .. }));
        let node = if as_key { Node { span, ..node } } else { node };
        self.put(node, 0, issues)
    }

    /// Puts a finished value where it belongs.
    fn put(&mut self, node: Node, anchor: usize, issues: &mut Issues) -> Result<(), Broken> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            return Err((format!("it has more than {MOST_NODES} values"), node.span));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), size(&node)));
        }
        match self.stack.last_mut().map(|frame| &mut frame.kind) {
            None => self.root = Some(node),
            Some(FrameKind::List(items)) => items.push(node),
            Some(FrameKind::Map { entries, key }) => match key.take() {
                None => *key = Some(as_key(node)?),
                Some(key) => insert(entries, key, node, issues),
            },
        }
        Ok(())
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Null | Value::Scalar { .. } => 0,
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|(_, node)| size(node)).sum(),
    }
}

fn as_key(node: Node) -> Result<Key, Broken> {
    match node.value {
        Value::Scalar { text, .. } => Ok(Key { text, span: node.span }),
        Value::Null => Err(("a key is empty".to_owned(), node.span)),
        Value::List(_) | Value::Map(_) => Err(("a key is a word, not a list or a map".to_owned(), node.span)),
    }
}

fn insert(entries: &mut Vec<(Key, Node)>, key: Key, node: Node, issues: &mut Issues) {
    match entries.iter().find(|(known, _)| known.text == key.text) {
        // Several merge keys are accepted, as most readers do.
        Some((first, _)) if key.text != "<<" => {
            let what = format!("key `{}` is given twice", key.text);
            let draft = Draft::new(ProblemKind::Syntax, key.span, &key.text, what);
            issues.add(draft.also(first.span).remedy("keep one of the two"));
        }
        _ => entries.push((key, node)),
    }
}

/// Resolves `<<`: what is written out wins over what is merged, an earlier map over a later one.
fn merged(entries: Vec<(Key, Node)>, issues: &mut Issues) -> Vec<(Key, Node)> {
    let (merges, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| key.text == "<<");
    for (key, node) in merges {
        let maps = match node.value {
            Value::Map(_) => vec![node],
            Value::List(items) => items,
            _ => Vec::new(),
        };
        if maps.iter().any(|map| !matches!(map.value, Value::Map(_))) || maps.is_empty() {
            let what = "`<<` takes a map, or a list of maps";
            issues.add(Draft::new(ProblemKind::Type, key.span, "<<", what));
        }
        for map in maps {
            let Value::Map(others) = map.value else { continue };
            for (key, node) in others {
                if !own.iter().any(|(known, _)| known.text == key.text) {
                    own.push((key, node));
                }
            }
        }
    }
    own
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    let plain = matches!(style, ScalarStyle::Plain);
    if plain && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    Value::Scalar { text: text.to_owned(), quoted: !plain, open: None }
}

fn tag_of(tag: Option<&saphyr_parser::Tag>) -> Tag {
    match tag.map(|tag| tag.suffix.as_str()) {
        Some("reset") => Tag::Reset,
        Some("override") => Tag::Override,
        _ => Tag::Plain,
    }
}
