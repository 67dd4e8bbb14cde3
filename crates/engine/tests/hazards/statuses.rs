//! Contract, section 1, "Errors": which status a client sees when there is no copy.

use std::time::Duration;

use larder_core::FaultKind;
use larder_testkit::Behaviour;

use crate::support::{Bench, FORMATS, publish};
use crate::{refusal, text};

#[tokio::test]
async fn upstream_statuses_keep_their_meaning() {
    for (behaviour, kind) in [
        (Behaviour::Status(403), FaultKind::Upstream(403)),
        (Behaviour::Status(404), FaultKind::Upstream(404)),
        (Behaviour::Status(410), FaultKind::Upstream(410)),
        (Behaviour::Status(429), FaultKind::Upstream(429)),
        (Behaviour::Status(451), FaultKind::Upstream(451)),
        (Behaviour::Status(500), FaultKind::Upstream(500)),
        (Behaviour::Status(599), FaultKind::Upstream(599)),
        (Behaviour::Status(401), FaultKind::BadGateway),
        (Behaviour::Status(407), FaultKind::BadGateway),
        (Behaviour::Status(202), FaultKind::BadGateway),
        (Behaviour::Status(206), FaultKind::BadGateway),
        (Behaviour::NotModified, FaultKind::BadGateway),
        (
            Behaviour::Redirect {
                status: 302,
                location: "http://10.0.0.1/".to_owned(),
            },
            FaultKind::BadGateway,
        ),
        (
            Behaviour::Redirect {
                status: 302,
                location: "http://169.254.169.254/latest/".to_owned(),
            },
            FaultKind::BadGateway,
        ),
        (
            Behaviour::Redirect {
                status: 301,
                location: "file:///etc/passwd".to_owned(),
            },
            FaultKind::BadGateway,
        ),
        (
            Behaviour::Redirect {
                status: 307,
                location: "?loop".to_owned(),
            },
            FaultKind::BadGateway,
        ),
        (
            Behaviour::Garbage("nonsense\r\n\r\n".into()),
            FaultKind::BadGateway,
        ),
        (Behaviour::ResetHead, FaultKind::BadGateway),
        (
            Behaviour::StallHead(Duration::from_secs(60)),
            FaultKind::GatewayTimeout,
        ),
    ] {
        let bench = Bench::new().await;
        bench.origin.put("/f", text("there"));
        bench.origin.behave("/f", behaviour.clone());
        let fault = bench.get("generic", "f").await.unwrap_err();
        assert_eq!(fault.kind, kind, "{behaviour:?}");
        assert_eq!(fault.repository.as_deref(), Some("generic"));
        assert!(fault.rule.is_some(), "{fault:?}");
        assert!(
            !fault.message.contains("no such resource"),
            "no word of the upstream's own page: {fault:?}"
        );
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_a_502() {
    for format in FORMATS {
        let mut bench = Bench::new().await;
        let file = publish(
            &bench.origin,
            format,
            &larder_testkit::Payload::generated(10, 1),
            "\"f\"",
        );
        bench.origin.stop().await;
        assert_eq!(
            refusal(bench.get(format, &file.path).await),
            (FaultKind::BadGateway, "upstream_unreachable")
        );
        if file.has_document() {
            assert_eq!(
                refusal(bench.get(format, file.document).await).0,
                FaultKind::BadGateway
            );
        }
        bench.settled().await;
        bench.origin.restart();
        bench.wait(60);
        assert_eq!(
            bench.get(format, &file.path).await.unwrap().bytes().len(),
            10
        );
    }
}

#[tokio::test]
async fn redirects_within_the_origin_are_followed_inside() {
    for format in FORMATS {
        let bench = Bench::new().await;
        let body = larder_testkit::Payload::generated(5000, 1);
        let file = publish(&bench.origin, format, &body, "\"f\"");
        bench.origin.put(
            "/elsewhere",
            larder_testkit::Resource::new(body.clone()).etag("\"e\""),
        );
        bench.origin.behave(
            &file.at,
            Behaviour::Redirect {
                status: 302,
                location: "/elsewhere".to_owned(),
            },
        );
        assert_eq!(
            bench.get(format, &file.path).await.unwrap().bytes(),
            &body.slice(0, 5000)
        );
        crate::assert_hit(&bench, &file, &body).await;
    }
}
