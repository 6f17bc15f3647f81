//! One file of the conformance data: JSON next to safetensors, and the values that they encode.

use std::path::Path;
use tapegrad::tape;

use safetensors::SafeTensors;
use serde_json::Value as Json;
use tapegrad::tape::{DType, Tensor, Var};

/// A Python value, decoded.
#[derive(Clone, Debug)]
pub enum Value {
    /// `None`
    None,
    /// A bool.
    Bool(bool),
    /// An int.
    Int(i64),
    /// A float.
    Float(f64),
    /// A string.
    Str(String),
    /// A list or a tuple.
    List(Vec<Value>),
    /// A `torch.dtype`.
    DType(DType),
    /// A slice of an index.
    Slice([Option<i64>; 3]),
    /// `...` in an index.
    Ellipsis,
    /// A function, by its path.
    Function(String),
    /// Something that no operation takes, by its kind.
    Other(&'static str),
    /// A tensor.
    Tensor(Var),
}

impl Value {
    /// Puts a variable in the place of another one.
    pub fn replace(&mut self, old: &Var, new: &Var) {
        match self {
            Value::Tensor(v) if v.id() == old.id() => *v = new.clone(),
            Value::List(items) => items.iter_mut().for_each(|item| item.replace(old, new)),
            _ => {}
        }
    }

    /// What the value is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool(_) => "a bool",
            Value::Int(_) => "an int",
            Value::Float(_) => "a float",
            Value::Str(_) => "a string",
            Value::List(_) => "a list",
            Value::DType(_) => "a dtype",
            Value::Slice(_) => "a slice",
            Value::Ellipsis => "an ellipsis",
            Value::Function(_) => "a function",
            Value::Other(kind) => kind,
            Value::Tensor(_) => "a tensor",
        }
    }
}

/// A tensor argument and its path in the call.
pub struct Leaf {
    /// The path that names it in `grads` and `after`.
    pub path: String,
    /// The tensor as it was handed to the call.
    pub var: Var,
    /// Whether its gradient is wanted.
    pub requires_grad: bool,
}

/// The tensors of one file.
pub struct Store<'a>(Option<SafeTensors<'a>>);

impl<'a> Store<'a> {
    /// Reads the bytes of a safetensors file, or nothing where a file has no tensors.
    pub fn new(bytes: Option<&'a [u8]>) -> Result<Self, String> {
        match bytes {
            None => Ok(Store(None)),
            Some(bytes) => SafeTensors::deserialize(bytes).map(|s| Store(Some(s))).map_err(|e| e.to_string()),
        }
    }

    /// The tensor stored under a key, contiguous.
    pub fn tensor(&self, key: &str) -> Result<Tensor, String> {
        let file = self.0.as_ref().ok_or("the file has no tensors")?;
        let view = file.tensor(key).map_err(|e| format!("{key}: {e}"))?;
        let (shape, data) = (view.shape(), view.data());
        use safetensors::Dtype as D;
        Ok(match view.dtype() {
            D::F64 => Tensor::from_vec(words(data, f64::from_le_bytes), shape),
            D::F32 => Tensor::from_vec(words(data, f32::from_le_bytes), shape),
            D::I64 => Tensor::from_vec(words(data, i64::from_le_bytes), shape),
            D::BOOL => Tensor::from_vec(data.iter().map(|&b| b != 0).collect::<Vec<bool>>(), shape),
            other => return Err(format!("{key}: dtype {other:?}")),
        })
    }

    /// Decodes a value; tensors among it are added to `leaves` under `path`.
    pub fn value(&self, v: &Json, path: &str, leaves: &mut Vec<Leaf>) -> Result<Value, String> {
        Ok(match v {
            Json::Null => Value::None,
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(n) => match n.as_i64() {
                Some(i) => Value::Int(i),
                None => Value::Float(n.as_f64().ok_or("number out of range")?),
            },
            Json::String(s) => Value::Str(s.clone()),
            Json::Array(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (i, item) in items.iter().enumerate() {
                    list.push(self.value(item, &format!("{path}.{i}"), leaves)?);
                }
                Value::List(list)
            }
            Json::Object(map) => {
                if let Some(key) = map.get("tensor") {
                    let key = key.as_str().ok_or("tensor key is no string")?;
                    let tensor = laid_out(self.tensor(key)?, v)?;
                    let requires_grad = map.get("requires_grad").and_then(Json::as_bool).unwrap_or(false);
                    let var = if requires_grad { Var::parameter(tensor) } else { Var::from(tensor) };
                    leaves.push(Leaf { path: path.to_string(), var: var.clone(), requires_grad });
                    Value::Tensor(var)
                } else if let Some(x) = map.get("float") {
                    Value::Float(float(x)?)
                } else if map.contains_key("dict") {
                    Value::Other("a dict")
                } else if let Some(Json::String(name)) = map.get("dtype") {
                    Value::DType(dtype(name)?)
                } else if let Some(Json::Array(s)) = map.get("slice") {
                    let at = |i: usize| s.get(i).and_then(Json::as_i64);
                    Value::Slice([at(0), at(1), at(2)])
                } else if map.contains_key("ellipsis") {
                    Value::Ellipsis
                } else if map.contains_key("memory_format") {
                    Value::Other("a memory format")
                } else if let Some(Json::String(path)) = map.get("function") {
                    Value::Function(path.clone())
                } else {
                    return Err(format!("unknown encoding {v}"));
                }
            }
        })
    }
}

