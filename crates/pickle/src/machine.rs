//! The stack machine that runs a pickle.

mod globals;
mod lines;

use std::collections::HashMap;

use super::{Handle, Object, PickleError, Result, Value, opcodes as op, text_of, torch};

/// More values than any image data set or model has; a file with more is an attempt to exhaust memory.
pub(super) const MOST_VALUES: usize = 1 << 22;

/// The state of the stack machine.
pub(super) struct Machine<'n, 'a> {
    name: &'n str,
    /// Whether PyTorch's globals are known.
    torch: bool,
    bytes: &'a [u8],
    at: usize,
    /// The offset of the current opcode.
    start: usize,
    /// The number of values created.
    values: usize,
    /// The number of bytes decoded into separate memory.
    decoded: usize,
    stack: Vec<Value<'a>>,
    /// The positions of the marks in the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    objects: Vec<Object<'a>>,
}

impl<'n, 'a> Machine<'n, 'a> {
    pub(super) fn new(name: &'n str, bytes: &'a [u8], torch: bool) -> Self {
        Machine {
            name,
            torch,
            bytes,
            at: 0,
            start: 0,
            values: 0,
            decoded: 0,
            stack: vec![],
            marks: vec![],
            memo: HashMap::new(),
            objects: vec![],
        }
    }

    /// Runs the program; returns its result, all containers, and its length.
    pub(super) fn run(mut self) -> Result<(Value<'a>, Vec<Object<'a>>, usize)> {
        let root = self.steps()?;
        Ok((root, self.objects, self.at))
    }

    pub(super) fn error(&self, found: impl Into<String>, expected: impl Into<String>) -> PickleError {
        let (file, offset) = (self.name.into(), self.start as u64);
        PickleError { file, offset, found: found.into(), expected: expected.into() }
    }

    pub(super) fn storage(&self, value: Value<'a>) -> Option<&torch::Storage<'a>> {
        let Value::Object(handle) = value else { return None };
        match &self.objects[handle.0 as usize] {
            Object::Storage(storage) => Some(storage),
            _ => None,
        }
    }

    pub(super) fn string(&self, value: Value<'a>) -> Option<&str> {
        text_of(&self.objects, value)
    }

    fn steps(&mut self) -> Result<Value<'a>> {
        loop {
            self.start = self.at;
            match self.take(1, "an opcode")?[0] {
                op::STOP => return self.pop("a result"),
                code => self.step(code)?,
            }
        }
    }

    /// Runs one opcode.
    fn step(&mut self, code: u8) -> Result<()> {
        match code {
            op::PROTO => {
                let version = self.number::<1>("a protocol number")?;
                if version > 5 {
                    return Err(self.error(format!("protocol {version}"), "at most 5"));
                }
            }
            op::FRAME => {
                self.number::<8>("the length of a frame")?;
            }
            op::MARK => {
                self.marks.push(self.stack.len());
                self.count(1)?;
            }
            op::POP => {
                self.pop("a value")?;
            }
            op::BINPUT => {
                let key = self.number::<1>("a memo key")?;
                self.put(key as u32)?;
            }
            op::LONG_BINPUT => {
                let key = self.number::<4>("a memo key")?;
                self.put(key as u32)?;
            }
            op::MEMOIZE => self.put(self.memo.len() as u32)?,
            op::BINGET => {
                let key = self.number::<1>("a memo key")?;
                self.recall(key as u32)?;
            }
            op::LONG_BINGET => {
                let key = self.number::<4>("a memo key")?;
                self.recall(key as u32)?;
            }
            op::INT | op::LONG | op::FLOAT | op::STRING | op::UNICODE | op::GET | op::PUT => {
                self.line_opcode(code)?;
            }
            op::GLOBAL => {
                let module = self.line(256)?;
                let name = self.line(256)?;
                self.global(module, name)?;
            }
            op::STACK_GLOBAL => {
                let items = self.pop_many(2)?;
                let (Value::Text(module), Value::Text(name)) = (items[0], items[1]) else {
                    return Err(self.error("a global without a name", "module and name as strings"));
                };
                self.global(module.as_bytes(), name.as_bytes())?;
            }
            op::REDUCE => self.reduce()?,
            op::BINPERSID if self.torch => {
                let id = self.pop("an identifier")?;
                let storage = torch::Storage::new(self, id)?;
                self.object(Object::Storage(storage))?;
            }
            op::BUILD => self.build()?,
            _ if self.scalar(code)? || self.container(code)? => {}
            _ => {
                let found = match op::name(code) {
                    Some(name) => format!("the opcode {name}"),
                    None => format!("the byte {code:#04x}, which is not an opcode"),
                };
                return Err(self.error(found, "an opcode that plain data needs"));
            }
        }
        Ok(())
    }

