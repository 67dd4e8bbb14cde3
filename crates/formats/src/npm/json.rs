//! A forward-only JSON scanner that checks every byte against RFC 8259 and gives spans, never values.
//!
//! It knows no npm. It builds nothing, recurses nowhere, and stops at [`MAX_DEPTH`] levels, so memory does not depend on
//! the document (hazard R3). Duplicate keys are reported as often as they occur; half surrogates in `\u` escapes are
//! legal, as they are for `JSON.parse`.

use std::borrow::Cow;
use std::ops::Range;

use crate::Malformed;
use crate::splice::json_unescape;

/// Deepest nesting of objects and arrays (docs/reference/protocols/npm.md, section 5).
pub(super) const MAX_DEPTH: u32 = 128;

/// A string of the document, as it is spelt there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Text<'a> {
    /// What stands between the quotes, escapes included.
    raw: &'a str,
    /// Byte offset of `raw` in the document.
    start: usize,
    escaped: bool,
}

impl<'a> Text<'a> {
    /// The value; `None` if it holds half a surrogate pair.
    pub(super) fn value(&self) -> Option<Cow<'a, str>> {
        if self.escaped {
            json_unescape(self.raw)
        } else {
            Some(Cow::Borrowed(self.raw))
        }
    }

    /// Whether the value is `other`.
    pub(super) fn is(&self, other: &str) -> bool {
        if self.escaped {
            self.value().is_some_and(|value| value == other)
        } else {
            self.raw == other
        }
    }

    /// The bytes between the quotes.
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.start + self.raw.len()
    }

    /// Where it stands; `None` beyond the first 4 GiB.
    pub(super) fn spelling(&self) -> Option<Spelling> {
        Some(Spelling {
            start: u32::try_from(self.start).ok()?,
            length: u32::try_from(self.raw.len()).ok()?,
        })
    }
}

/// Where a [`Text`] stands in its document, without that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spelling {
    start: u32,
    length: u32,
}

impl Spelling {
    /// The text in its document; `None` if `body` is another.
    pub(super) fn of(self, body: &[u8]) -> Option<Text<'_>> {
        let start = self.start as usize;
        let raw = body.get(start..start + self.length as usize)?;
        Some(Text {
            raw: std::str::from_utf8(raw).ok()?,
            start,
            escaped: memchr::memchr(b'\\', raw).is_some(),
        })
    }
}

