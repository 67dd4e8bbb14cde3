//! The statements of `src/meta`, as they stand in its constants. Read from the sources, so that a new one is among them by itself: a
//! constant that cannot be read, and a statement that is no constant, fail the test.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A statement, in the words of each engine.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    /// File and constant.
    pub(crate) name: String,
    pub(crate) sqlite: String,
    pub(crate) postgres: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Text(String),
    Word(String),
    Mark(char),
}

/// The arms of a macro: what it is called with, and what it becomes.
type Macros = HashMap<String, Vec<(Vec<Token>, Vec<Token>)>>;
/// A text for SQLite and one for PostgreSQL.
type Both = (String, String);

const VERBS: [&str; 5] = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH "];

/// All of them, sorted by name.
pub(crate) fn all() -> Vec<Statement> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/meta");
    let mut files = Vec::new();
    find(&root, &mut files);
    // A migration runs while no larder does, and reads all there is, in the order of the keys.
    files.retain(|file| !file.starts_with(root.join("copy")));
    files.sort();
    let sources: Vec<(String, Vec<Token>)> = files
        .iter()
        .map(|file| {
            let text = std::fs::read_to_string(file).unwrap();
            // Tests have statements of their own, at the end.
            let text = text.split("\n#[cfg(test)]").next().unwrap_or_default();
            let name = file.strip_prefix(&root).unwrap().display().to_string();
            (name, tokens(text))
        })
        .collect();
    let mut macros = Macros::new();
    for (_, tokens) in &sources {
        note_macros(tokens, &mut macros);
    }
    let mut all: Vec<Statement> = sources
        .iter()
        .flat_map(|(file, tokens)| in_file(file, tokens, &macros))
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn find(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '/' if rest.peek() == Some(&'/') => {
                rest.by_ref().find(|c| *c == '\n');
            }
            '"' => tokens.push(Token::Text(literal(&mut rest))),
            // A character, or a lifetime.
            '\'' => {
                let inner = rest.next();
                if inner == Some('\\') {
                    rest.by_ref().find(|c| *c == '\'');
                } else if rest.peek() == Some(&'\'') {
                    rest.next();
                }
            }
            c if c.is_alphanumeric() || c == '_' => {
                let mut word = String::from(c);
                while let Some(c) = rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    word.push(c);
                }
                tokens.push(Token::Word(word));
            }
            c if c.is_whitespace() => {}
            c => tokens.push(Token::Mark(c)),
        }
    }
    tokens
}

/// The rest of a literal whose first quote has been read.
fn literal(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    let mut text = String::new();
    while let Some(c) = rest.next() {
        match c {
            '"' => break,
            '\\' => match rest.next() {
                Some('\n') => while rest.next_if(|c| c.is_whitespace()).is_some() {},
                Some('n') => text.push('\n'),
                Some('u') => {
                    rest.by_ref().find(|c| *c == '}');
                    text.push('?');
                }
                Some(other) => text.push(other),
                None => {}
            },
            c => text.push(c),
        }
    }
    text
}

fn word(text: &str) -> Token {
    Token::Word(text.to_owned())
}

/// What stands between the bracket at `open` and the one that closes it.
fn inside(tokens: &[Token], open: usize) -> &[Token] {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Mark('(' | '[' | '{') => depth += 1,
            Token::Mark(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &tokens[open + 1..at];
        }
    }
    &[]
}

fn note_macros(tokens: &[Token], macros: &mut Macros) {
    for at in 0..tokens.len() {
        let Some([first, Token::Mark('!'), Token::Word(name)]) = tokens.get(at..at + 3) else {
            continue;
        };
        if *first != word("macro_rules") {
            continue;
        }
        let body = inside(tokens, at + 3);
        let mut place = 0;
        while place < body.len() {
            if !matches!(body[place], Token::Mark('(')) {
                place += 1;
                continue;
            }
            let pattern = inside(body, place).to_vec();
            // ( … ) = > { … }
            let open = place + pattern.len() + 4;
            let becomes = inside(body, open).to_vec();
            place = open + becomes.len() + 2;
            macros
                .entry(name.clone())
                .or_default()
                .push((pattern, becomes));
        }
    }
}

fn is_statement(text: &str) -> bool {
    VERBS.iter().any(|verb| text.starts_with(verb))
}

fn in_file(file: &str, tokens: &[Token], macros: &Macros) -> Vec<Statement> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at] == word("macro_rules") {
            at += 3 + inside(tokens, at + 3).len() + 2;
            continue;
        }
        let is_constant =
            tokens[at] == word("const") && matches!(tokens.get(at + 2), Some(Token::Mark(':')));
        if !is_constant {
            if let Token::Text(text) = &tokens[at] {
                assert!(
                    !is_statement(text),
                    "{file}: a statement is a constant, and this is none: {text}"
                );
            }
            at += 1;
            continue;
        }
        let Token::Word(name) = &tokens[at + 1] else {
            panic!("{file}: a constant without a name");
        };
        let value = value_at(tokens, at + 3);
        let end = value.as_ptr_range().end;
        let made = evaluate(value, macros);
        let texts = value.iter().filter_map(|token| match token {
            Token::Text(text) => Some(text),
            _ => None,
        });
        let looks_so = texts.clone().any(|text| is_statement(text));
        assert!(
            made.is_some() || !looks_so,
            "{file}: the constant {name} cannot be read: write it as others are"
        );
        for (sqlite, postgres) in made.unwrap_or_default() {
            if is_statement(&sqlite) || is_statement(&postgres) {
                found.push(Statement {
                    name: format!("{file} {name}"),
                    sqlite,
                    postgres,
                });
            }
        }
        while at < tokens.len() && tokens[at..].as_ptr() < end {
            at += 1;
        }
    }
    found
}

