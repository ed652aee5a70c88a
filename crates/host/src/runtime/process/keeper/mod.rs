//! The keeper: the small process that supervises one instance. It begins in a session of its own, outlives whoever started it, and ends with
//! the instance. It decides nothing but when a crashed process is started again.

mod backoff;
mod begin;
mod children;
mod ears;
mod limits;
mod serve;
mod spawn;
mod supervise;

use std::path::Path;
use std::process::ExitCode;

use begin::Beginning;

/// `cutover-host keep FOLDER`: supervises the instance of a folder until it ends for good. What became of the start stands on the standard
/// output as one line; the caller need not stay to read it.
pub fn keep(folder: &Path) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return begin::refuse(&format!("its event loop cannot be made: {error}")),
    };
    runtime.block_on(async {
        match begin::begin(folder) {
            Ok(Beginning::Supervise(supervisor)) => {
                supervisor.run().await;
                ExitCode::SUCCESS
            }
            Ok(Beginning::Taken | Beginning::Unwanted) => ExitCode::SUCCESS,
            Err(error) => begin::refuse(&error.to_string()),
        }
    })
}
