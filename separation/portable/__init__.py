"""Networks where torch is not: written as ONNX files, and run by ONNX Runtime."""