fn words<T, const N: usize>(data: &[u8], decode: fn([u8; N]) -> T) -> Vec<T> {
    data.chunks_exact(N).map(|c| decode(c.try_into().expect("chunks have N bytes"))).collect()
}

/// A float as the format writes it: a number, or "inf", "-inf", "nan".
pub fn float(x: &Json) -> Result<f64, String> {
    match x {
        Json::Number(n) => n.as_f64().ok_or_else(|| format!("{n} is no float")),
        Json::String(s) => match s.as_str() {
            "inf" => Ok(f64::INFINITY),
            "-inf" => Ok(f64::NEG_INFINITY),
            "nan" => Ok(f64::NAN),
            _ => Err(format!("{s} is no float")),
        },
        other => Err(format!("{other} is no float")),
    }
}

/// The dtype with PyTorch's name.
pub fn dtype(name: &str) -> Result<DType, String> {
    Ok(match name {
        "float64" => DType::F64,
        "float32" => DType::F32,
        "float16" => DType::F16,
        "bfloat16" => DType::BF16,
        "int64" => DType::I64,
        "uint8" => DType::U8,
        "bool" => DType::Bool,
        _ => return Err(format!("dtype {name}")),
    })
}

/// The same values in the strides and the offset that the sample names.
fn laid_out(values: Tensor, v: &Json) -> Result<Tensor, String> {
    let offset = v.get("offset").and_then(Json::as_u64).unwrap_or(0) as usize;
    let shape = values.shape().to_vec();
    let strides: Vec<usize> = match v.get("strides") {
        Some(Json::Array(s)) => s.iter().filter_map(Json::as_u64).map(|s| s as usize).collect(),
        _ => values.strides().to_vec(),
    };
    if values.numel() == 0 || (offset == 0 && strides == values.strides()) {
        return Ok(values);
    }
    if strides.len() != shape.len() {
        return Err(format!("{} strides for shape {shape:?}", strides.len()));
    }
    Ok(match values.dtype() {
        DType::F64 => scatter::<f64>(&values, &shape, &strides, offset),
        DType::F32 => scatter::<f32>(&values, &shape, &strides, offset),
        DType::I64 => scatter::<i64>(&values, &shape, &strides, offset),
        DType::Bool => scatter::<bool>(&values, &shape, &strides, offset),
        other => return Err(format!("strided {other:?}")),
    })
}

fn scatter<T: tape::Element>(values: &Tensor, shape: &[usize], strides: &[usize], offset: usize) -> Tensor {
    let last: usize = shape.iter().zip(strides).map(|(&n, &s)| (n - 1) * s).sum();
    let mut buffer = vec![T::default(); offset + last + 1];
    let mut index = vec![0usize; shape.len()];
    for x in values.to_vec::<T>() {
        buffer[offset + index.iter().zip(strides).map(|(&i, &s)| i * s).sum::<usize>()] = x;
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            if index[d] < shape[d] {
                break;
            }
            index[d] = 0;
        }
    }
    Tensor::from_strided(&buffer, shape, strides, offset)
}

/// A file of samples, parsed.
pub struct File {
    /// The whole JSON object.
    pub head: Json,
    /// The bytes of the safetensors file beside it.
    pub bytes: Option<Vec<u8>>,
}

impl File {
    /// Reads `NAME.json` and the tensors file that it names.
    pub fn read(path: &Path) -> Result<File, String> {
        let fail = |p: &Path, e: String| format!("{}: {e}", p.display());
        let text = std::fs::read(path).map_err(|e| fail(path, e.to_string()))?;
        let head: Json = serde_json::from_slice(&text).map_err(|e| fail(path, e.to_string()))?;
        if head.get("format").and_then(Json::as_i64) != Some(1) {
            return Err(fail(path, "format is not 1".into()));
        }
        let bytes = match head.get("tensors").and_then(Json::as_str) {
            None => None,
            Some(name) => {
                let beside = path.with_file_name(name);
                Some(std::fs::read(&beside).map_err(|e| fail(&beside, e.to_string()))?)
            }
        };
        Ok(File { head, bytes })
    }

    /// A string of the head.
    pub fn text(&self, key: &str) -> &str {
        self.head.get(key).and_then(Json::as_str).unwrap_or("")
    }

    /// The samples.
    pub fn samples(&self) -> &[Json] {
        self.head.get("samples").and_then(Json::as_array).map(Vec::as_slice).unwrap_or(&[])
    }
}
