//! A reader for pickled data files: dictionaries, lists, numbers, strings, arrays of bytes, and PyTorch's tensors.
//!
//! A pickle is a program, and loading an untrusted one in Python can run arbitrary code. This reader supports only the
//! opcodes that plain data needs, and of the globals that a pickle may call only those that make an array of unsigned
//! bytes, and bytes in the protocols that lack them; [`Pickle::parse_torch`] those of PyTorch's state dicts. It executes
//! nothing; anything else is rejected by name.
//! Protocols 0 to 5 of Python 2 and 3 are read. Strings and bytes are borrowed from the input unless they must be
//! decoded, so memory grows with the number of values and the size of the file.

#![forbid(unsafe_code)]

mod machine;
mod opcodes;
mod torch;

use machine::Machine;
pub use torch::{TensorRef, TorchType};

/// The bytes at an offset are no plain data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: offset {offset}: found {found}, expected {expected}")]
pub struct PickleError {
    /// The file, or `archive: member`.
    pub file: String,
    /// Position in bytes.
    pub offset: u64,
    /// What was found.
    pub found: String,
    /// What was expected.
    pub expected: String,
}

type Result<T> = std::result::Result<T, PickleError>;

/// The value that a pickle describes; see the [module](self).
#[derive(Debug)]
pub struct Pickle<'a> {
    root: Value<'a>,
    objects: Vec<Object<'a>>,
}

/// One value inside a [`Pickle`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// Bytes, or a string written by Python 2, which does not distinguish them.
    Bytes(&'a [u8]),
    /// A string.
    Text(&'a str),
    /// A container, found in the [`Pickle`] by its methods.
    Object(Handle),
    /// A global of a Python module that is no value, for internal use only.
    #[doc(hidden)]
    Global(Global),
}

/// A reference to a container of a [`Pickle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle(u32);

/// The globals that an array of bytes needs.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Global {
    /// `numpy.core.multiarray._reconstruct`: an empty array, to be filled by `BUILD`.
    Reconstruct,
    /// `numpy.core.numeric._frombuffer`: an array over bytes.
    FromBuffer,
    /// `numpy.ndarray`, an argument of the first.
    Array,
    /// `numpy.dtype`.
    Type,
    /// `_codecs.encode`, with which Python 3 writes bytes in old protocols.
    Encode,
    /// `bytes`, with which it writes empty ones there.
    Bytes,
    /// One of PyTorch's.
    Torch(torch::Name),
}