/// A place in a document. Every method starts at a value or a separator, with any white space before it.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl<'a> Scanner<'a> {
    /// At the start of `body`, which must be UTF-8 without a byte order mark.
    pub(super) fn new(body: &'a [u8]) -> Result<Self, Malformed> {
        if body.starts_with(b"\xef\xbb\xbf") {
            return Err(Malformed(
                "it starts with a byte order mark, which JSON does not allow".to_owned(),
            ));
        }
        let text = std::str::from_utf8(body)
            .map_err(|e| Malformed(format!("it is not UTF-8 at byte {}", e.valid_up_to())))?;
        Ok(Self {
            text,
            at: 0,
            depth: 0,
        })
    }

    /// The first byte of the next value; `None` at the end of the document.
    pub(super) fn peek(&mut self) -> Option<u8> {
        self.skip_space();
        self.byte()
    }

    /// Reads an object: `member` gets each key and must read the value (by any method of the scanner).
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Text<'a>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.skip_space();
        if self.byte() != Some(b'{') {
            return Err(self.expected("'{'"));
        }
        self.open(0)?;
        self.depth += 1;
        self.skip_space();
        if self.byte() != Some(b'}') {
            loop {
                let key = self.key()?;
                member(self, key)?;
                self.skip_space();
                match self.byte() {
                    Some(b',') => self.at += 1,
                    Some(b'}') => break,
                    _ => return Err(self.expected("',' or '}'")),
                }
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    /// Reads any value; gives it if it is a string.
    pub(super) fn string_or_skip(&mut self) -> Result<Option<Text<'a>>, Malformed> {
        if self.peek() == Some(b'"') {
            return self.string().map(Some);
        }
        self.skip()?;
        Ok(None)
    }

    /// Reads any value and forgets it.
    pub(super) fn skip(&mut self) -> Result<(), Malformed> {
        // One bit a level: whether it is an object. MAX_DEPTH bits are enough.
        let mut objects: u128 = 0;
        let mut level: u32 = 0;
        loop {
            self.skip_space();
            match self.byte() {
                Some(b'"') => drop(self.string()?),
                Some(open @ (b'{' | b'[')) => {
                    self.open(level)?;
                    self.skip_space();
                    let is_object = open == b'{';
                    if self.byte() == Some(if is_object { b'}' } else { b']' }) {
                        self.at += 1;
                    } else {
                        objects = objects << 1 | u128::from(is_object);
                        level += 1;
                        if is_object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.word("true")?,
                Some(b'f') => self.word("false")?,
                Some(b'n') => self.word("null")?,
                _ => return Err(self.expected("a value")),
            }
            // A value is complete; so may be what holds it.
            loop {
                if level == 0 {
                    return Ok(());
                }
                let in_object = objects & 1 == 1;
                self.skip_space();
                match self.byte() {
                    Some(b',') => {
                        self.at += 1;
                        if in_object {
                            self.key()?;
                        }
                        break;
                    }
                    Some(b'}') if in_object => {}
                    Some(b']') if !in_object => {}
                    _ => {
                        return Err(self.expected(if in_object {
                            "',' or '}'"
                        } else {
                            "',' or ']'"
                        }));
                    }
                }
                self.at += 1;
                objects >>= 1;
                level -= 1;
            }
        }
    }

    /// Nothing but white space may follow.
    pub(super) fn finish(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.expected("the end of the document")),
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Steps over an opening bracket, `level` levels below the scanner's own depth.
    fn open(&mut self, level: u32) -> Result<(), Malformed> {
        if self.depth + level >= MAX_DEPTH {
            return Err(Malformed(format!(
                "it is nested deeper than {MAX_DEPTH} levels at byte {}",
                self.at
            )));
        }
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.byte() {
            self.at += 1;
        }
    }

    /// A key and its colon.
    fn key(&mut self) -> Result<Text<'a>, Malformed> {
        self.skip_space();
        if self.byte() != Some(b'"') {
            return Err(self.expected("a key"));
        }
        let key = self.string()?;
        self.skip_space();
        if self.byte() != Some(b':') {
            return Err(self.expected("':'"));
        }
        self.at += 1;
        Ok(key)
    }

    /// A string, the scanner standing on its opening quote.
    fn string(&mut self) -> Result<Text<'a>, Malformed> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut escaped = false;
        self.at = start;
        loop {
            self.at = plain_until(bytes, self.at);
            match self.byte() {
                Some(b'"') => {
                    let raw = self.text.get(start..self.at).unwrap_or_default();
                    self.at += 1;
                    return Ok(Text {
                        raw,
                        start,
                        escaped,
                    });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.malformed("a control character in a string")),
                None => return Err(self.malformed("a string that does not end")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        match self.text.as_bytes().get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let digits = self.text.as_bytes().get(self.at + 2..self.at + 6);
                if !digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit)) {
                    return Err(self.malformed("a malformed \\u escape"));
                }
                self.at += 6;
            }
            _ => return Err(self.malformed("an unknown escape")),
        }
        Ok(())
    }

    fn word(&mut self, word: &str) -> Result<(), Malformed> {
        let found = self.text.as_bytes().get(self.at..self.at + word.len());
        if found != Some(word.as_bytes()) {
            return Err(self.expected("a value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`
    fn number(&mut self) -> Result<(), Malformed> {
        self.at += usize::from(self.byte() == Some(b'-'));
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        while self.byte().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start {
            Err(self.expected("a digit"))
        } else {
            Ok(())
        }
    }

    fn expected(&self, what: &str) -> Malformed {
        Malformed(format!(
            "it is not well-formed JSON: {what} expected at byte {}",
            self.at
        ))
    }

    fn malformed(&self, what: &str) -> Malformed {
        Malformed(format!(
            "it is not well-formed JSON: {what} at byte {}",
            self.at
        ))
    }
}

/// The next byte at or after `at` that a string cannot hold as it is (quote, backslash, control), or the end.
///
/// Eight bytes at a time: most strings of a packument are short, so that a call of `memchr` for each costs more than it
/// saves.
#[inline]
fn plain_until(bytes: &[u8], mut at: usize) -> usize {
    while let Some(Ok(chunk)) = bytes.get(at..at + 8).map(<[u8; 8]>::try_from) {
        let hit = special(u64::from_le_bytes(chunk));
        if hit != 0 {
            return at + (hit.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while bytes
        .get(at)
        .is_some_and(|&b| b >= b' ' && b != b'"' && b != b'\\')
    {
        at += 1;
    }
    at
}

/// The high bit of the first special byte of `word` is the lowest bit set; 0 if there is none. (Borrows can set bits
/// above the first hit, never below it.)
#[inline]
fn special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let below = |word: u64, n: u8| word.wrapping_sub(ONES * u64::from(n)) & !word & HIGH;
    below(word, b' ')
        | below(word ^ (ONES * u64::from(b'"')), 1)
        | below(word ^ (ONES * u64::from(b'\\')), 1)
}

#[cfg(test)]
mod tests;
