"""What is shipped around the songs: the app, the browser version and the ONNX export."""
