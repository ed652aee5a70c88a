//! A page of the documentation, as somebody has it before him who types what it says.

use std::collections::VecDeque;
use std::process::Stdio;
use std::time::{Duration, Instant};

use cutover_suites::pages;
use cutover_suites::terminal::Terminal;
use cutover_testkit::site::Told;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::shop::Shop;

/// No command takes longer; `cutover setup` installs packages.
const DEADLINE: Duration = Duration::from_mins(5);

/// The commands of a page that were not typed yet, in its order.
pub(crate) struct Page {
    name: &'static str,
    commands: VecDeque<String>,
}

impl Page {
    pub(crate) fn read(name: &'static str) -> Self {
        Self { name, commands: pages::commands(name) }
    }

    /// The next command, which has to be this one, as a shell gets it.
    fn next(&mut self, shop: &Shop<'_>, expected: &str) -> String {
        let next = self.commands.pop_front();
        assert_eq!(next.as_deref(), Some(expected), "what is next on the page {}", self.name);
        shop.meant(expected)
    }

    /// Types the next command; it does what it says.
    pub(crate) async fn does(&mut self, shop: &Shop<'_>, command: &str) -> String {
        let line = self.next(shop, command);
        typed(shop, &line, "", 0).await
    }

    /// Types the next command, and answers yes to what it asks.
    pub(crate) async fn approves(&mut self, shop: &Shop<'_>, command: &str) -> String {
        let line = self.next(shop, command);
        typed(shop, &line, "", NOBODY_IS_ASKED).await;
        typed(shop, &format!("{line} --yes"), "", 0).await
    }

    /// Types the next command, and this value, which it asks for.
    pub(crate) async fn answers(&mut self, shop: &Shop<'_>, command: &str, value: &str) -> String {
        let line = self.next(shop, command);
        typed(shop, &line, &format!("{value}\n"), 0).await
    }

    /// Types the next command, which ends with this code.
    pub(crate) async fn ends_with(&mut self, shop: &Shop<'_>, command: &str, exit: i32) -> String {
        let line = self.next(shop, command);
        typed(shop, &line, "", exit).await
    }

    /// Types the next command at a terminal, where alone it can be answered.
    pub(crate) async fn agrees(&mut self, shop: &Shop<'_>, command: &str) {
        let line = self.next(shop, command);
        let command = shop.shell(&line);
        let mut terminal = Terminal::with(&command, &shop.app.site().binaries().host).unwrap();
        terminal.shows("Go on? [y/N]").await.unwrap();
        terminal.types("y\r").await.unwrap();
        assert_eq!(terminal.ends().await.unwrap(), Some(0), "{line}");
    }

    /// The next line only says what the commands after it need.
    pub(crate) fn exports(&mut self, shop: &mut Shop<'_>, line: &str) {
        let line = self.next(shop, line);
        shop.export(&line);
    }

    /// That all of it was typed.
    pub(crate) fn ends(self) {
        assert!(self.commands.is_empty(), "{}: nobody types {:?}", self.name, self.commands);
    }
}

/// What `cutover` ends with where it has to ask, and nobody is there.
const NOBODY_IS_ASKED: i32 = 2;

/// Gives a line to a shell, with this on its standard input.
async fn typed(shop: &Shop<'_>, line: &str, input: &str, exit: i32) -> String {
    let began = Instant::now();
    let mut command: Command = shop.shell(line);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    // Who reads nothing may be gone before it comes.
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.ok();
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.unwrap().unwrap();
    let told = Told::new(&output, began.elapsed());
    println!("--- {line} ({exit}, {:.1?})\n{}{}", told.took, told.output, told.talk);
    let told = told.expect(exit).unwrap();
    format!("{}{}", told.output, told.talk)
}
