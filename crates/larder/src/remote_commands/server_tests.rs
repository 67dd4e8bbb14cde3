//! Tests of `server.rs`: addresses, tokens, and what refusals say.

use super::*;

fn asked(server: Option<&str>) -> Asked {
    Asked {
        server: server.map(str::to_owned),
        token_file: None,
        json: false,
    }
}

fn made(server: Option<&str>, environment: &[(&str, &str)]) -> Result<Server, Failure> {
    let environment = Environment::of(environment.iter().copied());
    Server::new(&asked(server), &environment)
}

#[test]
fn errors_of_all_shapes_are_told() {
    for body in [
        serde_json::json!({"error": "a sentence", "code": "x"}),
        serde_json::json!({"error": {"message": "a sentence"}}),
        serde_json::json!({"errors": [{"code": "X", "message": "a sentence"}]}),
    ] {
        assert_eq!(told(&body), "a sentence");
    }
}

#[test]
fn an_address_that_is_none_is_a_mistake_of_the_command_line() {
    let wrong = "larder.example.com:8000";
    let code = made(Some(wrong), &[]).err().map(|failure| failure.0);
    assert_eq!(code, Some(2));
    let server = made(None, &[("LARDER_URL", "https://larder.example.com/cache/")]);
    let server = server.ok().map(|server| server.base.to_string());
    assert_eq!(server.as_deref(), Some("https://larder.example.com/cache/"));
}

#[test]
fn hazard_s17_no_secret_is_echoed() {
    let Err(Failure(_, said)) = made(Some("ftp://user:canary@larder.example.com"), &[]) else {
        panic!("no address")
    };
    assert!(!said.contains("canary"), "{said}");
    for token in ["can ary", "canary\n2"] {
        let Err(Failure(code, said)) = made(None, &[(TOKEN, token)]) else {
            panic!("no token")
        };
        assert!(code == 2 && !said.contains("ary"), "{said}");
    }
}

#[test]
fn a_token_stands_in_a_variable_or_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, "of-the-file\n").unwrap();
    let path = path.to_str().unwrap();
    let token = |environment: &[(&str, &str)]| made(None, environment).map(|s| s.token);
    assert_eq!(token(&[(TOKEN, "own")]), Ok(Some("own".to_owned())));
    let of_file = Some("of-the-file".to_owned());
    assert_eq!(token(&[(TOKEN_FILE, path)]), Ok(of_file.clone()));
    assert!(token(&[(TOKEN_FILE, path), (TOKEN, "own")]).is_err());
    let flags = Asked {
        token_file: Some(path.into()),
        ..asked(None)
    };
    let server = Server::new(&flags, &Environment::of([(TOKEN, "own")]));
    assert_eq!(server.ok().and_then(|server| server.token), of_file);
}
