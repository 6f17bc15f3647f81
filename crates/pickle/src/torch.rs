//! PyTorch's globals: ordered dictionaries, storages, tensors on them.

use crate::machine::Machine;
use crate::{Handle, Object, Pickle, Value};

pub(crate) const ALLOWED_GLOBALS: &str =
    "one of those of PyTorch's state dicts: tensors, their storages and types, OrderedDict";

/// The element types of PyTorch's storages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum TorchType {
    F64,
    F32,
    F16,
    BF16,
    F8E4M3,
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    Complex64,
    Complex128,
}

impl TorchType {
    /// The bytes of an element.
    pub fn size(self) -> usize {
        match self {
            TorchType::Complex128 => 16,
            TorchType::F64 | TorchType::I64 | TorchType::U64 | TorchType::Complex64 => 8,
            TorchType::F32 | TorchType::I32 | TorchType::U32 => 4,
            TorchType::F16 | TorchType::BF16 | TorchType::I16 | TorchType::U16 => 2,
            _ => 1,
        }
    }
}

/// A global that a pickle of PyTorch may name.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    OrderedDict,
    RebuildTensor,
    RebuildTyped,
    RebuildParameter,
    Size,
    Type(TorchType),
    /// The type of a storage; `None` for one of bytes, whose tensors have types of their own.
    Storage(Option<TorchType>),
}

impl Name {
    pub(crate) fn of(module: &[u8], name: &[u8]) -> Option<Name> {
        use TorchType as T;
        Some(match (module, name) {
            (b"collections", b"OrderedDict") => Name::OrderedDict,
            (b"torch._utils", b"_rebuild_tensor_v2") => Name::RebuildTensor,
            (b"torch._utils", b"_rebuild_tensor_v3") => Name::RebuildTyped,
            (b"torch._utils", b"_rebuild_parameter") => Name::RebuildParameter,
            (b"torch", b"Size") => Name::Size,
            (b"torch.storage", b"UntypedStorage") => Name::Storage(None),
            (b"torch", b"DoubleStorage") => Name::Storage(Some(T::F64)),
            (b"torch", b"FloatStorage") => Name::Storage(Some(T::F32)),
            (b"torch", b"HalfStorage") => Name::Storage(Some(T::F16)),
            (b"torch", b"BFloat16Storage") => Name::Storage(Some(T::BF16)),
            (b"torch", b"LongStorage") => Name::Storage(Some(T::I64)),
            (b"torch", b"IntStorage") => Name::Storage(Some(T::I32)),
            (b"torch", b"ShortStorage") => Name::Storage(Some(T::I16)),
            (b"torch", b"CharStorage") => Name::Storage(Some(T::I8)),
            (b"torch", b"ByteStorage") => Name::Storage(Some(T::U8)),
            (b"torch", b"BoolStorage") => Name::Storage(Some(T::Bool)),
            (b"torch", b"ComplexFloatStorage") => Name::Storage(Some(T::Complex64)),
            (b"torch", b"ComplexDoubleStorage") => Name::Storage(Some(T::Complex128)),
            (b"torch", b"float64") => Name::Type(T::F64),
            (b"torch", b"float32") => Name::Type(T::F32),
            (b"torch", b"float16") => Name::Type(T::F16),
            (b"torch", b"bfloat16") => Name::Type(T::BF16),
            (b"torch", b"float8_e4m3fn") => Name::Type(T::F8E4M3),
            (b"torch", b"float8_e5m2") => Name::Type(T::F8E5M2),
            (b"torch", b"int64") => Name::Type(T::I64),
            (b"torch", b"int32") => Name::Type(T::I32),
            (b"torch", b"int16") => Name::Type(T::I16),
            (b"torch", b"int8") => Name::Type(T::I8),
            (b"torch", b"uint64") => Name::Type(T::U64),
            (b"torch", b"uint32") => Name::Type(T::U32),
            (b"torch", b"uint16") => Name::Type(T::U16),
            (b"torch", b"uint8") => Name::Type(T::U8),
            (b"torch", b"bool") => Name::Type(T::Bool),
            _ => return None,
        })
    }
}

/// The memory of tensors, which is elsewhere in the file.
#[derive(Debug, Clone)]
pub(crate) struct Storage<'a> {
    dtype: Option<TorchType>,
    /// Its name, a string.
    key: Value<'a>,
    /// The number of its elements.
    len: usize,
}

