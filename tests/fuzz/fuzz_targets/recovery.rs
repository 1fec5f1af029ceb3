#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sabir_store::fuzz::fuzz_recovery(data));
