//! The opcodes of protocol 0, whose arguments are lines of text.

use super::Machine;
use crate::{Object, Result, Value, opcodes as op};

impl<'a> Machine<'_, 'a> {
    /// A number, a string or a memo key, written as a line.
    pub(super) fn line_opcode(&mut self, code: u8) -> Result<()> {
        let line = self.line(usize::MAX)?;
        let text = || std::str::from_utf8(line).unwrap_or_default().trim();
        let wrong = |what: &str| {
            let shown = String::from_utf8_lossy(&line[..line.len().min(20)]).escape_debug().to_string();
            self.error(format!("the line {shown:?}"), what)
        };
        match code {
            // Integers; old protocols write False and True like this.
            op::INT if line == b"00" => self.push(Value::Bool(false)),
            op::INT if line == b"01" => self.push(Value::Bool(true)),
            op::INT | op::LONG => {
                let digits = text().strip_suffix('L').unwrap_or(text());
                let value = digits.parse().map_err(|_| wrong("an integer of at most 8 bytes"))?;
                self.push(Value::Int(value))
            }
            op::FLOAT => {
                let value = text().parse().map_err(|_| wrong("a number"))?;
                self.push(Value::Float(value))
            }
            op::STRING => match quoted(line).ok_or_else(|| wrong("a string between quotes"))? {
                plain if !plain.contains(&b'\\') => self.push(Value::Bytes(plain)),
                escaped => {
                    let bytes = string_unescape(escaped).ok_or_else(|| wrong("the escapes of Python"))?;
                    self.object(Object::Owned(bytes))
                }
            },
            op::UNICODE => match std::str::from_utf8(line) {
                Ok(plain) if plain.is_ascii() && !plain.contains('\\') => self.push(Value::Text(plain)),
                _ => {
                    let text = raw_unicode_unescape(line).ok_or_else(|| wrong("the escapes of Python"))?;
                    self.object(Object::OwnedText(text))
                }
            },
            op::GET | op::PUT => {
                let key = text().parse().map_err(|_| wrong("a memo key"))?;
                if code == op::PUT { self.put(key) } else { self.recall(key) }
            }
            _ => unreachable!("only the opcodes above have a line"),
        }
    }
}

/// The text between two matching quotes.
fn quoted(line: &[u8]) -> Option<&[u8]> {
    match line.trim_ascii() {
        [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => Some(inner),
        _ => None,
    }
}

/// The bytes of a string literal of Python 2.
fn string_unescape(literal: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = literal.iter().copied();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'\\' => match rest.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => hexadecimal(&mut rest, 2)? as u8,
                same @ (b'\\' | b'\'' | b'"') => same,
                _ => return None,
            },
            plain => plain,
        });
    }
    Some(out)
}

/// A string in the encoding `raw-unicode-escape`: latin1, and everything else as `\uXXXX` or `\UXXXXXXXX`. A backslash
/// is escaped, too.
fn raw_unicode_unescape(line: &[u8]) -> Option<String> {
    let mut out = String::new();
    let mut rest = line.iter().copied();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'\\' => match rest.next()? {
                b'u' => char::from_u32(hexadecimal(&mut rest, 4)?)?,
                b'U' => char::from_u32(hexadecimal(&mut rest, 8)?)?,
                _ => return None,
            },
            latin1 => char::from(latin1),
        });
    }
    Some(out)
}

fn hexadecimal(bytes: &mut impl Iterator<Item = u8>, digits: usize) -> Option<u32> {
    (0..digits).try_fold(0, |value, _| Some(value << 4 | char::from(bytes.next()?).to_digit(16)?))
}