/// What stands between the `=` and the `;` of a constant whose type begins at `from`.
fn value_at(tokens: &[Token], from: usize) -> &[Token] {
    let mut depth = 0;
    let mut begin = from;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token {
            Token::Mark('(' | '[' | '{') => depth += 1,
            Token::Mark(')' | ']' | '}') => depth -= 1,
            Token::Mark('=') if depth == 0 && begin == from => begin = at + 1,
            Token::Mark(';') if depth == 0 => return &tokens[begin..at],
            _ => {}
        }
    }
    &[]
}

/// The parts of a list.
fn parts(tokens: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0;
    let parts = tokens.split(|token| {
        match token {
            Token::Mark('(' | '[' | '{') => depth += 1,
            Token::Mark(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        depth == 0 && *token == Token::Mark(',')
    });
    parts.filter(|part| !part.is_empty()).collect()
}

fn evaluate(tokens: &[Token], macros: &Macros) -> Option<Vec<Both>> {
    match tokens {
        [Token::Text(text)] => Some(vec![(text.clone(), text.clone())]),
        [Token::Mark('['), ..] => {
            let parts = parts(inside(tokens, 0));
            let each = parts.into_iter().map(|part| evaluate(part, macros));
            Some(each.collect::<Option<Vec<_>>>()?.concat())
        }
        [Token::Word(name), Token::Mark('{'), ..] if name == "Sql" => {
            let fields = parts(inside(tokens, 1));
            let of = |engine: &str| {
                let field = fields.iter().find(|field| field[0] == word(engine))?;
                evaluate(&field[2..], macros)?.pop()
            };
            Some(vec![(of("sqlite")?.0, of("postgres")?.1)])
        }
        [Token::Word(name), Token::Mark('!'), Token::Mark('('), ..] => {
            let arguments = inside(tokens, 2);
            if name == "concat" {
                let mut both = Both::default();
                for part in parts(arguments) {
                    let (sqlite, postgres) = evaluate(part, macros)?.pop()?;
                    both.0 += &sqlite;
                    both.1 += &postgres;
                }
                return Some(vec![both]);
            }
            let arms = macros.get(name)?;
            arms.iter().find_map(|(pattern, becomes)| {
                evaluate(&expand(pattern, becomes, arguments)?, macros)
            })
        }
        // The path of a type, such as `crate::db::Sql`.
        [Token::Word(_) | Token::Mark('$' | ':'), rest @ ..]
            if rest.iter().any(|token| *token == word("Sql")) =>
        {
            evaluate(rest, macros)
        }
        _ => None,
    }
}

/// What an arm of a macro becomes with these arguments, if it is meant. It takes one literal, or words as they stand.
fn expand(pattern: &[Token], becomes: &[Token], arguments: &[Token]) -> Option<Vec<Token>> {
    let [Token::Mark('$'), Token::Word(name), ..] = pattern else {
        return (pattern == arguments).then(|| becomes.to_vec());
    };
    let mut made = Vec::new();
    let mut at = 0;
    while at < becomes.len() {
        if becomes[at] == Token::Mark('$') && becomes.get(at + 1) == Some(&word(name)) {
            made.extend_from_slice(arguments);
            at += 2;
        } else {
            made.push(becomes[at].clone());
            at += 1;
        }
    }
    Some(made)
}

#[test]
fn statements_are_read_as_the_compiler_reads_them() {
    let source = r#"
        // const NOT: &str = "SELECT nothing";
        macro_rules! beside { ($what:literal) => { concat!(" AND x = ", $what) }; }
        macro_rules! one { (sqlite) => { "lite" }; (postgres) => { "post" }; }
        const PLAIN: &str = "SELECT a \
             FROM b";
        const LONGEST: usize = 5;
        const JOINED: Sql = Sql { sqlite: concat!("DELETE ", one!(sqlite), beside!("y")), postgres: concat!("DELETE ", one!(postgres)), };
        const MANY: [&str; 2] = ["SELECT 1", "SELECT '\"'"];
    "#;
    let tokens = tokens(source);
    let mut macros = Macros::new();
    note_macros(&tokens, &mut macros);
    let found: Vec<(String, String, String)> = in_file("f", &tokens, &macros)
        .into_iter()
        .map(|found| (found.name, found.sqlite, found.postgres))
        .collect();
    let both = |name: &str, text: &str| (name.to_owned(), text.to_owned(), text.to_owned());
    assert_eq!(
        found,
        [
            both("f PLAIN", "SELECT a FROM b"),
            (
                "f JOINED".to_owned(),
                "DELETE lite AND x = y".to_owned(),
                "DELETE post".to_owned()
            ),
            both("f MANY", "SELECT 1"),
            both("f MANY", "SELECT '\"'"),
        ]
    );
}

#[test]
#[should_panic(expected = "this is none")]
fn a_statement_that_is_no_constant_fails_the_test() {
    let tokens = tokens(r#"fn f() { db.all("SELECT 1", &[]) }"#);
    in_file("f", &tokens, &Macros::new());
}

#[test]
#[should_panic(expected = "cannot be read")]
fn a_constant_that_is_made_otherwise_fails_the_test() {
    let tokens = tokens(r#"const MADE: &str = join("SELECT 1", OTHER);"#);
    in_file("f", &tokens, &Macros::new());
}
