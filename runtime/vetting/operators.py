"""The operators that a graph may use: standard ONNX, and a function of their inputs alone.

Left out on purpose: operators that draw random numbers of their own (`noise` is an input,
so that a replay is exact), those on sequences, optionals and texts, and those that read
files or images. Control flow can run without end, so it is for adapt.onnx alone, which
runs off the control path.
"""

_ELEMENTWISE = """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor
    Cast CastLike Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual
    HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod
    Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus
    Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor
"""
_REDUCTIONS = """
    ArgMax ArgMin CumProd CumSum Hardmax LogSoftmax ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
    ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Softmax TopK
"""
_LINEAR = "Conv ConvTranspose Det Einsum Gemm MatMul Trilu"
_NORMALISATION = """
    BatchNormalization GroupNormalization InstanceNormalization LayerNormalization LpNormalization
    MeanVarianceNormalization RMSNormalization
"""
_MEMORY = "Attention GRU LSTM RNN RotaryEmbedding TensorScatter"
_POOLING = "AveragePool GlobalAveragePool GlobalMaxPool LpPool MaxPool"
_SHAPES = """
    Compress Concat Constant ConstantOfShape DepthToSpace Expand EyeLike Flatten Gather
    GatherElements GatherND NonZero OneHot Pad Range Reshape ReverseSequence ScatterElements
    ScatterND Shape Size Slice SpaceToDepth Split Squeeze Tile Transpose Unsqueeze
"""
_QUANTISED = """
    ConvInteger DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul
    QuantizeLinear
"""

STRAIGHT = frozenset(
    " ".join(
        (_ELEMENTWISE, _REDUCTIONS, _LINEAR, _NORMALISATION, _MEMORY, _POOLING, _SHAPES, _QUANTISED)
    ).split()
)
"""Operators of any graph."""
CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
"""Operators that hold graphs of their own, for adapt.onnx."""
DOMAINS = frozenset({"", "ai.onnx"})
"""Both are names of the standard operators."""
