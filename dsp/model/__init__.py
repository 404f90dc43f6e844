"""Feature rows, training, ONNX export, score session."""
