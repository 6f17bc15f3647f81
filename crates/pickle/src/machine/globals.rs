//! What a pickle makes of the few globals that it may name.

use super::Machine;
use crate::{Array, Global, Object, Result, Value, bytes_of, text_of, torch};

const ALLOWED_GLOBALS: &str = "one of those that make an array of unsigned bytes";

impl<'a> Machine<'_, 'a> {
    pub(super) fn global(&mut self, module: &[u8], name: &[u8]) -> Result<()> {
        let global = match (module, name) {
            (b"numpy.core.multiarray" | b"numpy._core.multiarray", b"_reconstruct") => Global::Reconstruct,
            (b"numpy.core.numeric" | b"numpy._core.numeric", b"_frombuffer") => Global::FromBuffer,
            (b"numpy", b"ndarray") => Global::Array,
            (b"numpy", b"dtype") => Global::Type,
            (b"_codecs", b"encode") => Global::Encode,
            (b"__builtin__" | b"builtins", b"bytes") => Global::Bytes,
            _ if self.torch && torch::Name::of(module, name).is_some() => {
                Global::Torch(torch::Name::of(module, name).expect("just found"))
            }
            _ => {
                let shown = |bytes: &[u8]| {
                    String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).escape_debug().to_string()
                };
                let found = format!("the global {}.{}", shown(module), shown(name));
                let expected = if self.torch { torch::ALLOWED_GLOBALS } else { ALLOWED_GLOBALS };
                return Err(self.error(found, expected));
            }
        };
        self.push(Value::Global(global))
    }

    /// A call of one of the known names.
    pub(super) fn reduce(&mut self) -> Result<()> {
        let items = self.pop_many(2)?;
        let Some(arguments) = self.short_tuple(items[1]) else {
            return Err(self.error("a call without arguments", "a tuple of at most 8"));
        };
        let object = match (items[0], &arguments[..]) {
            (Value::Global(Global::Reconstruct), [Value::Global(Global::Array), ..]) => Object::Array(None),
            (Value::Global(Global::Type), [kind, ..]) => {
                let kind = match kind {
                    Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                    Value::Text(text) => text.to_string(),
                    other => format!("{other:?}"),
                };
                if !["u1", "|u1", "uint8", "B"].contains(&kind.as_str()) {
                    let kind: String = kind.chars().take(20).collect();
                    return Err(self.error(format!("an array of type {kind:?}"), "u1 (unsigned bytes)"));
                }
                Object::ByteType
            }
            (Value::Global(Global::FromBuffer), &[data, kind, shape, Value::Text("C")]) => {
                self.byte_type(kind)?;
                self.array(shape, data)?
            }
            (Value::Global(Global::Encode), &[text, Value::Text("latin1" | "latin-1")]) => {
                self.encode_latin1(text)?
            }
            (Value::Global(Global::Bytes), []) => Object::Owned(vec![]),
            (Value::Global(Global::Torch(name)), arguments) => match torch::call(self, name, arguments)? {
                torch::Result::New(object) => object,
                torch::Result::Same(value) => return self.push(value),
            },
            (Value::Global(global), _) => {
                return Err(self.error(format!("{global:?} with other arguments"), "those that numpy writes"));
            }
            _ => return Err(self.error("a call of a value", "a call of a known name")),
        };
        self.object(object)
    }

    /// Fills an empty array, or completes an element type.
    pub(super) fn build(&mut self) -> Result<()> {
        let state = self.pop("a state")?;
        let is_torch = self.torch;
        match self.top() {
            Some(Object::ByteType) => Ok(()),
            // Attributes of a dictionary: the versions of PyTorch's modules.
            Some(Object::Dict(_)) if is_torch => Ok(()),
            Some(Object::Array(None)) => {
                let parts = self.short_tuple(state).unwrap_or_default();
                let &[_version, shape, kind, fortran, data] = &parts[..] else {
                    return Err(
                        self.error("an array state of another form", "version, shape, type, order and data")
                    );
                };
                self.byte_type(kind)?;
                if fortran != Value::Bool(false) && fortran != Value::Int(0) {
                    return Err(self.error("an array in column-major order", "row-major order"));
                }
                let array = self.array(shape, data)?;
                *self.top().expect("it was there") = array;
                Ok(())
            }
            _ => Err(self.error("a state for something else", "an empty array or an element type")),
        }
    }

    /// The items of a tuple of at most eight.
    pub(crate) fn short_tuple(&self, value: Value<'a>) -> Option<Vec<Value<'a>>> {
        let Value::Object(handle) = value else { return None };
        match &self.objects[handle.0 as usize] {
            Object::Tuple(items) if items.len() <= 8 => Some(items.clone()),
            _ => None,
        }
    }

    fn byte_type(&self, kind: Value<'a>) -> Result<()> {
        match kind {
            Value::Object(handle) if matches!(self.objects[handle.0 as usize], Object::ByteType) => Ok(()),
            _ => Err(self.error("an array of another type", "u1 (unsigned bytes)")),
        }
    }

    fn array(&self, shape: Value<'a>, data: Value<'a>) -> Result<Object<'a>> {
        let sizes = self.short_tuple(shape).unwrap_or_default();
        let shape: Option<Vec<usize>> = sizes
            .iter()
            .map(|size| if let Value::Int(n) = size { usize::try_from(*n).ok() } else { None })
            .collect();
        let shape = shape.filter(|s| !s.is_empty()).ok_or_else(|| self.error("no shape", "1 to 8 sizes"))?;
        let bytes =
            bytes_of(&self.objects, data).ok_or_else(|| self.error("no data", "the bytes of the array"))?;
        let count = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        if count != Some(bytes.len()) {
            let found = format!("{} bytes of data", bytes.len());
            return Err(self.error(found, format!("those of an array of shape {shape:?}")));
        }
        Ok(Object::Array(Some(Array { shape, data })))
    }

    /// `text.encode("latin1")`: a byte for each character.
    fn encode_latin1(&mut self, text: Value<'a>) -> Result<Object<'a>> {
        let text = text_of(&self.objects, text)
            .ok_or_else(|| self.error("Encode of something else", "a string to encode"))?;
        let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
        let bytes = bytes.ok_or_else(|| self.error("a string beyond latin1", "characters up to 255"))?;
        // The same string may be encoded many times: the total is limited to the size of the file.
        self.decoded += bytes.len();
        if self.decoded > self.bytes.len() {
            return Err(self.error("the same string encoded again and again", "each string once"));
        }
        Ok(Object::Owned(bytes))
    }
}
