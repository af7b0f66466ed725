#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| syncline_testkit::fuzz::replica(bytes));