#[derive(Debug)]
pub(crate) struct Tensor {
    storage: Handle,
    dtype: TorchType,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

/// A tensor in a pickle of PyTorch: which part of which storage it is. Nothing is known of the storage: whether it exists,
/// and is as long as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorRef<'s> {
    /// The type of its elements.
    pub dtype: TorchType,
    /// The name of its storage.
    pub storage: &'s str,
    /// The number of bytes that the storage should have.
    pub storage_bytes: usize,
    /// The offset of the first element, in elements.
    pub offset: usize,
    /// The sizes.
    pub shape: &'s [usize],
    /// The distance of neighbors in each dimension, in elements.
    pub strides: &'s [usize],
}

impl<'a> Storage<'a> {
    /// The storage of a persistent identifier: `("storage", type, key, location, number of elements)`.
    pub(crate) fn new(machine: &Machine<'_, 'a>, id: Value<'a>) -> crate::Result<Storage<'a>> {
        let wrong =
            || machine.error("an identifier of another form", "storage, type, key, location and length");
        let parts = machine.short_tuple(id).ok_or_else(wrong)?;
        let (kind, key, len) = match &parts[..] {
            // Old files add None, or the view that an even older file had.
            &[tag, kind, key, _location, Value::Int(len)]
            | &[tag, kind, key, _location, Value::Int(len), Value::None]
                if machine.string(tag) == Some("storage") && machine.string(key).is_some() =>
            {
                (kind, key, len)
            }
            _ => return Err(wrong()),
        };
        let Value::Global(crate::Global::Torch(Name::Storage(dtype))) = kind else { return Err(wrong()) };
        let len = usize::try_from(len).map_err(|_| wrong())?;
        Ok(Storage { dtype, key, len })
    }
}

/// What a call returns.
pub(crate) enum Result<'a> {
    New(Object<'a>),
    Same(Value<'a>),
}

pub(crate) fn call<'a>(
    machine: &Machine<'_, 'a>,
    name: Name,
    arguments: &[Value<'a>],
) -> crate::Result<Result<'a>> {
    let wrong = || machine.error(format!("{name:?} with other arguments"), "those that PyTorch writes");
    Ok(Result::New(match (name, arguments) {
        (Name::OrderedDict, []) => Object::Dict(Vec::new()),
        (Name::Size, &[sizes]) => return Ok(Result::Same(sizes)),
        (Name::RebuildParameter, &[tensor, _requires_grad, _hooks]) => return Ok(Result::Same(tensor)),
        (Name::RebuildTensor, &[storage, offset, shape, strides, _grad, _hooks, ..]) => {
            let dtype = machine.storage(storage).and_then(|s| s.dtype).ok_or_else(wrong)?;
            tensor(machine, storage, dtype, [offset, shape, strides]).ok_or_else(wrong)?
        }
        (
            Name::RebuildTyped,
            &[
                storage,
                offset,
                shape,
                strides,
                _grad,
                _hooks,
                Value::Global(crate::Global::Torch(Name::Type(dtype))),
                ..,
            ],
        ) => tensor(machine, storage, dtype, [offset, shape, strides]).ok_or_else(wrong)?,
        _ => return Err(wrong()),
    }))
}

fn tensor<'a>(
    machine: &Machine<'_, 'a>,
    storage: Value<'a>,
    dtype: TorchType,
    [offset, shape, strides]: [Value<'a>; 3],
) -> Option<Object<'a>> {
    machine.storage(storage)?;
    let Value::Object(storage) = storage else { return None };
    let number = |v: &Value<'a>| if let Value::Int(n) = v { usize::try_from(*n).ok() } else { None };
    let numbers = |v| machine.short_tuple(v)?.iter().map(number).collect::<Option<Vec<usize>>>();
    let (offset, shape, strides) = (number(&offset)?, numbers(shape)?, numbers(strides)?);
    (shape.len() == strides.len()).then_some(Object::Tensor(Tensor {
        storage,
        dtype,
        offset,
        shape,
        strides,
    }))
}

