//! Many cases on several servers at once: most of a case is waiting. A server goes from case to case, and is left where one failed.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};

use cutover_testkit::machine::{Image, Machine};
use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::{Case, Kind, Matrix, Row, table};
use crate::servers::started;

/// So many servers at once: two cores are then busy, and not so busy that what is waited for comes late.
const LANES: usize = 6;

/// What is still to be tried, and what came of the rest.
struct Book {
    cases: Mutex<VecDeque<Case>>,
    rows: Mutex<Vec<Row>>,
    failed: Mutex<Vec<String>>,
}

/// Tries all of them.
///
/// # Panics
/// When one failed, once all have been tried.
#[expect(clippy::print_stdout, reason = "a part of tests: it says its numbers")]
pub async fn try_all(name: &str, kind: Kind, image: Image, cases: Vec<Case>) {
    // Its image is made first: meanwhile the engine may answer nobody, and a lane that heard nothing would end with its case.
    if let Err(why) = started(image).await {
        return not_run(name, &why);
    }
    let lanes = LANES.min(cases.len());
    let book = Book { cases: Mutex::new(cases.into()), rows: Mutex::default(), failed: Mutex::default() };
    join_all((0..lanes).map(|_| lane(name, kind, image, &book))).await;
    println!("{}", table(&taken(&book.rows)));
    let failed = taken(&book.failed);
    assert!(failed.is_empty(), "{} failed: {}", failed.len(), failed.join("; "));
}

async fn lane(name: &str, kind: Kind, image: Image, book: &Book) {
    while let Some(case) = book.next() {
        match started(image).await {
            Err(why) => return not_run(name, &why),
            Ok(machine) => one_server(kind, &machine, case, book).await,
        }
    }
}

/// From this case on, until there is none left or one failed.
async fn one_server(kind: Kind, machine: &Machine, first: Case, book: &Book) {
    let begun = AssertUnwindSafe(Matrix::of(kind, machine)).catch_unwind().await;
    let Ok(mut matrix) = begun else { return book.failed(format!("a server for {first}")) };
    let mut next = Some(first);
    while let Some(case) = next {
        if AssertUnwindSafe(matrix.case(case)).catch_unwind().await.is_err() {
            return book.failed(case.to_string());
        }
        next = book.next();
    }
    match AssertUnwindSafe(matrix.end()).catch_unwind().await {
        Ok(rows) => book.rows.lock().unwrap_or_else(PoisonError::into_inner).extend(rows),
        Err(_) => book.failed("the end of a server's cases".to_owned()),
    }
}

impl Book {
    fn next(&self) -> Option<Case> {
        self.cases.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn failed(&self, what: String) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

fn taken<T: Default>(of: &Mutex<T>) -> T {
    std::mem::take(&mut of.lock().unwrap_or_else(PoisonError::into_inner))
}

#[expect(clippy::print_stdout, reason = "the table of suites reads this line")]
fn not_run(name: &str, why: &str) {
    println!("not run: {name}: {why}");
}