    /// Runs an opcode that pushes a number, bytes or text; false if it is another one.
    fn scalar(&mut self, code: u8) -> Result<bool> {
        match code {
            op::NONE => self.push(Value::None)?,
            op::NEWTRUE => self.push(Value::Bool(true))?,
            op::NEWFALSE => self.push(Value::Bool(false))?,
            op::BININT1 => {
                let value = self.number::<1>("a number")?;
                self.push(Value::Int(value as i64))?;
            }
            op::BININT2 => {
                let value = self.number::<2>("a number")?;
                self.push(Value::Int(value as i64))?;
            }
            op::BININT => {
                let value = self.number::<4>("a number")?;
                self.push(Value::Int(i64::from(value as u32 as i32)))?;
            }
            op::LONG1 => {
                let digits = self.sized::<1>("a long integer")?;
                if digits.len() > 8 {
                    return Err(self.error(format!("a number of {} bytes", digits.len()), "at most 8"));
                }
                let negative = digits.last().is_some_and(|&b| b >= 128);
                let mut wide = if negative { [255; 8] } else { [0; 8] };
                wide[..digits.len()].copy_from_slice(digits);
                self.push(Value::Int(i64::from_le_bytes(wide)))?;
            }
            op::BINFLOAT => {
                let bits = self.number::<8>("a number")?;
                self.push(Value::Float(f64::from_bits(bits.swap_bytes())))?;
            }
            op::SHORT_BINSTRING | op::SHORT_BINBYTES => {
                let bytes = self.sized::<1>("a string")?;
                self.push(Value::Bytes(bytes))?;
            }
            op::BINSTRING | op::BINBYTES => {
                let bytes = self.sized::<4>("a string")?;
                self.push(Value::Bytes(bytes))?;
            }
            op::BINBYTES8 | op::BYTEARRAY8 => {
                let bytes = self.sized::<8>("bytes")?;
                self.push(Value::Bytes(bytes))?;
            }
            op::SHORT_BINUNICODE => self.text::<1>()?,
            op::BINUNICODE => self.text::<4>()?,
            op::BINUNICODE8 => self.text::<8>()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Runs an opcode that makes or fills a list, dictionary or tuple; false if it is another one.
    fn container(&mut self, code: u8) -> Result<bool> {
        match code {
            op::EMPTY_LIST => self.object(Object::List(vec![]))?,
            op::EMPTY_DICT => self.object(Object::Dict(vec![]))?,
            op::EMPTY_TUPLE => self.object(Object::Tuple(vec![]))?,
            op::TUPLE1 | op::TUPLE2 | op::TUPLE3 => {
                let items = self.pop_many((code - op::TUPLE1) as usize + 1)?;
                self.object(Object::Tuple(items))?;
            }
            op::TUPLE => {
                let items = self.pop_to_mark()?;
                self.object(Object::Tuple(items))?;
            }
            op::LIST => {
                let items = self.pop_to_mark()?;
                self.object(Object::List(items))?;
            }
            op::DICT => {
                let items = self.pop_to_mark()?;
                let pairs = self.pairs(items)?;
                self.object(Object::Dict(pairs))?;
            }
            op::APPEND => {
                let item = self.pop("a value")?;
                self.list()?.push(item);
            }
            op::APPENDS => {
                let mut items = self.pop_to_mark()?;
                self.list()?.append(&mut items);
            }
            op::SETITEM => {
                let items = self.pop_many(2)?;
                self.dict()?.push((items[0], items[1]));
            }
            op::SETITEMS => {
                let items = self.pop_to_mark()?;
                let mut pairs = self.pairs(items)?;
                self.dict()?.append(&mut pairs);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8]> {
        match self.bytes.get(self.at..).and_then(|rest| rest.get(..n)) {
            Some(bytes) => {
                self.at += n;
                Ok(bytes)
            }
            None => {
                let left = self.bytes.len() - self.at.min(self.bytes.len());
                Err(self.error(
                    format!("the end of the file ({left} bytes left)"),
                    format!("{what} of {n} bytes"),
                ))
            }
        }
    }

    /// A little-endian number of `N` bytes.
    fn number<const N: usize>(&mut self, what: &str) -> Result<u64> {
        let bytes = self.take(N, what)?;
        Ok(bytes.iter().rev().fold(0, |value, &b| value << 8 | u64::from(b)))
    }

    /// Bytes, preceded by their length in `N` bytes.
    fn sized<const N: usize>(&mut self, what: &str) -> Result<&'a [u8]> {
        let length = self.number::<N>(what)?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX), what)
    }

    fn text<const N: usize>(&mut self) -> Result<()> {
        let bytes = self.sized::<N>("a text")?;
        let text =
            std::str::from_utf8(bytes).map_err(|_| self.error("a string that is not UTF-8", "UTF-8"))?;
        self.push(Value::Text(text))
    }

    /// The bytes up to the next line feed, at most `most` away.
    fn line(&mut self, most: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        match rest.iter().take(most).position(|&b| b == b'\n') {
            Some(end) => {
                self.at += end + 1;
                Ok(&rest[..end])
            }
            None => Err(self.error("an unterminated line", "a line feed")),
        }
    }

    fn count(&mut self, n: usize) -> Result<()> {
        self.values += n;
        match self.values <= MOST_VALUES {
            true => Ok(()),
            false => Err(self.error("too many values", format!("at most {MOST_VALUES}"))),
        }
    }

    fn push(&mut self, value: Value<'a>) -> Result<()> {
        self.count(1)?;
        self.stack.push(value);
        Ok(())
    }

    fn object(&mut self, object: Object<'a>) -> Result<()> {
        self.count(2)?;
        self.objects.push(object);
        self.push(Value::Object(Handle(self.objects.len() as u32 - 1)))
    }

    /// Values below the last mark are inaccessible.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self, what: &str) -> Result<Value<'a>> {
        match self.stack.len() > self.floor() {
            true => Ok(self.stack.pop().expect("above the floor")),
            false => Err(self.error("an empty stack", what)),
        }
    }

