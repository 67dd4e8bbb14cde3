//! Real servers that tests start on free loopback ports, each in a directory of its own, and that end with the test program however
//! it ends.

pub mod postgres;
