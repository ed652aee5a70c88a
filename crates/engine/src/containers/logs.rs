//! A container's output, line by line, from its beginning or as it comes.

use std::pin::Pin;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use futures_util::{Stream, StreamExt};
use jiff::Timestamp;

use crate::connect::Engine;
use crate::error::{EngineError, Kind, Subject, explain};

/// Which part of the output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Goes on until the container ends.
    pub follow: bool,
    /// Only so many of the last lines; `None` is all.
    pub tail: Option<u32>,
    /// Only from this moment on.
    pub since: Option<Timestamp>,
}

/// One line, without its line end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Where it was written to.
    pub stream: OutputStream,
    /// When the engine read it.
    pub at: Option<Timestamp>,
    /// What it says; bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// Where a line was written to. With a terminal all of it is `Output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// A line longer than this is handed on in pieces.
const LONGEST_LINE: usize = 256 * 1024;

type Stretch = Pin<Box<dyn Stream<Item = Result<LogLine, EngineError>> + Send>>;

impl Engine {
    /// Output of a container, running or ended, in the order the engine read it.
    pub fn logs(
        &self,
        container: &str,
        query: LogQuery,
    ) -> impl Stream<Item = Result<LogLine, EngineError>> + Send + use<> {
        let reader = Reader {
            stretch: self.stretch(container, query),
            engine: self.clone(),
            container: container.to_owned(),
            catch_up: if query.follow { CatchUp::Later(query) } else { CatchUp::Done },
            last: None,
        };
        futures_util::stream::unfold(reader, |mut reader| async move {
            let line = reader.next().await?;
            Some((line, reader))
        })
    }

    /// One request's worth of output.
    fn stretch(&self, container: &str, query: LogQuery) -> Stretch {
        let options = LogsOptions {
            follow: query.follow,
            stdout: true,
            stderr: true,
            since: query.since.map_or(0, |since| i32::try_from(since.as_second()).unwrap_or(i32::MAX)),
            timestamps: true,
            tail: query.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string()),
            ..LogsOptions::default()
        };
        let frames = self.docker_long().logs(container, Some(options)).boxed();
        let mut lines = Lines { query, ..Lines::default() };
        let container = container.to_owned();
        frames
            .map(Some)
            .chain(futures_util::stream::iter([None]))
            .map(move |frame| match frame {
                Some(Ok(frame)) => lines.take(frame).into_iter().map(Ok).collect(),
                Some(Err(error)) => {
                    vec![Err(
                        explain(Subject::Thing, || format!("read the output of container {container}"))(
                            error,
                        ),
                    )]
                }
                None => lines.rest().into_iter().map(Ok).collect::<Vec<_>>(),
            })
            .flat_map(futures_util::stream::iter)
            .boxed()
    }

    /// The last lines of a container's output, for a diagnosis.
    pub async fn last_lines(&self, container: &str, count: u32) -> Result<Vec<LogLine>, EngineError> {
        let query = LogQuery { tail: Some(count), ..LogQuery::default() };
        let mut stream = std::pin::pin!(self.logs(container, query));
        let mut lines = Vec::new();
        while let Some(line) = stream.next().await {
            lines.push(line?);
        }
        Ok(lines)
    }
}

/// Reads output to its real end. An engine that is followed (20.10 at least) closes when the container ends, often
/// before it has sent the last line if that has no line end: the dying words. So what came last is read once more.
struct Reader {
    engine: Engine,
    container: String,
    stretch: Stretch,
    catch_up: CatchUp,
    /// Time of the last line handed on, and how many lines with that very time were.
    last: Option<(Timestamp, usize)>,
}

#[derive(Clone, Copy)]
enum CatchUp {
    Later(LogQuery),
    Now,
    Done,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<LogLine, EngineError>> {
        loop {
            match (self.stretch.next().await, self.catch_up) {
                (Some(Ok(line)), CatchUp::Now) if self.known(&line) => {}
                (Some(Ok(line)), _) => {
                    self.note(&line);
                    return Some(Ok(line));
                }
                // Removed meanwhile: then there is nothing to catch up with.
                (Some(Err(error)), CatchUp::Now) if matches!(error.kind, Kind::Gone | Kind::Conflict) => {
                    return None;
                }
                (Some(Err(error)), _) => {
                    self.catch_up = CatchUp::Done;
                    return Some(Err(error));
                }
                (None, CatchUp::Later(query)) => {
                    let query = match self.last {
                        Some((since, _)) => LogQuery { follow: false, tail: None, since: Some(since) },
                        None => LogQuery { follow: false, ..query },
                    };
                    self.stretch = self.engine.stretch(&self.container, query);
                    self.catch_up = CatchUp::Now;
                }
                (None, CatchUp::Now | CatchUp::Done) => return None,
            }
        }
    }

