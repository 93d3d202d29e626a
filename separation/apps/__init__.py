"""Applications of separation: the app, the browser version and the ONNX export."""
