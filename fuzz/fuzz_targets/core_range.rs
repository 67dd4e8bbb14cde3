#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| larder_fuzz::core_range(data));
