"""The names of the parameters of a PyTorch function."""
import inspect

import torch

MANUAL_NAMES = {
    "torch.einsum": ["equation", "operands"],
    "torch.Tensor.expand": ["input", "size"],
    "torch.Tensor.view": ["input", "shape"],
    "torch.Tensor.repeat": ["input", "repeats"],
    "torch.Tensor.__getitem__": ["input", "index"],
}


def _type_fits(kind, v):
    if kind.startswith("Optional["):
        return v is None or _type_fits(kind[len("Optional["):-1], v)
    if kind.startswith("List["):
        inner = kind[len("List["):-1]
        if isinstance(v, (list, tuple)):
            return all(_type_fits(inner, x) for x in v)
        return inner in ("int", "SymInt") and isinstance(v, int) and not isinstance(v, bool)
    if kind == "Tensor":
        return isinstance(v, torch.Tensor)
    if kind in ("int", "SymInt"):
        return (isinstance(v, int) and not isinstance(v, bool)) or isinstance(v, torch.dtype)
    if kind in ("float", "number", "Scalar"):
        return isinstance(v, (int, float))
    if kind == "bool":
        return isinstance(v, bool)
    if kind == "str":
        return isinstance(v, str)
    return False


def argument_names(path, fn, input, args, kwargs):
    """Parameter names of (input, *args), or None where they cannot be told."""
    n = 1 + len(args)
    if path in MANUAL_NAMES:
        return MANUAL_NAMES[path][:n] if len(MANUAL_NAMES[path]) >= n else None
    full = (input, *args)

    def bound(sig):
        try:
            sig.bind(*full, **kwargs)
        except TypeError:
            return None
        names = []
        for p in sig.parameters.values():
            if len(names) == n:
                break
            if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.KEYWORD_ONLY):
                return None
            names.append(p.name)
        return names if len(names) == n else None

    def clean(names):
        return ["input" if i == 0 and x == "self" else x for i, x in enumerate(names)]

    try:
        dispatched = torch._jit_internal.boolean_dispatched.get(fn)
    except TypeError:  # a method of the C side
        dispatched = None
    if dispatched is not None:
        names = bound(inspect.signature(dispatched["if_false"]))
        return clean(names) if names else None
    try:
        names = bound(inspect.signature(fn))
        if names:
            return clean(names)
    except (ValueError, TypeError):
        pass
    from torch.fx.operator_schemas import get_signature_for_torch_op

    sigs, schemas = get_signature_for_torch_op(fn, return_schemas=True)
    for sig, schema in zip(sigs or [], schemas or []):
        kinds = {("input" if a.name == "self" else a.name): str(a.type) for a in schema.arguments}
        names = bound(sig)
        if not names:
            continue
        names = clean(names)
        pairs = list(zip(names, full)) + list(kwargs.items())
        if all(_type_fits(kinds.get(k, ""), v) for k, v in pairs):
            return names
    return None
