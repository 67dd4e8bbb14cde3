use super::*;

#[test]
fn every_form_is_read_and_shown_without_credentials() {
    for (url, shown) in [
        ("redis://h", "redis://h:6379"),
        ("redis://:p%40ss@h:1/3", "redis://***@h:1/3"),
        ("redis://[::1]:1/0", "redis://[::1]:1"),
        ("rediss://user:canary@h:1", "rediss://***@h:1"),
        ("valkey://h:1", "redis://h:1"),
        (
            "redis-cluster://u:canary@a:1,b",
            "redis-cluster://***@a:1,b:6379",
        ),
        (
            "rediss-cluster://[::1]:7,[::2]",
            "rediss-cluster://[::1]:7,[::2]:6379",
        ),
        (
            "redis-sentinel://u:canary@a,b:2/mymaster/4?sentinel_password=canary",
            "redis-sentinel://***@a:26379,b:2/mymaster/4?sentinel_password=***",
        ),
        (
            "redis-sentinel://a/2#mymaster",
            "redis-sentinel://a:26379/mymaster/2",
        ),
    ] {
        let address = RedisAddress::parse(url).unwrap();
        assert_eq!(address.to_string(), shown, "{url}");
        assert!(!format!("{address:?}").contains("canary"));
        // With the secrets back in their places it is the same address.
        let whole = shown.replace("***@", "u:c@").replace("=***", "=c");
        assert_eq!(RedisAddress::parse(&whole).unwrap().to_string(), shown);
    }
}

#[test]
fn sentinels_and_servers_have_credentials_of_their_own() {
    let url = "redis-sentinel://u:p%2Fq@a,b:2/mymaster/4?sentinel_username=s&sentinel_password=t";
    let Form::Sentinels {
        nodes,
        service,
        server,
        tls,
    } = RedisAddress::parse(url).unwrap().form
    else {
        panic!("sentinels");
    };
    assert_eq!(service, "mymaster");
    assert_eq!(nodes.len(), 2);
    for node in &nodes {
        assert_eq!(node.redis_settings().username(), Some("s"));
        assert_eq!(node.redis_settings().password(), Some("t"));
    }
    assert_eq!((server.db(), tls), (4, false));
    assert_eq!(server.username(), Some("u"));
    assert_eq!(server.password(), Some("p/q"));
}

#[test]
fn what_cannot_be_an_address_is_refused_without_its_secrets() {
    for url in [
        "h:6379",
        "http://u:canary@h",
        "redis://",
        "redis://u:canary@h:port",
        "redis://u:canary@h/db",
        "redis://u:canary@h/-1",
        "redis://u:canary@h:0",
        "redis://h?db=2",
        "redis://h?password=canary",
        "rediss://h/1?user=canary",
        "redis-cluster://h?password=canary",
        "redis-cluster://u:canary@h:0",
        "redis-sentinel://u:canary@h/a/-1",
        "redis-cluster://u:canary@h/3",
        "redis-cluster://u:canary@h,,i",
        "redis-sentinel://u:canary@h",
        "redis-sentinel://u:canary@h/a/b",
        "redis-sentinel://u:canary@h/a?other=canary",
    ] {
        let error = RedisAddress::parse(url).unwrap_err();
        assert!(!error.contains("canary"), "{error}");
    }
}
