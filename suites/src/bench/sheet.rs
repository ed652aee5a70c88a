//! What was measured: rows with their goals, what could not be measured and why, and on what machine.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::figures::Figure;
use super::telling;

/// One thing that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    #[serde(flatten)]
    pub(crate) figure: Figure,
    /// At most so much.
    pub(crate) goal: Option<f64>,
    /// Whether the median is within the goal.
    pub(crate) met: Option<bool>,
    /// What one should know of it.
    pub(crate) note: Option<String>,
}

/// Rows that belong together.
#[derive(Debug, Serialize)]
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) rows: Vec<Row>,
    /// What of it could not be measured, and why.
    pub(crate) not_run: Vec<String>,
}

impl Section {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, rows: Vec::new(), not_run: Vec::new() }
    }

    /// Says that something could not be measured.
    pub(crate) fn not_run(&mut self, why: impl Into<String>) {
        self.not_run.push(why.into());
    }

    /// Adds what was measured; nothing where there are no samples.
    pub(crate) fn row(&mut self, name: impl Into<String>, unit: &'static str, samples: &[f64]) -> Added<'_> {
        let figure = Figure::of(samples);
        let row = figure.map(|figure| {
            self.rows.push(Row { name: name.into(), unit, figure, goal: None, met: None, note: None });
        });
        Added(row.and_then(|()| self.rows.last_mut()))
    }
}

/// A row that was just added, for what else is to be said of it.
pub(crate) struct Added<'a>(Option<&'a mut Row>);

impl Added<'_> {
    pub(crate) fn goal(mut self, most: f64) -> Self {
        if let Some(row) = &mut self.0 {
            row.goal = Some(most);
            row.met = Some(row.figure.median <= most);
        }
        self
    }

    pub(crate) fn note(self, text: impl Into<String>) {
        if let Some(row) = self.0 {
            row.note = Some(text.into());
        }
    }
}

/// The machine, as far as it matters to the figures.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    processors: usize,
    kernel: String,
    /// Of the last minute, before anything was measured: a busy machine's times say little, its ratios more.
    load_before: String,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let kernel = rustix::system::uname();
        Self {
            processors: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            kernel: kernel.release().to_string_lossy().into_owned(),
            load_before: std::fs::read_to_string("/proc/loadavg")
                .ok()
                .and_then(|text| Some(text.split_whitespace().next()?.to_owned()))
                .unwrap_or_default(),
        }
    }

    pub(crate) fn text(&self) -> String {
        format!("{} processors, Linux {}, load {}", self.processors, self.kernel, self.load_before)
    }
}

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct Sheet {
    pub(crate) machine: Machine,
    pub(crate) sections: Vec<Section>,
    took_s: f64,
}

impl Sheet {
    pub(crate) fn new(machine: Machine) -> Self {
        Self { machine, sections: Vec::new(), took_s: 0.0 }
    }

    /// Shows a section and keeps it.
    pub(crate) fn add(&mut self, section: Section) {
        telling::section(&section);
        self.sections.push(section);
    }

    /// Writes it as JSON.
    pub(crate) fn write(&mut self, file: &Path, took: Duration) -> anyhow::Result<()> {
        self.took_s = took.as_secs_f64();
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(file, text + "\n").with_context(|| format!("{} was not written", file.display()))
    }
}
