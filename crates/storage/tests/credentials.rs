//! Credentials that a platform gives, from a scripted token service and a scripted instance: fetched, used, and fetched anew before they
//! run out.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

use std::sync::Arc;
use std::time::Duration;

use larder_core::{Clock as _, ProxyBypass, ProxyRules, SystemClock};
use larder_storage::{Refused, S3Objects, S3Settings, StorageError};
use larder_testkit::{Behaviour, Origin, Resource};
use url::Url;

const BUCKET: &str = "/artifacts";

async fn bucket() -> Origin {
    let origin = Origin::start().await;
    let listing = "<?xml version=\"1.0\"?><ListBucketResult><Name>artifacts</Name><KeyCount>0</KeyCount><MaxKeys>1</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>";
    origin.put(
        BUCKET,
        Resource::new(listing).content_type("application/xml"),
    );
    origin
}

fn settings(store: &Origin, platform: &[(&str, &str)]) -> S3Settings {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    S3Settings {
        public: None,
        endpoint: store.address().to_string(),
        secure: false,
        bucket: BUCKET.trim_start_matches('/').to_owned(),
        region: "eu-central-1".to_owned(),
        path_style: true,
        prefix: String::new(),
        keys: None,
        platform: platform.iter().map(owned).collect(),
        ca: None,
        checksums: false,
        proxies: None,
    }
}

/// A time in the form of the services' answers, so many seconds from now.
fn in_seconds(seconds: u64) -> String {
    let time = SystemClock.now().0 + seconds as i64 * 1_000;
    let time = jiff::Timestamp::from_millisecond(time).unwrap();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What the last request to the bucket was signed with: key id and session token.
fn signed_with(store: &Origin) -> (String, String) {
    let requests = store.requests();
    let last = requests
        .iter()
        .rfind(|request| request.path() == BUCKET)
        .unwrap();
    let signature = last.header("authorization").unwrap();
    let (_, rest) = signature.split_once("Credential=").unwrap();
    let id = rest.split('/').next().unwrap().to_owned();
    let token = last.header("x-amz-security-token").unwrap().to_owned();
    assert!(rest.contains("/eu-central-1/s3/aws4_request"), "{rest}");
    (id, token)
}

fn pair(id: &str, token: &str) -> (String, String) {
    (id.to_owned(), token.to_owned())
}

fn made(settings: S3Settings) -> Result<S3Objects, StorageError> {
    S3Objects::new(settings, Arc::default())
}

/// `AssumeRoleWithWebIdentity` of AWS STS, with the token that the platform keeps in a file and renews.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_identity_is_exchanged_and_renewed() {
    let (store, sts) = (bucket().await, Origin::start().await);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "first.identity").unwrap();
    let gives = |id: &str, seconds: u64| {
        let answer = format!(
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
             <SessionToken>session of {id}</SessionToken><SecretAccessKey>secret of {id}</SecretAccessKey><Expiration>{}</Expiration>\
             <AccessKeyId>{id}</AccessKeyId></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
            in_seconds(seconds)
        );
        sts.put("/", Resource::new(answer).content_type("text/xml"));
    };
    let role = "arn:aws:iam::123456789012:role/larder";
    let objects = made(settings(
        &store,
        &[
            ("AWS_ROLE_ARN", role),
            ("AWS_ROLE_SESSION_NAME", "larder-0"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap()),
            ("AWS_ENDPOINT_URL_STS", sts.url("").trim_end_matches('/')),
        ],
    ))
    .unwrap();

    // An hour is long enough: they are used again and again.
    gives("ASIAFIRST", 3_600);
    for _ in 0..3 {
        objects.look().await.unwrap();
    }
    assert_eq!(
        signed_with(&store),
        pair("ASIAFIRST", "session of ASIAFIRST")
    );
    let asked = sts.requests();
    assert_eq!(asked.len(), 1);
    let query = asked[0].target.clone();
    for part in [
        "Action=AssumeRoleWithWebIdentity",
        "RoleSessionName=larder-0",
        "WebIdentityToken=first.identity",
        "RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Flarder",
    ] {
        assert!(query.contains(part), "{part}: {query}");
    }

    // Another process, whose credentials are about to run out: the next request has new ones, for the token that is in the file by then.
    let objects = made(settings(
        &store,
        &[
            ("AWS_ROLE_ARN", role),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap()),
            ("AWS_ENDPOINT_URL_STS", sts.url("").trim_end_matches('/')),
        ],
    ))
    .unwrap();
    gives("ASIASECOND", 60);
    objects.look().await.unwrap();
    assert_eq!(signed_with(&store).0, "ASIASECOND");
    std::fs::write(&file, "second.identity").unwrap();
    gives("ASIATHIRD", 3_600);
    tokio::time::sleep(Duration::from_millis(150)).await;
    objects.look().await.unwrap();
    assert_eq!(
        signed_with(&store),
        pair("ASIATHIRD", "session of ASIATHIRD")
    );
    let last = sts.requests().pop().unwrap().target;
    assert!(last.contains("WebIdentityToken=second.identity"), "{last}");

    // The service is away: it is said, without the token.
    let refused = made(settings(
        &store,
        &[
            ("AWS_ROLE_ARN", role),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap()),
            ("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1"),
        ],
    ))
    .unwrap()
    .look()
    .await;
    match refused {
        Err(Refused::Later(error)) => {
            let said = error.to_string();
            assert!(said.contains("no credentials"), "{said}");
            assert!(
                !format!("{error:?}").contains("second.identity"),
                "{error:?}"
            );
        }
        other => panic!("{other:?}"),
    }
}