    fn pop_many(&mut self, n: usize) -> Result<Vec<Value<'a>>> {
        match self.stack.len() - self.floor() >= n {
            true => Ok(self.stack.split_off(self.stack.len() - n)),
            false => Err(self.error("an empty stack", format!("{n} values"))),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value<'a>>> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => Err(self.error("no mark", "a mark on the stack")),
        }
    }

    fn pairs(&self, items: Vec<Value<'a>>) -> Result<Vec<(Value<'a>, Value<'a>)>> {
        match items.len() % 2 {
            0 => Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()),
            _ => Err(self.error("a key without a value", "keys and values")),
        }
    }

    /// The object at the top of the stack, without popping it.
    fn top(&mut self) -> Option<&mut Object<'a>> {
        let Some(Value::Object(handle)) = self.stack[self.floor()..].last() else { return None };
        self.objects.get_mut(handle.0 as usize)
    }

    fn list(&mut self) -> Result<&mut Vec<Value<'a>>> {
        let error = self.error("items for something else", "a list to append them to");
        match self.top() {
            Some(Object::List(items)) => Ok(items),
            _ => Err(error),
        }
    }

    fn dict(&mut self) -> Result<&mut Vec<(Value<'a>, Value<'a>)>> {
        let error = self.error("entries for something else", "a dictionary to put them into");
        match self.top() {
            Some(Object::Dict(entries)) => Ok(entries),
            _ => Err(error),
        }
    }

    fn put(&mut self, key: u32) -> Result<()> {
        self.count(1)?;
        let value = *self.stack.last().ok_or_else(|| self.error("an empty stack", "a value to remember"))?;
        self.memo.insert(key, value);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<()> {
        match self.memo.get(&key) {
            Some(&value) => self.push(value),
            None => Err(self.error(format!("memo key {key}"), "a key that was stored before")),
        }
    }
}
