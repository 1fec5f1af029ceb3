#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sabir_model::selector::fuzz_selector(data));
