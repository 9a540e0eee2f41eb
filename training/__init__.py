"""Meta-training on task distributions, evaluation of adaptation, and export to ONNX bundles."""
