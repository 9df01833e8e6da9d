#![no_main]

#[path = "../src/targets.rs"]
#[allow(dead_code, reason = "each target is one function of it")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::open(data));
