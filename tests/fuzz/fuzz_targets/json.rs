#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sabir_json::fuzz::fuzz(data));
