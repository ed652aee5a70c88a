//! Every deadline and limit of the data plane, with its default: the one place to look for "how long" and "how many".

use std::time::Duration;

/// How long each phase may take, and how much of everything there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From the first byte of a request's head (or from the connection's start) to its last.
    pub request_head: Duration,
    /// A connection without a request on it.
    pub idle: Duration,
    /// Between two pieces of a request's body, while somebody waits for them.
    pub request_body: Duration,
    /// Without a byte of an answer taken by the client.
    pub response_write: Duration,
    /// Instead of the last two while others wait for the client's target to be empty. At most these.
    pub hurry: Duration,
    /// How long a connection that was closed is still read from: what a client was sending must not cost it the answer.
    pub linger: Duration,
    /// And how many bytes.
    pub linger_bytes: usize,
    /// To connect to a target.
    pub connect: Duration,
    /// New connections to a target that may be without a first answer at once: what overflows a target's queue is lost for seconds.
    pub knocking: usize,
    /// To how many that may grow while requests wait.
    pub knocking_most: usize,
    /// How long a new connection without an answer counts as one of those.
    pub doubt: Duration,
    /// How long a request that no target takes is offered again: an instance that was killed is back within a second.
    pub restart: Duration,
    /// Between two such offers.
    pub offer_again: Duration,
    /// From a request's last piece to the head of the target's answer.
    pub response_head: Duration,
    /// A connection to a target without a request on it. Below what targets allow (5 s is common), so that they never close first.
    pub target_idle: Duration,
    /// How long a target that refused a connection is passed over while there are others.
    pub passed_over: Duration,
    /// To say goodbye on a WebSocket.
    pub goodbye: Duration,
    /// From the wish to stop to the earliest end of accepting: meanwhile each answer closes its connection, so that who has an idle one finds
    /// it working once more and comes back on a new one, to the successor.
    pub farewell: Duration,
    /// From there to the end of the requests that began before the wish, and of those in a hold: meanwhile others are taken in.
    pub leaving: Duration,
    /// From the end of accepting to the end of the last request.
    pub shutdown: Duration,
    /// Bytes of a request's head. (Its headers are at most 100: hyper's own bound, which costs no allocation.)
    pub head_bytes: usize,
    /// Bytes that are buffered on one connection, at least 8192.
    pub buffer: usize,
    /// Connections of clients; lowered to what the process may have open. Past them the longest idle one is closed for the next, and
    /// where none is idle nobody is accepted.
    pub connections: usize,
    /// Targets that have left the table and are idle, whose figures are still told.
    pub departed: usize,
    /// Bytes of one line on the control socket.
    pub control_line: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            request_body: Duration::from_secs(30),
            response_write: Duration::from_mins(1),
            hurry: Duration::from_secs(3),
            linger: Duration::from_secs(2),
            linger_bytes: 16 * 1024 * 1024,
            connect: Duration::from_secs(2),
            knocking: 8,
            knocking_most: 64,
            doubt: Duration::from_millis(200),
            restart: Duration::from_secs(2),
            offer_again: Duration::from_millis(50),
            response_head: Duration::from_mins(1),
            target_idle: Duration::from_secs(4),
            passed_over: Duration::from_secs(1),
            goodbye: Duration::from_secs(1),
            farewell: Duration::from_millis(500),
            leaving: Duration::from_secs(25),
            shutdown: Duration::from_secs(10),
            head_bytes: 32 * 1024,
            buffer: 64 * 1024,
            connections: 16_384,
            departed: 16,
            control_line: 16 * 1024 * 1024,
        }
    }
}
