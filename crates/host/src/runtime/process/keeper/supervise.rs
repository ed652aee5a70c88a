//! The life of one instance under its keeper: up, clearing what its end left, pausing before the next start, over. Every change is noted in
//! the instance's folder before anyone is told of it.

use std::fs::File;
use std::time::Duration;

use cutover_core::state::{ExitStatus, RestartPolicy, Role};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, WaitStatus};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::super::folder::{self, Folder, Phase, Record, State};
use super::super::output::{Kind, LogFile, Stream};
use super::super::processes::ProcessId;
use super::super::protocol::{Answer, Ask, Report};
use super::super::signals;
use super::backoff::Backoff;
use super::children::{self, Reaped};
use super::ears::Ears;
use super::serve::{Question, Server};
use super::spawn::{self, Child};
use crate::runtime::memory;

/// What a supervisor is made from.
pub(super) struct Parts {
    pub(super) folder: Folder,
    pub(super) record: Record,
    pub(super) ears: Ears,
    pub(super) lock: File,
    pub(super) streams: Vec<Stream>,
    pub(super) server: Server,
    pub(super) asked: mpsc::Receiver<Question>,
    pub(super) policy: RestartPolicy,
    pub(super) boot: String,
    pub(super) keeper: ProcessId,
}

/// One instance's supervisor.
pub(super) struct Supervisor {
    parts: Parts,
    log: LogFile,
    backoff: Backoff,
    restarts: u32,
    now: Now,
    awaiting_end: Vec<oneshot::Sender<Answer>>,
    awaiting_stop: Vec<oneshot::Sender<Answer>>,
}

/// Where the instance stands.
enum Now {
    /// Its first process is there; `stop`: it was told to end.
    Up { child: Child, stop: Option<Stop> },
    /// Its first process has ended; others of it are there.
    Clearing { child: Child, exit: ExitStatus, stop: Option<Stop> },
    /// It will be started again.
    Paused { exit: ExitStatus, until: Instant },
    /// It ended for good.
    Over { exit: ExitStatus },
}

/// An order to end.
#[derive(Clone, Copy)]
struct Stop {
    signal: Signal,
    kill_at: Instant,
    killed: bool,
}

