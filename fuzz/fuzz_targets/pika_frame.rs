#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| takhin_fuzz_targets::pika_frame(data));