    fn note(&mut self, line: &LogLine) {
        let Some(at) = line.at else { return };
        self.last = match self.last {
            Some((last, count)) if last == at => Some((at, count + 1)),
            Some((last, count)) if last > at => Some((last, count)),
            _ => Some((at, 1)),
        };
    }

    /// Whether it was handed on before; uses up one of those with the same time.
    fn known(&mut self, line: &LogLine) -> bool {
        let Some(at) = line.at else { return true };
        match &mut self.last {
            Some((last, count)) if *last == at && *count > 0 => {
                *count -= 1;
                true
            }
            Some((last, _)) => at < *last,
            None => false,
        }
    }
}

/// Puts the engine's frames together to lines: a frame is a piece of at most 16 KiB, each with a time in front.
#[derive(Default)]
struct Lines {
    query: LogQuery,
    output: Piece,
    error: Piece,
}

#[derive(Default)]
struct Piece {
    at: Option<Timestamp>,
    bytes: Vec<u8>,
}

impl Lines {
    fn take(&mut self, frame: LogOutput) -> Vec<LogLine> {
        let stream = match frame {
            LogOutput::StdErr { .. } => OutputStream::Error,
            LogOutput::StdOut { .. } | LogOutput::Console { .. } | LogOutput::StdIn { .. } => {
                OutputStream::Output
            }
        };
        let bytes = frame.into_bytes();
        let (at, text) = timed(&bytes);
        let piece = self.piece(stream);
        piece.at = piece.at.or(at);
        piece.bytes.extend_from_slice(text);
        if piece.bytes.ends_with(b"\n") || piece.bytes.len() >= LONGEST_LINE {
            self.finish(stream)
        } else {
            Vec::new()
        }
    }

    /// What came without a line end before the stream ended.
    fn rest(&mut self) -> Vec<LogLine> {
        let mut lines = self.finish(OutputStream::Output);
        lines.extend(self.finish(OutputStream::Error));
        lines
    }

    fn piece(&mut self, stream: OutputStream) -> &mut Piece {
        match stream {
            OutputStream::Output => &mut self.output,
            OutputStream::Error => &mut self.error,
        }
    }

    fn finish(&mut self, stream: OutputStream) -> Vec<LogLine> {
        let Piece { at, bytes } = std::mem::take(self.piece(stream));
        // The engine takes whole seconds only, so what came earlier in the same second is dropped here.
        let early = self.query.since.is_some_and(|since| at.is_some_and(|at| at < since));
        if bytes.is_empty() || early {
            return Vec::new();
        }
        let text = String::from_utf8_lossy(&bytes);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        vec![LogLine { stream, at, text: text.strip_suffix('\r').unwrap_or(text).to_owned() }]
    }
}

/// Cuts the time off the front, where there is one.
fn timed(bytes: &[u8]) -> (Option<Timestamp>, &[u8]) {
    let Some(space) = bytes.iter().take(40).position(|byte| *byte == b' ') else { return (None, bytes) };
    let at = std::str::from_utf8(&bytes[..space]).ok().and_then(|text| text.parse().ok());
    if at.is_some() { (at, &bytes[space + 1..]) } else { (None, bytes) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn out(text: &'static str) -> LogOutput {
        LogOutput::StdOut { message: Bytes::from_static(text.as_bytes()) }
    }

    #[test]
    fn a_line_in_two_frames_is_one_line_with_the_first_time() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(out("2026-11-21T10:00:00.5Z first ")), []);
        let got = lines.take(out("2026-11-21T10:00:00.6Z half\r\n"));
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].text, "first half");
        assert_eq!(got[0].at, Some("2026-11-21T10:00:00.5Z".parse().unwrap()));
    }

    #[test]
    fn a_last_line_without_an_end_is_kept() {
        let mut lines = Lines::default();
        lines.take(out("2026-11-21T10:00:00Z dying words"));
        assert_eq!(lines.rest()[0].text, "dying words");
        assert_eq!(lines.rest(), []);
    }

    #[test]
    fn lines_of_the_same_second_before_since_are_dropped() {
        let since = Some("2026-11-21T10:00:00.5Z".parse().unwrap());
        let mut lines = Lines { query: LogQuery { since, ..LogQuery::default() }, ..Lines::default() };
        assert_eq!(lines.take(out("2026-11-21T10:00:00.4Z before\n")), []);
        assert_eq!(lines.take(out("2026-11-21T10:00:00.6Z after\n")).len(), 1);
    }

    #[test]
    fn the_two_streams_are_not_mixed() {
        let mut lines = Lines::default();
        lines.take(out("2026-11-21T10:00:00Z half"));
        let error = LogOutput::StdErr { message: Bytes::from_static(b"2026-11-21T10:00:00Z oops\n") };
        let got = lines.take(error);
        assert_eq!((got[0].stream, got[0].text.as_str()), (OutputStream::Error, "oops"));
    }
}
