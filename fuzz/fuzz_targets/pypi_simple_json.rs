#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| larder_fuzz::pypi_simple_json(data));