#[derive(Debug)]
enum Object<'a> {
    List(Vec<Value<'a>>),
    Tuple(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// `numpy.dtype('u1')`.
    ByteType,
    Array(Option<Array<'a>>),
    /// Bytes that had to be decoded.
    Owned(Vec<u8>),
    /// A string that had to be decoded.
    OwnedText(String),
    Storage(torch::Storage<'a>),
    Tensor(torch::Tensor),
}

#[derive(Debug)]
struct Array<'a> {
    shape: Vec<usize>,
    data: Value<'a>,
}

impl<'a> Pickle<'a> {
    /// Reads a pickle; `name` is used in error messages.
    ///
    /// # Errors
    /// If the bytes are not a complete pickle, or need more than plain data: the error names the opcode or the global.
    ///
    /// ```
    /// use tapegrad_pickle::Pickle;
    /// // pickle.dumps({"labels": [3, 5]}, protocol=2)
    /// let bytes = b"\x80\x02}q\x00X\x06\x00\x00\x00labelsq\x01]q\x02(K\x03K\x05es.";
    /// let pickle = Pickle::parse("memory", bytes)?;
    /// assert_eq!(pickle.get("labels").and_then(|v| pickle.ints(v)), Some(vec![3, 5]));
    ///
    /// // os.system("echo gone")
    /// let error = Pickle::parse("memory", b"cos\nsystem\n(S'echo gone'\ntR.").unwrap_err();
    /// assert!(error.to_string().contains("found the global os.system"));
    /// # Ok::<(), tapegrad_pickle::PickleError>(())
    /// ```
    pub fn parse(name: &str, bytes: &'a [u8]) -> Result<Self> {
        let (root, objects, _) = Machine::new(name, bytes, false).run()?;
        Ok(Pickle { root, objects })
    }

    /// Reads a pickle that `torch.save` wrote, which may contain tensors; returns the number of its bytes, too, since other
    /// pickles follow it in old files.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_torch(name: &str, bytes: &'a [u8]) -> Result<(Self, usize)> {
        let (root, objects, end) = Machine::new(name, bytes, true).run()?;
        Ok((Pickle { root, objects }, end))
    }

    /// The whole value.
    pub fn root(&self) -> Value<'a> {
        self.root
    }

    /// The entry `key` of the dictionary that the pickle is; the last one if there are several.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.entries(self.root)?
            .iter()
            .rev()
            .find(|(k, _)| raw_of(&self.objects, *k) == Some(key.as_bytes()))
            .map(|(_, value)| *value)
    }

    /// A string, from either version of Python.
    pub fn text(&self, value: Value<'a>) -> Option<String> {
        std::str::from_utf8(raw_of(&self.objects, value)?).ok().map(String::from)
    }

    /// A list or tuple of integers.
    pub fn ints(&self, value: Value<'a>) -> Option<Vec<i64>> {
        self.items(value)?.iter().map(|v| if let Value::Int(i) = v { Some(*i) } else { None }).collect()
    }

    /// A list or tuple of strings.
    pub fn texts(&self, value: Value<'a>) -> Option<Vec<String>> {
        let items = self.items(value)?;
        // A long string can occur in a list many times without occurring in the file as often.
        let size: usize = items
            .iter()
            .map(|v| raw_of(&self.objects, *v).map_or(0, <[u8]>::len))
            .fold(0, usize::saturating_add);
        if size > 1 << 26 {
            return None;
        }
        items.iter().map(|v| self.text(*v)).collect()
    }

    /// The shape and the bytes, row-major, of an array of unsigned bytes.
    pub fn array(&self, value: Value<'a>) -> Option<(&[usize], &[u8])> {
        let Value::Object(handle) = value else { return None };
        let Object::Array(Some(array)) = &self.objects[handle.0 as usize] else { return None };
        Some((&array.shape, bytes_of(&self.objects, array.data)?))
    }

    /// The keys and values of a dictionary, in order; a key that was set twice is there twice.
    pub fn entries(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        let Value::Object(handle) = value else { return None };
        match &self.objects[handle.0 as usize] {
            Object::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    /// The items of a list or tuple.
    pub fn items(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        let Value::Object(handle) = value else { return None };
        match &self.objects[handle.0 as usize] {
            Object::List(items) | Object::Tuple(items) => Some(items),
            _ => None,
        }
    }
}

fn bytes_of<'s, 'a: 's>(objects: &'s [Object<'a>], value: Value<'a>) -> Option<&'s [u8]> {
    match value {
        Value::Bytes(bytes) => Some(bytes),
        Value::Object(handle) => match &objects[handle.0 as usize] {
            Object::Owned(bytes) => Some(bytes),
            _ => None,
        },
        _ => None,
    }
}

/// The bytes of a string or of bytes: Python 2 does not distinguish them, and Python 3 keeps Python 2's as bytes.
fn raw_of<'s, 'a: 's>(objects: &'s [Object<'a>], value: Value<'a>) -> Option<&'s [u8]> {
    text_of(objects, value).map(str::as_bytes).or_else(|| bytes_of(objects, value))
}

fn text_of<'s, 'a: 's>(objects: &'s [Object<'a>], value: Value<'a>) -> Option<&'s str> {
    match value {
        Value::Text(text) => Some(text),
        Value::Object(handle) => match &objects[handle.0 as usize] {
            Object::OwnedText(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests;
