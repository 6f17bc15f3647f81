//! The opcodes of pickle: those that the reader supports, and the names of all.

macro_rules! opcodes {
    ($($name:ident = $code:expr),* ; $($other:ident = $unused:expr),* $(,)?) => {
        $(pub(super) const $name: u8 = $code;)*

        /// The name of an opcode, for messages.
        pub(super) fn name(code: u8) -> Option<&'static str> {
            const NAMES: &[(u8, &str)] = &[$(($code, stringify!($name)),)* $(($unused, stringify!($other)),)*];
            NAMES.iter().find(|(c, _)| *c == code).map(|(_, name)| *name)
        }
    };
}

opcodes! {
    MARK = b'(', STOP = b'.', POP = b'0', NONE = b'N',
    BININT = b'J', BININT1 = b'K', BININT2 = b'M', LONG1 = 0x8a, BINFLOAT = b'G', NEWTRUE = 0x88, NEWFALSE = 0x89,
    INT = b'I', LONG = b'L', FLOAT = b'F', STRING = b'S', UNICODE = b'V', GET = b'g', PUT = b'p',
    BINSTRING = b'T', SHORT_BINSTRING = b'U',
    BINBYTES = b'B', SHORT_BINBYTES = b'C', BINBYTES8 = 0x8e, BYTEARRAY8 = 0x96,
    BINUNICODE = b'X', SHORT_BINUNICODE = 0x8c, BINUNICODE8 = 0x8d,
    EMPTY_LIST = b']', LIST = b'l', APPEND = b'a', APPENDS = b'e',
    EMPTY_TUPLE = b')', TUPLE = b't', TUPLE1 = 0x85, TUPLE2 = 0x86, TUPLE3 = 0x87,
    EMPTY_DICT = b'}', DICT = b'd', SETITEM = b's', SETITEMS = b'u',
    BINGET = b'h', LONG_BINGET = b'j', BINPUT = b'q', LONG_BINPUT = b'r', MEMOIZE = 0x94,
    GLOBAL = b'c', STACK_GLOBAL = 0x93, REDUCE = b'R', BUILD = b'b', BINPERSID = b'Q', PROTO = 0x80, FRAME = 0x95
    ;
    POP_MARK = b'1', DUP = b'2', LONG4 = 0x8b,
    PERSID = b'P', INST = b'i', OBJ = b'o', NEWOBJ = 0x81, NEWOBJ_EX = 0x92,
    EXT1 = 0x82, EXT2 = 0x83, EXT4 = 0x84, EMPTY_SET = 0x8f, ADDITEMS = 0x90, FROZENSET = 0x91,
    NEXT_BUFFER = 0x97, READONLY_BUFFER = 0x98,
}