impl<'a> Pickle<'a> {
    /// A tensor, or a parameter.
    pub fn tensor(&self, value: Value<'a>) -> Option<TensorRef<'_>> {
        let Value::Object(handle) = value else { return None };
        let Object::Tensor(t) = &self.objects[handle.0 as usize] else { return None };
        let Object::Storage(storage) = &self.objects[t.storage.0 as usize] else { return None };
        Some(TensorRef {
            dtype: t.dtype,
            storage: crate::text_of(&self.objects, storage.key)?,
            storage_bytes: storage.len.saturating_mul(storage.dtype.map_or(1, TorchType::size)),
            offset: t.offset,
            shape: &t.shape,
            strides: &t.strides,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `data.pkl` of `torch.save({"w": torch.arange(6.).view(2, 3).T, "n": 3}, f)`, and a tensor of type uint16.
    const STATE: &[u8] = b"\x80\x02}q\x00(X\x01\x00\x00\x00wq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02((X\x07\x00\x00\x00storageq\x03ctorch\nFloatStorage\nq\x04X\x01\x00\x00\x000q\x05X\x03\x00\x00\x00cpuq\x06K\x06tq\x07QK\x00K\x03K\x02\x86q\x08K\x01K\x03\x86q\x09\x89ccollections\nOrderedDict\nq\x0a)Rq\x0btq\x0cRq\x0dX\x01\x00\x00\x00nq\x0eK\x03X\x01\x00\x00\x00uq\x0fctorch._utils\n_rebuild_tensor_v3\n((h\x03ctorch.storage\nUntypedStorage\nX\x01\x00\x00\x001h\x06K\x04tQK\x01K\x01\x85K\x01\x85\x89h\x0a)Rctorch\nuint16\ntRu.";

    fn message(bytes: &[u8]) -> String {
        Pickle::parse_torch("f", bytes).unwrap_err().to_string()
    }

    #[test]
    fn tensors_are_parts_of_storages() {
        let (pickle, end) = Pickle::parse_torch("f", STATE).unwrap();
        assert_eq!(end, STATE.len());
        let w = pickle.tensor(pickle.get("w").unwrap()).unwrap();
        let expected = TensorRef {
            dtype: TorchType::F32,
            storage: "0",
            storage_bytes: 24,
            offset: 0,
            shape: &[3, 2],
            strides: &[1, 3],
        };
        assert_eq!(w, expected);
        let u = pickle.tensor(pickle.get("u").unwrap()).unwrap();
        assert_eq!((u.dtype, u.storage_bytes, u.offset), (TorchType::U16, 4, 1));
        assert_eq!(pickle.get("n"), Some(Value::Int(3)));
        assert_eq!(pickle.entries(pickle.root()).unwrap().len(), 3);
    }

    #[test]
    fn nothing_but_tensors_is_called() {
        for (bytes, expected) in [
            (
                &b"cos\nsystem\n."[..],
                "found the global os.system, expected one of those of PyTorch's state dicts",
            ),
            (b"ctorch\nload\n.", "found the global torch.load"),
            (b"ctorch.nn.modules.linear\nLinear\n.", "found the global torch.nn.modules.linear.Linear"),
            (b"ccollections\nOrderedDict\nK\x01\x85R.", "found OrderedDict with other arguments"),
            (b"K\x01Q.", "found an identifier of another form"),
            (b"(X\x07\x00\x00\x00storageK\x01K\x01K\x01K\x01tQ.", "found an identifier of another form"),
            (b"ctorch._utils\n_rebuild_tensor_v2\n(NNNNNNtR.", "found RebuildTensor with other arguments"),
            (b"ctorch\nFloatStorage\n)R.", "found Storage(Some(F32)) with other arguments"),
        ] {
            let message = message(bytes);
            assert!(message.contains(expected), "{message}");
        }
        // Data of other programs does not know them.
        let plain = Pickle::parse("f", STATE).unwrap_err().to_string();
        assert!(plain.contains("found the global torch._utils._rebuild_tensor_v2"), "{plain}");
    }

    proptest! {
        #[test]
        fn mutated_states_never_panic(at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let mut bytes = STATE.to_vec();
            let _ = Pickle::parse_torch("f", &bytes[..cut.index(bytes.len())]);
            let at = at.index(bytes.len());
            bytes[at] = to;
            if let Ok((pickle, _)) = Pickle::parse_torch("f", &bytes) {
                for (_, value) in pickle.entries(pickle.root()).unwrap_or_default() {
                    let _ = pickle.tensor(*value);
                }
            }
        }
    }
}
