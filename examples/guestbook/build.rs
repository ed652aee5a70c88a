//! The program without its symbols: every deploy of the demonstration and of the tests copies, hashes and writes it whole, and a debugger is
//! never led to it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        println!("cargo:rustc-link-arg-bins=-s");
    }
}
