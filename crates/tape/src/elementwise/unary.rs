//! Functions of one number.

unary! {
    /// `e^x` (`torch.exp`).
    ///
    /// ```
    /// assert_eq!(tape::Var::from(0.0).exp().item(), 1.0);
    /// ```
    exp(x) = x.exp(); output (y, g) fused g * y; rule g * y;

    /// The natural logarithm (`torch.log`).
    ///
    /// ```
    /// assert_eq!(tape::Var::from(1.0).log().item(), 0.0);
    /// ```
    log(x) = x.ln(); input (x, g) fused g / x; rule g / x;
}
