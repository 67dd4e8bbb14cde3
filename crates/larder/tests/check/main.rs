//! `larder check` beside a real start: what would keep larder from starting is found by the one as by the other, and nothing else is.
#![expect(clippy::expect_used, reason = "helpers of tests may fail loudly")]

mod broken;
mod case;
mod mistakes;
mod proxied;
mod running;
mod sound;
mod strangers;
