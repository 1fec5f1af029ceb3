#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sabir_stomp::fuzz::fuzz_decoder(data));
