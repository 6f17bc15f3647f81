//! The README's and the guide's code, compiled and run as documentation tests.

macro_rules! pages {
    ($($name:ident $path:literal;)*) => {$(
        #[doc = include_str!($path)]
        struct $name;
    )*};
}

pages! {
    Readme "../README.md";
    Index "../docs/index.md";
    Tutorial "../docs/tutorial.md";
    FromPytorch "../docs/from-pytorch.md";
    Training "../docs/training.md";
    Tape "../docs/tape.md";
    Func "../docs/func.md";
    Coursework "../docs/coursework.md";
    Backpropagation "../docs/backpropagation.md";
    AddingAnOperation "../docs/adding-an-operation.md";
    Design "../docs/design.md";
}