/// The store is reached by the proxies of upstreams, and nobody else hears of credentials that this machine's platform gives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_is_for_the_store_and_not_for_the_platforms_credentials() {
    const ROLE: &str = "/latest/meta-data/iam/security-credentials/";
    let (store, instance, proxy) = (bucket().await, Origin::start().await, Origin::start().await);
    instance.put("/latest/api/token", Resource::new("a session"));
    instance.put(ROLE, Resource::new("larder-role"));
    let credentials = format!(
        r#"{{"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "{}", "AccessKeyId": "ASIA", "SecretAccessKey": "s", "Token": "t", "Expiration": "{}"}}"#,
        in_seconds(0),
        in_seconds(3_600)
    );
    let credentials = Resource::new(credentials).content_type("application/json");
    instance.put(&format!("{ROLE}larder-role"), credentials);
    let endpoint = instance.url("");
    let platform = [("AWS_METADATA_ENDPOINT", endpoint.trim_end_matches('/'))];
    let address = Url::parse(&proxy.url("")).unwrap();
    let everything = S3Settings {
        proxies: Some(ProxyRules::for_everything(address.clone())),
        ..settings(&store, &platform)
    };
    let refused = made(everything).unwrap().look().await;
    assert!(matches!(refused, Err(Refused::Later(_))), "{refused:?}");
    let asked: Vec<String> = proxy
        .requests()
        .iter()
        .map(|one| one.target.clone())
        .collect();
    let bucket = format!("http://{}{BUCKET}", store.address());
    assert!(
        !asked.is_empty() && asked.iter().all(|url| url.starts_with(&bucket)),
        "{asked:?}"
    );
    assert_eq!((store.requests().len(), instance.requests().len()), (0, 3));

    proxy.reset_log();
    let proxies = ProxyRules::with_exceptions(Some(address), None, ProxyBypass::default());
    let but_loopback = S3Settings {
        proxies: Some(proxies),
        ..settings(&store, &platform)
    };
    made(but_loopback).unwrap().look().await.unwrap();
    assert_eq!((store.requests().len(), proxy.requests().len()), (1, 0));
}

/// Instance metadata of version 2: a session token first, and no question without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instances_credentials_are_fetched_with_a_session_and_renewed() {
    const ROLE: &str = "/latest/meta-data/iam/security-credentials/";
    let (store, instance) = (bucket().await, Origin::start().await);
    instance.put("/latest/api/token", Resource::new("a session"));
    instance.put(ROLE, Resource::new("larder-role"));
    let gives = |id: &str, seconds: u64| {
        let answer = format!(
            r#"{{"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "{0}", "AccessKeyId": "{id}", "SecretAccessKey": "secret of {id}", "Token": "session of {id}", "Expiration": "{1}"}}"#,
            in_seconds(0),
            in_seconds(seconds)
        );
        let answer = Resource::new(answer).content_type("application/json");
        instance.put(&format!("{ROLE}larder-role"), answer);
    };
    let endpoint = instance.url("");
    let platform = [("AWS_METADATA_ENDPOINT", endpoint.trim_end_matches('/'))];
    let objects = made(settings(&store, &platform)).unwrap();
    gives("ASIAFIRST", 60);
    objects.look().await.unwrap();
    assert_eq!(
        signed_with(&store),
        pair("ASIAFIRST", "session of ASIAFIRST")
    );
    let asked = instance.requests();
    let [session, role, credentials] = &asked[..] else {
        panic!("three questions: {asked:?}")
    };
    assert_eq!(
        (&*session.method, session.path()),
        ("PUT", "/latest/api/token")
    );
    assert!(
        session
            .header("x-aws-ec2-metadata-token-ttl-seconds")
            .is_some()
    );
    for question in [role, credentials] {
        assert_eq!(question.method, "GET");
        assert_eq!(
            question.header("x-aws-ec2-metadata-token"),
            Some("a session")
        );
    }
    gives("ASIASECOND", 3_600);
    tokio::time::sleep(Duration::from_millis(150)).await;
    for _ in 0..3 {
        objects.look().await.unwrap();
    }
    assert_eq!(signed_with(&store).0, "ASIASECOND");
    assert_eq!(instance.requests().len(), 6);

    // An instance that has no version 2 is not asked by version 1.
    instance.reset_log();
    instance.behave("/latest/api/token", Behaviour::Status(403));
    let refused = made(settings(&store, &platform)).unwrap().look().await;
    assert!(matches!(refused, Err(Refused::Later(_))), "{refused:?}");
    assert!(
        instance
            .requests()
            .iter()
            .all(|asked| asked.method == "PUT")
    );
}
