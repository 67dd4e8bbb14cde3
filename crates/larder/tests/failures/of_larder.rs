//! A configuration that cannot be taken over.

use larder_testkit::Origin;
use rustix::process::Signal;

use crate::evidence::Cell::{Cannot, Says};
use crate::evidence::{Row, Wire};
use crate::support::TestLarder;
use crate::support::packages::entry;

#[tokio::test]
async fn a_reload_that_fails() {
    let row = Row {
        failure: "failed reload",
        body: Cannot("no client asked for it: the old configuration goes on serving"),
        reason: Cannot("no client asked for it: the old configuration goes on serving"),
        log: Says(&["\"level\":\"ERROR\"", "larder.yaml:4", "base_ulr"]),
        health: Says(&["reload: ", "\"ok\":false", "\"larder.yaml:4: ", "base_ulr"]),
        metrics: Says(&["larder_config_reload_success 0"]),
    };
    let origin = Origin::start().await;
    let good = format!("remotes:\n{}", entry("up", "generic", &origin, ""));
    let mut larder = TestLarder::start(&good).await;
    larder.write_config(&good.replace("base_url", "base_ulr"));
    larder.signal(Signal::HUP);
    larder.logged("stays in force").await;
    row.is_told(&larder, &Wire::default()).await;
}