impl Supervisor {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            log: LogFile::new(parts.record.log.clone()),
            backoff: Backoff::new(),
            restarts: 0,
            now: Now::Over { exit: nothing() },
            awaiting_end: Vec::new(),
            awaiting_stop: Vec::new(),
            parts,
        }
    }

    /// Starts the process for the first time.
    pub(super) fn start(&mut self) -> Report {
        self.note(Phase::Starting);
        self.execute().map_or(Report::Started, |error| Report::NotExecuted { error })
    }

    /// Supervises until the instance has ended for good.
    pub(super) async fn run(mut self) {
        while !matches!(self.now, Now::Over { .. }) {
            self.next().await;
        }
        let last = self.answer();
        for waiting in self.awaiting_stop.drain(..).chain(self.awaiting_end.drain(..)) {
            tell(waiting, last.clone());
        }
        while let Ok((ask, waiting)) = self.parts.asked.try_recv() {
            tell(waiting, if ask == Ask::Start { ending() } else { last.clone() });
        }
        let Parts { server, record, lock, .. } = self.parts;
        server.close().await;
        crate::files::discard(&record.socket);
        // The lock goes last: while it is held, nobody starts another keeper.
        drop(lock);
    }

    async fn next(&mut self) {
        let deadline = self.deadline();
        let [output, errors] = &mut *self.parts.streams else { return };
        tokio::select! {
            biased;
            _ = self.parts.ears.child.recv() => self.take_in(),
            Some(question) = self.parts.asked.recv() => self.hear(question),
            _ = self.parts.ears.terminate.recv() => self.shut_down(),
            _ = self.parts.ears.hangup.recv() => self.rebind(),
            _ = self.parts.ears.interrupt.recv() => {}
            _ = self.parts.ears.quit.recv() => {}
            () = until(deadline) => self.time_is_up(),
            () = self.parts.server.accept() => {}
            Ok(()) = output.readable() => { output.take(&mut self.log); }
            Ok(()) = errors.readable() => { errors.take(&mut self.log); }
        }
    }

    /// Starts the process; an error ends it at once, and its policy decides.
    fn execute(&mut self) -> Option<String> {
        self.log.write(Kind::Start, [b"start".as_slice()]);
        match spawn::spawn(&self.parts.folder, &self.parts.record) {
            Ok(child) => {
                self.note(Phase::Running { child: child.id, since: child.since });
                self.now = Now::Up { child, stop: None };
                None
            }
            Err(error) => {
                let text = error.to_string();
                self.log.write(Kind::Keeper, [text.as_bytes()]);
                let exit = ExitStatus { error: Some(text.clone()), at: Some(Timestamp::now()), ..nothing() };
                self.ended(&exit, Duration::ZERO, None);
                Some(text)
            }
        }
    }

    /// Takes in children that have ended.
    fn take_in(&mut self) {
        if let Now::Up { child, stop } = &self.now
            && children::has_ended(child.pid)
        {
            // While the first process is not taken in, its group's number is its own: the rest of the group hears at once.
            children::signal_group(child.pid, stop.map_or(Signal::KILL, Stop::due));
        }
        loop {
            match children::reap() {
                Reaped::Ended(pid, status) => self.one_ended(pid, status),
                Reaped::OthersLive => return self.clear(),
                Reaped::NoneLeft => return self.all_gone(),
            }
        }
    }

    fn one_ended(&mut self, pid: Pid, status: WaitStatus) {
        if let Now::Up { child, stop } = &self.now
            && child.pid == pid
        {
            let (child, stop) = (*child, *stop);
            let outside = children::all()
                .into_iter()
                .filter(|other| rustix::process::getpgid(Some(*other)).is_ok_and(|group| group != child.pid));
            outside.for_each(|other| children::signal_one(other, stop.map_or(Signal::KILL, Stop::due)));
            let mut exit = children::exit(status);
            // A kill of ours is none of the kernel's.
            let by_kernel =
                exit.signal == Some(Signal::KILL.as_raw()) && stop.is_none_or(|stop| !stop.killed);
            exit.out_of_memory =
                by_kernel && memory::kills() > child.kills && memory::was_victim(child.id.pid);
            self.now = Now::Clearing { child, exit, stop };
        }
    }

    /// Kills what its first process left behind, generation by generation: each that ends hands its own children over.
    fn clear(&mut self) {
        if let Now::Clearing { stop, .. } = &self.now
            && stop.is_none_or(|stop| stop.killed)
        {
            children::kill_all();
        }
    }

    fn all_gone(&mut self) {
        if let Now::Clearing { child, exit, stop } = &self.now {
            let (exit, ran, stop) = (exit.clone(), child.begun.elapsed(), *stop);
            self.ended(&exit, ran, stop);
        }
    }

    /// All of it is gone: started again later, or over.
    fn ended(&mut self, exit: &ExitStatus, ran: Duration, stop: Option<Stop>) {
        for stream in &mut self.parts.streams {
            stream.finish(&mut self.log);
        }
        if stop.is_none() && self.parts.policy == RestartPolicy::UnlessStopped {
            self.note(Phase::Restarting { exit: exit.clone() });
            let until = Instant::now() + self.backoff.pause(ran);
            self.now = Now::Paused { exit: exit.clone(), until };
        } else {
            self.over(exit.clone());
        }
        for waiting in self.awaiting_end.drain(..) {
            tell(waiting, Answer::Exit { exit: exit.clone() });
        }
    }

    fn over(&mut self, exit: ExitStatus) {
        let state = self.state(Phase::Exited { exit: exit.clone() });
        let Parts { folder, record, .. } = &self.parts;
        // How a one-off instance ended is what a recovery after a power loss goes by; of others it wants to know that they are gone.
        let recorded = match record.spec.role {
            Role::OneOff => folder.record_state(&state),
            Role::Service | Role::Backing => folder.note_state(&state),
        };
        if let Err(error) = recorded {
            tracing::warn!(%error, "the end of an instance could not be recorded");
        }
        self.now = Now::Over { exit };
    }

    fn hear(&mut self, (ask, waiting): Question) {
        match ask {
            Ask::Status => tell(waiting, self.answer()),
            Ask::Start => {
                let answer = self.start_now();
                tell(waiting, answer);
            }
            Ask::Policy { policy } => {
                self.parts.policy = policy;
                if let (Now::Paused { exit, .. }, RestartPolicy::No) = (&self.now, policy) {
                    self.over(exit.clone());
                }
                tell(waiting, self.answer());
            }
            Ask::Wait => match &self.now {
                Now::Up { .. } | Now::Clearing { .. } => {
                    self.awaiting_end.retain(|waiting| !waiting.is_closed());
                    self.awaiting_end.push(waiting);
                }
                Now::Paused { exit, .. } | Now::Over { exit } => {
                    tell(waiting, Answer::Exit { exit: exit.clone() });
                }
            },
            Ask::Stop { signal, grace_ms } => {
                self.awaiting_stop.push(waiting);
                let signal = Signal::from_named_raw(signal).unwrap_or(Signal::TERM);
                self.stop(signal, Duration::from_millis(grace_ms));
            }
        }
    }

    /// Asked to run: what waits for its next start need not wait; what is ending cannot be kept.
    fn start_now(&mut self) -> Answer {
        match &self.now {
            Now::Up { stop: None, .. } => self.answer(),
            Now::Clearing { stop: None, .. } if self.parts.policy == RestartPolicy::UnlessStopped => {
                self.answer()
            }
            Now::Up { .. } | Now::Clearing { .. } | Now::Over { .. } => ending(),
            Now::Paused { .. } => {
                self.again();
                self.answer()
            }
        }
    }

    /// Starts it again; where it cannot be executed, the state and the log have the cause.
    fn again(&mut self) {
        self.restarts += 1;
        self.execute();
    }

    /// The signal to its first process, or to the rest of it; the kill when the grace is over. A second order can only bring the kill nearer.
    fn stop(&mut self, signal: Signal, grace: Duration) {
        let kill_at = Instant::now() + grace;
        match &mut self.now {
            Now::Up { child, stop } => {
                if let Some(stop) = stop {
                    stop.kill_at = stop.kill_at.min(kill_at);
                    return;
                }
                children::signal_one(child.pid, signal);
                *stop = Some(Stop { signal, kill_at, killed: signal == Signal::KILL });
                let phase = Phase::Ending { child: child.id, since: child.since };
                self.note(phase);
            }
            Now::Clearing { stop: Some(stop), .. } => stop.kill_at = stop.kill_at.min(kill_at),
            // What is left is being killed already; it is not started again.
            Now::Clearing { stop, .. } => *stop = Some(Stop { signal, kill_at, killed: true }),
            Now::Paused { exit, .. } => {
                let exit = exit.clone();
                self.over(exit);
            }
            Now::Over { .. } => {}
        }
    }

    /// The machine goes down, or somebody ended the keeper by hand: the instance ends in good order, its policy stays.
    fn shut_down(&mut self) {
        let stop = &self.parts.record.spec.settings.stop;
        self.stop(signals::stop(stop.signal.as_deref()), stop.grace);
    }

    /// Somebody could not reach us.
    fn rebind(&mut self) {
        let Parts { server, record, .. } = &mut self.parts;
        if let Err(error) = server.rebind(&record.socket) {
            tracing::warn!(%error, "the keeper's socket could not be bound anew");
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.now {
            Now::Up { stop: Some(stop), .. } | Now::Clearing { stop: Some(stop), .. } if !stop.killed => {
                Some(stop.kill_at)
            }
            Now::Paused { until, .. } => Some(*until),
            Now::Up { .. } | Now::Clearing { .. } | Now::Over { .. } => None,
        }
    }

    fn time_is_up(&mut self) {
        match &mut self.now {
            Now::Up { child, stop: Some(stop) } => {
                stop.killed = true;
                children::signal_group(child.pid, Signal::KILL);
                children::kill_all();
            }
            Now::Clearing { stop: Some(stop), .. } => {
                stop.killed = true;
                self.clear();
            }
            Now::Paused { .. } => self.again(),
            Now::Up { .. } | Now::Clearing { .. } | Now::Over { .. } => {}
        }
    }

    fn answer(&self) -> Answer {
        let phase = match &self.now {
            Now::Up { child, stop: None } => Phase::Running { child: child.id, since: child.since },
            Now::Up { child, .. } | Now::Clearing { child, .. } => {
                Phase::Ending { child: child.id, since: child.since }
            }
            Now::Paused { exit, .. } => Phase::Restarting { exit: exit.clone() },
            Now::Over { exit } => Phase::Exited { exit: exit.clone() },
        };
        Answer::State { state: self.state(phase) }
    }

    fn state(&self, phase: Phase) -> State {
        let Parts { boot, keeper, .. } = &self.parts;
        State {
            version: folder::VERSION,
            boot: boot.clone(),
            keeper: *keeper,
            restarts: self.restarts,
            phase,
        }
    }

    /// Notes where the instance stands. A full disk does not keep it from running: what is true is told over the socket, and leftovers are
    /// found by their environment, too.
    fn note(&self, phase: Phase) {
        if let Err(error) = self.parts.folder.note_state(&self.state(phase)) {
            tracing::warn!(%error, "the state of an instance could not be noted");
        }
    }
}

impl Stop {
    /// What the rest of it is sent now.
    fn due(self) -> Signal {
        if self.killed { Signal::KILL } else { self.signal }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn nothing() -> ExitStatus {
    ExitStatus { code: None, signal: None, out_of_memory: false, error: None, at: None }
}

fn ending() -> Answer {
    Answer::Refused { why: "it is ending".to_owned() }
}

fn tell(waiting: oneshot::Sender<Answer>, answer: Answer) {
    if waiting.send(answer).is_err() {
        tracing::debug!("a client went before its answer");
    }
}
